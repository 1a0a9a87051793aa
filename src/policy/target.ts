import { findCostlyRepetition } from './target-cost.ts'

/** How a tool names the one object within it that a request is about. */
export interface TargetRule {
  /** What the object is, for people: `repository`, `account`. */
  readonly name: string
  readonly required: boolean
  readonly pattern: string
  /** The pattern, anchored so that it must match the whole target. */
  readonly expression: RegExp
}

export const targetLengthMax = 1024

/**
 * Compiles a target pattern so that it matches whole targets only, or says why it is refused. Admins write patterns but
 * callers write targets, so a pattern whose time could explode is refused, see `target-cost.ts`.
 */
export function compileTargetPattern(pattern: string): RegExp | string {
  try {
    // By itself first: `a)|(b` is no pattern, but would get out of the group that anchors it.
    new RegExp(pattern, 'u')
    const refusal = findCostlyRepetition(pattern)
    return refusal ?? new RegExp(`^(?:${pattern})$`, 'u')
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/^Invalid regular expression: /, '') : String(error)
    return `is not a valid regular expression: ${reason}`
  }
}

/** Why a target is refused under this rule (`undefined` rule: the tool has no targets), or `undefined` if it is accepted. */
export function findTargetProblem(rule: TargetRule | undefined, target: string | undefined): string | undefined {
  if (rule === undefined) return target === undefined ? undefined : 'has no targets: leave the target out'
  if (target === undefined) return rule.required ? `needs a target: name the ${rule.name}` : undefined
  if (target.length > targetLengthMax) return `takes targets of at most ${targetLengthMax} characters`
  if (/\p{Cc}/u.test(target) || !target.isWellFormed()) return 'takes no control characters in a target'
  return rule.expression.test(target) ? undefined : `takes a target (${rule.name}) that matches ${rule.pattern}`
}

