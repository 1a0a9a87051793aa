import { z } from 'zod'
import type { Prolonged } from '../broker/renew.ts'
import type { Granted } from '../broker/request.ts'
import { describeDelay, type RevokedGrant } from '../broker/revoke.ts'
import { grantStates, type GrantState } from '../grant/grant.ts'
import { formatTime } from '../kernel/clock.ts'
import { Secret } from '../kernel/secret.ts'
import { lendsValue } from '../policy/catalog.ts'
import type { TouchedGrant } from '../storage/revoked.ts'

const effects = ['immediate', 'propagating', 'introspection', 'expiry'] as const
const ends = z
  .strictObject({
    effect: z.enum(effects),
    delay_seconds: z.int().optional().describe('How long the tool takes until that is carried out everywhere, at most.'),
    tool_ends_at: z.iso.datetime().optional().describe('Until then the tool by itself lets it live, past expires_at.'),
    meaning: z.string().describe('The same in words.'),
  })
  .describe('How it ends before its time.')

const members = z.record(z.string(), z.union([z.string(), z.number()]))
export const grantedAnswer = z.strictObject({
  grant: z.string(),
  tool: z.string(),
  actions: z.array(z.string()),
  target: z.string().optional(),
  task: z.string().optional(),
  state: z.literal('active'),
  issued_at: z.iso.datetime(),
  expires_at: z.iso.datetime(),
  renews: z.string().optional().describe('The first grant, of which this one is a renewal.'),
  ends,
  credential: members.describe('In the form that the tool\'s own clients take. It is answered this once.'),
  environment: z.record(z.string(), z.string()).describe('Environment variables by which the tool\'s own programs take it.'),
  conceals: z.array(z.string()).optional().describe('Environment variables that such a program must not have beside those: it would take them before them, or mix them.'),
  audit_index: z.int(),
})
export const prolongedAnswer = z.strictObject({ grant: z.string(), expires_at: z.iso.datetime(), renewable_until: z.iso.datetime(), audit_index: z.int() })

export const revokedGrantAnswer = z.strictObject({
  grant: z.string(),
  workload: z.string(),
  tool: z.string(),
  outcome: z.enum(['revoked', 'already_ended', 'retrying', 'lives_until', 'stuck', 'written_off']),
  effect: z.enum(effects),
  until: z.iso.datetime().optional().describe('It cannot be ended before that.'),
  effective_by: z.iso.datetime().optional().describe('The tool was told, and takes until then to carry it out everywhere.'),
  problem: z.string().optional().describe('Why the tool has not ended it yet.'),
})
export const givenBackAnswer = z.strictObject({ grants: z.array(revokedGrantAnswer), audit_index: z.int().optional() })
export const unstuckAnswer = revokedGrantAnswer.extend({ audit_index: z.int() })

export const grantAnswer = z
  .strictObject({
    grant: z.string(),
    workload: z.string(),
    tool: z.string(),
    actions: z.array(z.string()),
    target: z.string().optional(),
    task: z.string().optional(),
    state: z.enum(grantStates),
    issued_at: z.iso.datetime(),
    expires_at: z.iso.datetime(),
    ends,
    reference: z.string().optional().describe('What the tool calls it.'),
    may_live_until: z.iso.datetime().optional().describe('Until then it may live whatever is done.'),
    tries: z.int().optional().describe('How often its end was tried.'),
    next_try_at: z.iso.datetime().optional(),
    problem: z.string().optional().describe('What went wrong last.'),
    ended_at: z.iso.datetime().optional(),
    effective_by: z.iso.datetime().optional().describe('The tool has confirmed its end, and takes until then to carry it out everywhere.'),
  })
  .meta({ id: 'Grant' })

export function describeGranted({ grant, request, issuedAtMs, expiresAtMs, renews, effect, delaySeconds, diesAtMs, credential, environment, conceals, auditIndex }: Granted) {
  return {
    grant,
    tool: request.tool.name,
    actions: request.actions,
    target: request.target,
    task: request.task,
    state: 'active',
    issued_at: formatTime(issuedAtMs),
    expires_at: formatTime(expiresAtMs),
    renews,
    ends: describeEnds(effect, delaySeconds, request.tool.connector, outlives(diesAtMs, expiresAtMs)),
    credential: reveal(credential),
    environment: reveal(environment),
    conceals: conceals && [...conceals],
    audit_index: auditIndex,
  }
}

