import { literalValues, readNode, readVariable, type ExpressionNode } from './expression.ts'
import type { Expr, PolicyJson } from './cedar.ts'

const contextFacts = [
  'ttl',
  'approvals',
  'now',
  'task',
  'depth',
  'onBehalfOf',
  'proof',
  'boundKey',
  'recentGrants',
  'recentDenials',
] as const
const principalFacts = ['stage', 'environment', 'owner', 'tags'] as const

/** One thing that a rule's conditions can depend on. `principal` is the workload's identity: its name and team. */
export type Fact = (typeof contextFacts)[number] | (typeof principalFacts)[number] | 'principal' | 'action' | 'resource'

export const allFacts: ReadonlySet<Fact> = new Set([...contextFacts, ...principalFacts, 'principal', 'action', 'resource'])

export interface Reads {
  /** Everything that the conditions can depend on; too much is safe, too little would mix up verdicts. */
  readonly facts: ReadonlySet<Fact>
  /** The duration literals, in whole seconds rounded down, without duplicates. */
  readonly durationsSeconds: ReadonlySet<number>
}

/**
 * Works out which facts a policy's conditions read. Only `context.x`, `principal.x`, `has` on either and variables that
 * stand alone are understood; whatever else reaches into an entity or a record counts as reading everything.
 */
export function findReads(policy: PolicyJson): Reads {
  const facts = new Set<Fact>()
  const durationsSeconds = new Set<number>()
  const readAll = (): void => allFacts.forEach((fact) => facts.add(fact))

  function visit(expression: Expr): void {
    const node = readNode(expression)
    if (!node.known) readAll()
    if (node.operator === 'duration') collectDuration(node, durationsSeconds)
    if (node.operator === 'Var') {
      for (const fact of factsOfVariable(node.fields['value'])) facts.add(fact)
      return
    }
    if (node.operator === '.' || node.operator === 'has') {
      const found = factsOfAttribute(node)
      if (found === undefined) readAll()
      else return found.forEach((fact) => facts.add(fact))
    }
    // An entity that does not stand for itself but for what is stored about it.
    const looksUp = ['in', 'is', 'getTag', 'hasTag'].includes(node.operator)
    if (looksUp && readVariable(node.operands[0]) === undefined) readAll()
    for (const operand of node.operands) visit(operand)
  }

  for (const clause of policy.conditions) visit(clause.body)
  return { facts, durationsSeconds }
}

function factsOfVariable(variable: unknown): Iterable<Fact> {
  if (variable === 'principal') return ['principal', ...principalFacts]
  return variable === 'action' || variable === 'resource' ? [variable] : allFacts
}

/** The facts behind `variable.attribute` or `variable has attribute`; `undefined` where it is neither. */
function factsOfAttribute(node: ExpressionNode): Fact[] | undefined {
  const variable = readVariable(node.operands[0])
  const attribute: unknown = node.fields['attr']
  const name: unknown = Array.isArray(attribute) ? attribute[0] : attribute
  // Whether there is a sensitivity or a name depends on whether the resource is a tool or a target.
  if (variable === 'resource') return ['resource']
  const known: readonly Fact[] = variable === 'context' ? contextFacts : variable === 'principal' ? principalFacts : []
  const fact = known.find((candidate) => candidate === name)
  return fact === undefined ? undefined : [fact]
}

function collectDuration(node: ExpressionNode, into: Set<number>): void {
  for (const operand of node.operands) {
    for (const value of literalValues(operand)) {
      const seconds = typeof value === 'string' ? parseCedarDuration(value) : undefined
      if (seconds !== undefined) into.add(seconds)
    }
  }
}

const millisecondsPerUnit: Readonly<Record<string, number>> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1_000, ms: 1 }

/** Whole seconds in a Cedar duration such as `1h30m`; negative ones and nonsense are `undefined`. */
function parseCedarDuration(text: string): number | undefined {
  if (!/^(?:\d+d)?(?:\d+h)?(?:\d+m(?!s))?(?:\d+s)?(?:\d+ms)?$/.test(text) || text === '') return undefined
  let milliseconds = 0
  for (const [, amount, unit = ''] of text.matchAll(/(\d+)(ms|[dhms])/g)) {
    milliseconds += Number(amount) * (millisecondsPerUnit[unit] ?? 0)
  }
  return Math.floor(milliseconds / 1000)
}
