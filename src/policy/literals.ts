import type { Stage } from '../identity/workload.ts'
import { nearestName } from '../kernel/nearest.ts'
import { sensitivities, type Catalog } from './catalog.ts'
import type { CedarValueJson, Expr, PolicyJson, TypeAndId } from './cedar.ts'
import { literalValues, readEntity, readNode, readVariable, walkConditions, type ExpressionNode } from './expression.ts'
import { quote } from './problem.ts'
import type { AccessRequest } from './request.ts'
import { actionGroups, listActionGroups } from './schema.ts'
import { findTargetProblem } from './target.ts'

/** A literal that can never match, and how to find it in the policy's text. */
export interface LiteralProblem {
  readonly message: string
  readonly suggestion?: string | undefined
  readonly literal?: { readonly id: string; readonly type?: string }
}

// Written as records so that what is added to them does not compile until it is added here.
const stages = Object.keys({ sandbox: true, pilot: true, production: true } satisfies Record<Stage, true>)
const proofs = Object.keys({ private_key_jwt: true, stint_token: true } satisfies Record<AccessRequest['proof'], true>)

// As the registry has it: a DNS label. Rooms of one floor share types only.
const label = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/**
 * Finds what Cedar's validator cannot know: names and values that no request will ever have. A misspelt name in a
 * `forbid` would fail open, silently (invariant 4).
 */
export function findDeadLiterals(policy: PolicyJson, catalog: Catalog): LiteralProblem[] {
  const groups = new Set(listActionGroups(catalog))
  const problems = [
    ...constraintEntities(policy.principal).map((entity) => checkEntity(entity, catalog, groups)),
    ...constraintEntities(policy.resource).map((entity) => checkEntity(entity, catalog, groups)),
    ...constraintEntities(policy.action).map((entity) => checkEntity(entity, catalog, groups)),
    policy.action.op === '==' ? checkComparedGroup(constraintEntities(policy.action)[0], groups) : undefined,
    policy.resource.op === '==' ? checkComparedTool(constraintEntities(policy.resource)[0], catalog) : undefined,
    checkScopeTools(policy, catalog),
    policy.effect === 'forbid' ? checkForbiddenTarget(constraintEntities(policy.resource)[0], catalog) : undefined,
  ]
  walkConditions(policy, (node) => {
    for (const value of node.operator === 'Value' ? [node.fields['value']] : []) {
      const entity = readEntity(value)
      if (entity !== undefined) problems.push(checkEntity(entity, catalog, groups))
    }
    problems.push(...checkComparison(node, catalog, groups), checkLookUp(node))
  })
  return problems.filter((problem) => problem !== undefined)
}

/** The entities that one constraint of a policy's scope names. */
export function constraintEntities(constraint: PolicyJson['principal'] | PolicyJson['action']): TypeAndId[] {
  const inner = 'in' in constraint && constraint.in !== undefined ? constraint.in : constraint
  const named = 'entities' in inner ? inner.entities : 'entity' in inner ? [inner.entity] : []
  return named.map(readEntity).filter((entity) => entity !== undefined)
}

function checkEntity({ type, id }: TypeAndId, catalog: Catalog, groups: ReadonlySet<string>): LiteralProblem | undefined {
  const literal = { type, id }
  if (type === 'Tool' && !catalog.has(id)) {
    return { literal, message: `no tool is named ${quote(id)}`, suggestion: nearestName(id, catalog.keys()) }
  }
  if (type === 'Action' && !groups.has(id) && !isAction(id, catalog)) {
    return { literal, message: `no action is named ${quote(id)}`, suggestion: nearestName(id, listActions(catalog, groups)) }
  }
  if ((type === 'Workload' || type === 'Team') && !label.test(id)) {
    return { literal, message: `no ${type.toLowerCase()} can be named ${quote(id)}: names are DNS labels in lower case` }
  }
  return type === 'Target' ? checkTarget(id, catalog) : undefined
}

function checkTarget(id: string, catalog: Catalog): LiteralProblem | undefined {
  const literal = { type: 'Target', id }
  const slash = id.indexOf('/')
  if (slash === -1) return { literal, message: `target ${quote(id)} must be written as "tool/target"` }
  const tool = catalog.get(id.slice(0, slash))
  if (tool === undefined) {
    const nearest = nearestName(id.slice(0, slash), catalog.keys())
    const suggestion = nearest === undefined ? undefined : `${nearest}${id.slice(slash)}`
    return { literal, message: `target ${quote(id)} is of a tool that does not exist`, suggestion }
  }
  const problem = findTargetProblem(tool.target, id.slice(slash + 1))
  return problem === undefined ? undefined : { literal, message: `target ${quote(id)} can never be requested: ${tool.name} ${problem}` }
}

function checkComparedGroup(entity: TypeAndId | undefined, groups: ReadonlySet<string>): LiteralProblem | undefined {
  if (entity?.type !== 'Action' || !groups.has(entity.id)) return undefined
  return { literal: entity, message: `${quote(entity.id)} is a group of actions: match it with "in", for no action equals it` }
}

function checkComparedTool(entity: TypeAndId | undefined, catalog: Catalog): LiteralProblem | undefined {
  if (entity?.type !== 'Tool' || catalog.get(entity.id)?.target?.required !== true) return undefined
  return { literal: entity, message: `requests for ${entity.id} always name a target: match its targets with "in"` }
}

