import { sensitivities, type Catalog, type Tool, type ToolAction } from './catalog.ts'
import { validatePolicies } from './cedar.ts'
import { readEntity, walkConditions } from './expression.ts'
import { constraintEntities, findDeadLiterals } from './literals.ts'
import { findLiteral } from './cedar-text.ts'
import type { PolicyProblem } from './problem.ts'
import { placeCedarMessage, type Rule } from './rule-file.ts'
import { createSchema } from './schema.ts'

/** Everything that is wrong with rules in the light of the catalog: by Cedar's strict validator, and what it cannot know. */
export function validateRules(rules: readonly Rule[], catalog: Catalog): PolicyProblem[] {
  const problems = new Map<string, PolicyProblem[]>(rules.map((rule) => [rule.id, checkLiterals(rule, catalog)]))
  const deadNames = new Set(rules.map(({ id }) => id).filter((id) => problems.get(id)?.length !== 0))
  const general: PolicyProblem[] = []

  for (const { tools, members } of groupByTools(rules, catalog)) {
    const byId = new Map(members.map((rule) => [rule.id, rule]))
    const texts = Object.fromEntries(members.map((rule) => [rule.id, rule.text]))
    for (const { policyId, problem } of validatePolicies(createSchema(tools), texts)) {
      const rule = byId.get(policyId ?? '')
      const [first] = members
      if (rule === undefined) {
        if (first !== undefined) general.push({ ...first.problemAt(0, problem.message), line: 1, column: 1 })
      } else if (!(deadNames.has(rule.id) && problem.message.startsWith('unrecognized action'))) {
        problems.get(rule.id)?.push(placeCedarMessage(rule, problem))
      }
    }
  }
  return [...general, ...[...problems.values()].flatMap(dropConsequences)]
}

function checkLiterals(rule: Rule, catalog: Catalog): PolicyProblem[] {
  return findDeadLiterals(rule.json, catalog).map(({ message, suggestion, literal }) => {
    const index = literal === undefined ? 0 : findLiteral(rule.text, literal.id, literal.type)
    return rule.problemAt(index, message, suggestion)
  })
}

/** That a rule can never apply follows from its other problems: said only where it is the only one. */
function dropConsequences(problems: readonly PolicyProblem[]): readonly PolicyProblem[] {
  const impossible = /^policy is impossible/
  const inapplicable = /^unable to find an applicable action/
  const causes = problems.filter(({ message }) => !impossible.test(message) && !inapplicable.test(message))
  if (causes.length > 0) return causes
  const better = problems.filter(({ message }) => inapplicable.test(message))
  return better.length > 0 ? better : problems
}

/**
 * Rules that concern the same tools, together with these tools. Cedar validates each rule against each action of the
 * schema, which for ten thousand rules and five hundred actions takes most of a minute; against the tools that a rule's
 * scope can match it finds the same problems.
 */
function groupByTools(rules: readonly Rule[], catalog: Catalog): { tools: readonly Tool[]; members: Rule[] }[] {
  const groups = new Map<string, { tools: readonly Tool[]; members: Rule[] }>()
  for (const rule of rules) {
    const inScope = toolsInScope(rule, catalog)
    const early = guardsNothingYet(rule, inScope)
    const tools = early ? inScope.map(withEverySensitivity) : inScope
    const key = `${early ? 'early' : ''}/${tools.map((tool) => tool.name).join('/')}`
    const group = groups.get(key) ?? { tools, members: [] }
    groups.set(key, group)
    group.members.push(rule)
  }
  return [...groups.values()]
}

/** The tools whose actions a rule's scope can match, or all where its conditions name actions of others. */
function toolsInScope({ json }: Rule, catalog: Catalog): readonly Tool[] {
  const all = [...catalog.values()]
  const actionNames = constraintEntities(json.action).map(({ id }) => id)
  const named = new Set(actionNames.map(toolOf))
  const [resource] = constraintEntities(json.resource)
  const resourceTool = resource?.id.split('/', 1)[0]
  const byAction = actionNames.length === 0 || named.has('sensitivity') ? all : all.filter(({ name }) => named.has(name))
  const tools = resourceTool === undefined ? byAction : byAction.filter(({ name }) => name === resourceTool)

  const names = new Set(['sensitivity', ...tools.map(({ name }) => name)])
  let staysWithin = tools.length > 0 && actionNames.every((name) => names.has(toolOf(name)))
  walkConditions(json, (node) => {
    const entity = node.operator === 'Value' ? readEntity(node.fields['value']) : undefined
    if (entity?.type === 'Action' && !names.has(toolOf(entity.id))) staysWithin = false
  })
  return staysWithin ? tools : all
}

/**
 * A `forbid` on actions of a sensitivity that no tool in its scope has yet is no mistake, though Cedar warns that it can
 * never apply: the guard may be there before the first such action is.
 */
function guardsNothingYet({ json }: Rule, tools: readonly Tool[]): boolean {
  const names = constraintEntities(json.action).map(({ id }) => id)
  if (json.effect !== 'forbid' || names.length === 0) return false
  const levels = new Set(tools.flatMap((tool) => [...tool.actions.values()].map((action) => `sensitivity:${action.sensitivity}`)))
  const known = ['sensitivity:low', 'sensitivity:medium', 'sensitivity:high']
  return names.every((name) => known.includes(name) && !levels.has(name))
}

/** The tool as it will be once it has actions of every sensitivity: what such a guard says is validated against that. */
function withEverySensitivity(tool: Tool): Tool {
  const added = sensitivities.map((level): [string, ToolAction] => {
    // No verb of a real action has a space.
    const verb = `some ${level}`
    return [`${tool.name}:${verb}`, { name: `${tool.name}:${verb}`, verb, sensitivity: level, settings: {} }]
  })
  return { ...tool, actions: new Map([...tool.actions, ...added]) }
}

function toolOf(actionName: string): string {
  return actionName.slice(0, Math.max(actionName.indexOf(':'), 0))
}