export function describeProlonged({ prolonged, expiresAtMs, renewableUntilMs, auditIndex }: Prolonged) {
  return { grant: prolonged, expires_at: formatTime(expiresAtMs), renewable_until: formatTime(renewableUntilMs), audit_index: auditIndex }
}

const meanings = {
  immediate: 'The tool is told and confirms it: from then on the credential opens nothing.',
  propagating: 'The tool is told; it takes effect within the tool\'s own delay.',
  introspection: 'Whoever asks is told at once; who verifies it offline accepts it until it expires.',
  expiry: 'It cannot be ended before it expires.',
} as const

/** A value that somebody keeps is lent as it is: nothing of it ends by itself. */
const meaningsOfSecrets: { readonly [E in keyof typeof meanings]?: string } = {
  propagating: 'The value stays good until it is replaced: a revocation has that done at once, and the end of its time waits for the next rotation.',
  expiry: 'The value stays good until somebody replaces it, also after its time: the grant ends when that is done, which Stint does not do itself.',
}

/** When the tool ends it by itself, where that is later than the grant. */
function outlives(diesAtMs = 0, expiresAtMs: number): number | undefined {
  return diesAtMs > expiresAtMs ? diesAtMs : undefined
}

function describeEnds(effect: keyof typeof meanings, delaySeconds: number | undefined, connector?: string, toolEndsAtMs?: number) {
  const said = (lendsValue(connector) ? meaningsOfSecrets[effect] : undefined) ?? meanings[effect]
  // Where it is ended at once, nothing outlives the grant.
  const toolEndsAt = toolEndsAtMs === undefined || effect === 'immediate' ? undefined : formatTime(toolEndsAtMs)
  const meaning = toolEndsAt === undefined ? said : `${said} By itself the tool lets it live until ${toolEndsAt}.`
  return { effect, delay_seconds: delaySeconds, tool_ends_at: toolEndsAt, meaning }
}

export function describeRevoked({ grant, workload, tool, outcome, effect, untilMs, effectiveByMs, problem }: RevokedGrant) {
  const time = (ms: number | undefined) => (ms === undefined ? undefined : formatTime(ms))
  return { grant, workload, tool, outcome, effect, until: time(untilMs), effective_by: time(effectiveByMs), problem }
}

export function describeGrant({ grant, credential, state }: TouchedGrant) {
  const time = (ms: number | undefined) => (ms === undefined ? undefined : formatTime(ms))
  const lingers: readonly GrantState[] = ['unknown', 'ending', 'stuck']
  return {
    grant: grant.id,
    workload: grant.workload,
    tool: grant.tool,
    actions: [...grant.actions],
    target: grant.target,
    task: grant.task,
    state,
    issued_at: formatTime(grant.issuedAtMs),
    expires_at: formatTime(Math.min(grant.expiresAtMs, credential?.diesAtMs ?? Infinity)),
    ends: describeEnds(credential?.effect ?? 'introspection', credential?.delaySeconds, credential?.connector, state === 'active' ? outlives(credential?.diesAtMs, grant.expiresAtMs) : undefined),
    reference: credential?.reference,
    may_live_until: lingers.includes(state) ? time(credential?.diesAtMs) : undefined,
    tries: credential?.tries,
    next_try_at: lingers.includes(state) ? time(credential?.dueAtMs) : undefined,
    problem: credential?.problem,
    ended_at: time(credential?.endedAtMs),
    effective_by: time(describeDelay(credential).effectiveByMs),
  }
}

/** The one place where a credential becomes text: the answer to whoever asked for it. */
function reveal(values: Readonly<Record<string, string | number | Secret>>): Record<string, string | number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value instanceof Secret ? value.reveal() : value]))
}
