import { RE2JS } from 're2js'

/** How a tool names the one object within it that a request is about. */
export interface TargetRule {
  /** What the object is, for people: `repository`, `account`. */
  readonly name: string
  readonly required: boolean
  readonly pattern: string
  /** The compiled pattern; it must match the whole target. */
  readonly expression: TargetPattern
  /** Why the tool's connector refuses it all the same. */
  readonly judge?: (target: string) => string | undefined
}

/** A pattern in RE2's syntax, matched in time linear in the target's length, whatever it says. */
export interface TargetPattern {
  matches(target: string): boolean
}

export const targetLengthMax = 1024

/**
 * Compiles a target pattern, or says why it is refused. Admins write patterns but callers write targets, before any policy
 * is asked: RE2 never backtracks, so that no pattern lets a caller stop the broker, and has no look-around and no
 * back-references for it.
 */
export function compileTargetPattern(pattern: string): TargetPattern | string {
  try {
    return RE2JS.compile(pattern)
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/^error parsing regexp: /, '') : String(error)
    return `is not a valid RE2 expression: ${reason}`
  }
}

/** Why a target is refused under this rule (`undefined` rule: the tool has no targets), or `undefined` if it is accepted. */
export function findTargetProblem(rule: TargetRule | undefined, target: string | undefined): string | undefined {
  if (rule === undefined) return target === undefined ? undefined : 'has no targets: leave the target out'
  if (target === undefined) return rule.required ? `needs a target: name the ${rule.name}` : undefined
  if (target.length > targetLengthMax) return `takes targets of at most ${targetLengthMax} characters`
  if (/\p{Cc}/u.test(target) || !target.isWellFormed()) return 'takes no control characters in a target'
  const refused = rule.judge?.(target)
  if (refused !== undefined) return refused
  return rule.expression.matches(target) ? undefined : `takes a target (${rule.name}) that matches ${rule.pattern}`
}
