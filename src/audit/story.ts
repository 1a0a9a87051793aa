import { z } from 'zod'

/** What an entry of the log says, with the members that every entry has. */
export interface StoryEntry {
  readonly index: number
  readonly time: string
  readonly type: string
  readonly [member: string]: unknown
}

/** How a story begins: what was given, or was to be made. */
export interface Opening {
  readonly index: number
  readonly time: string
  readonly grant: string
  readonly workload: string
  readonly tool: string
  readonly actions: readonly string[]
  readonly target?: string | undefined
  readonly task?: string | undefined
  readonly expires_at: string
  readonly connector?: string | undefined
  readonly ends?: string | undefined
  readonly renews?: string | undefined
  readonly decision: { readonly policy_set: string; readonly reasons: readonly string[] }
}

/** An entry about the grant: that somebody has ended it, in a sentence, or what happened to it in an outside tool. */
export interface Chapter {
  readonly kind: 'revoked' | 'life'
  readonly sentence?: string
}

export const actorMember = z.looseObject({ kind: z.string(), id: z.string().optional() })

/** `triage-bot was given issues.read for github until …, by … of the policy set …`. */
export function tellDecision({ workload, actions, tool, target, task, expires_at: end, renews, decision }: Opening, how: string): string {
  const given = `${actions.join(', ')}${target === undefined ? '' : ` on ${target}`}`
  const why = `by ${decision.reasons.join(', ')} of the policy set ${decision.policy_set}`
  const from = renews === undefined ? '' : `, going on from ${renews}`
  return `${workload} ${how} ${given} for ${tool} until ${end}${task === undefined ? '' : `, for the task ${task}`}${from}, ${why}`
}

/** A sentence that ends with who it was, and why. */
export function tellBy({ index, time }: StoryEntry, by: { readonly actor: z.output<typeof actorMember>; readonly reason?: string | undefined }, what: string): string {
  const who = `${by.actor.kind}${by.actor.id === undefined ? '' : ` ${by.actor.id}`}`
  return `Entry ${index}, ${time}: ${what} by ${who}${by.reason === undefined ? '' : `: ${by.reason}`}.`
}