/** A forbid on one target says nothing of a request that names none, and so is about the whole tool. */
function checkForbiddenTarget(entity: TypeAndId | undefined, catalog: Catalog): LiteralProblem | undefined {
  const name = entity?.id.split('/', 1)[0] ?? ''
  if (entity?.type !== 'Target' || catalog.get(name)?.target?.required !== false) return undefined
  const message = `a request for ${name} may leave its target out and would pass this forbid: make the target required, or forbid the tool`
  return { literal: entity, message }
}

/** An action of one tool is never requested with a resource of another. */
function checkScopeTools(policy: PolicyJson, catalog: Catalog): LiteralProblem | undefined {
  const [resource] = constraintEntities(policy.resource)
  const toolName = resource?.type === 'Target' ? resource.id.split('/', 1)[0] : resource?.id
  const tool = catalog.get(toolName ?? '')
  const actions = constraintEntities(policy.action)
  if (resource === undefined || tool === undefined || actions.length === 0) return undefined
  const own = new Set([...tool.actions.keys()].flatMap((name) => [name, ...actionGroups(tool, name)]))
  // A guard on a sensitivity that the tool has no action of yet is worth having: see also validate.ts.
  if (actions.some(({ id }) => own.has(id) || id.startsWith('sensitivity:'))) return undefined
  return { literal: resource, message: `none of the actions in this scope belongs to the tool ${quote(tool.name)}` }
}

function checkComparison(node: ExpressionNode, catalog: Catalog, groups: ReadonlySet<string>): (LiteralProblem | undefined)[] {
  const [left, right] = node.operands
  if (node.operator === '==' || node.operator === '!=') {
    const entities = [...literalValues(left), ...literalValues(right)].map(readEntity)
    return [
      ...checkVocabulary(left, literalValues(right)),
      ...checkVocabulary(right, literalValues(left)),
      ...entities.flatMap((entity) => [checkComparedGroup(entity, groups), checkComparedTool(entity, catalog)]),
    ]
  }
  if (node.operator === 'contains') return checkVocabulary(right, literalValues(left))
  if (node.operator === 'containsAll' || node.operator === 'containsAny') {
    const members = (set: Expr | undefined): readonly Expr[] => (set === undefined ? [] : readNode(set).operands)
    return [
      ...members(left).flatMap((member) => checkVocabulary(member, literalValues(right))),
      ...members(right).flatMap((member) => checkVocabulary(member, literalValues(left))),
    ]
  }
  return node.operator === 'like' ? [checkPattern(node)] : []
}

/** The only values that an expression can ever have, where they are known. */
function vocabularyOf(expression: Expr | undefined): readonly string[] | undefined {
  if (expression === undefined) return undefined
  const node = readNode(expression)
  if (node.operator !== '.') return undefined
  const path = `${readVariable(node.operands[0]) ?? ''}.${String(node.fields['attr'])}`
  if (path === 'principal.stage') return stages
  if (path === 'resource.sensitivity') return sensitivities
  return path === 'context.proof' ? proofs : undefined
}

function checkVocabulary(expression: Expr | undefined, values: readonly CedarValueJson[]): LiteralProblem[] {
  const known = vocabularyOf(expression)
  if (known === undefined) return []
  return values
    .filter((value) => typeof value === 'string')
    .filter((value) => !known.includes(value))
    .map((id) => {
      const message = `${quote(id)} is never the value here: it is one of ${known.join(', ')}`
      return { literal: { id }, message, suggestion: nearestName(id, known) }
    })
}

function checkPattern(node: ExpressionNode): LiteralProblem | undefined {
  const known = vocabularyOf(node.operands[0])
  const pattern: unknown = node.fields['pattern']
  if (known === undefined || !Array.isArray(pattern)) return undefined
  const parts = pattern.map((part: unknown) => {
    const literal = typeof part === 'object' && part !== null && 'Literal' in part ? String(part.Literal) : undefined
    return literal === undefined ? '.*' : literal.replace(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)
  })
  const expression = new RegExp(`^(?:${parts.join('')})$`, 's')
  if (known.some((value) => expression.test(value))) return undefined
  return { message: `this "like" matches none of the possible values: ${known.join(', ')}` }
}

/** A decision knows only the entities of its own request: asked about another, it would find nothing, in silence. */
function checkLookUp(node: ExpressionNode): LiteralProblem | undefined {
  if (!['.', 'has', 'in', 'is'].includes(node.operator)) return undefined
  const [entity] = literalValues(node.operands[0]).map(readEntity).filter((found) => found !== undefined)
  if (entity === undefined) return undefined
  const message = `asks about ${entity.type}::${quote(entity.id)} itself: ask about principal, action or resource instead`
  return { literal: entity, message }
}

function isAction(id: string, catalog: Catalog): boolean {
  return catalog.get(id.slice(0, Math.max(id.indexOf(':'), 0)))?.actions.has(id) === true
}

function listActions(catalog: Catalog, groups: ReadonlySet<string>): string[] {
  return [...[...catalog.values()].flatMap((tool) => [...tool.actions.keys()]), ...groups]
}
