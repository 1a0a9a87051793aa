import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import type { JsonObject, JsonValue } from '../audit/encode.ts'
import type { DecisionRecord } from '../audit/event.ts'
import type { Stage } from '../identity/workload.ts'
import { formatTime, parseTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Tool } from './catalog.ts'
import type { Decider } from './decide.ts'
import type { PolicySet } from './policy-set.ts'
import { describeDecision } from './record.ts'
import type { AccessRequest } from './request.ts'

/** A place where the log does not say what comes out when the decision is made again. */
export interface Mismatch {
  /** Within the entry, such as `decision.verdict` or `decision.input.context.ttl`. */
  readonly path: string
  /** `undefined` where the entry has nothing there. */
  readonly recorded: JsonValue | undefined
  /** `undefined` where there should be nothing. */
  readonly replayed: JsonValue | undefined
}

/** The types of entries that record a decision. */
export const decidedTypes: readonly unknown[] = ['grant.issued', 'grant.minting', 'grant.renewed', 'grant.denied']

/**
 * Decides again what an entry records that gave, renewed or denied a grant, by the set that it names, and compares the whole
 * record: the verdict with its reasons and errors, all that the policy saw, and what was asked for. The facts about the
 * workload and the counts are taken from the entry. Empty if it comes out the same (invariant 5).
 */
export function replayDecision(decider: Decider, set: PolicySet, entry: JsonObject): readonly Mismatch[] {
  const parsed = entrySchema.safeParse(entry)
  if (!parsed.success) {
    const path = parsed.error.issues[0]?.path ?? []
    return [{ path: path.map(String).join('.'), recorded: valueAt(entry, path), replayed: 'something else' }]
  }
  const recorded = parsed.data
  const request = requestOf(recorded.decision.input)
  const again = decideAgain(decider, set, request)
  if ('mismatch' in again) return [again.mismatch]
  const { verdict } = again.decision
  const tool = set.catalog.get(request.tool)
  const given = describeGiven(verdict === 'allow' ? tool : undefined, entry['type'])
  const asked = {
    type: given.type,
    workload: request.workload.name,
    tool: request.tool,
    actions: request.actions,
    target: request.target,
    task: request.task,
    ttl_seconds: Math.min(request.ttlSeconds, tool?.ttl.maxSeconds ?? 0),
    audience: given.audience,
    connector: given.connector,
    // Another version of Cedar may well say the same: that is for whoever reports it.
    decision: { ...again.decision, cedar_version: recorded.decision.cedar_version },
  }
  const { type, workload, tool: toolName, actions, target, task, ttl_seconds, audience, connector, decision } = entry
  return findMismatches({ type, workload, tool: toolName, actions, target, task, ttl_seconds, audience, connector, decision }, asked)
}

/**
 * What an entry says of a grant that was allowed on the tool: a token of Stint's own is for the tool's audience, anything
 * else is made through the tool's connector, or renewed there.
 */
function describeGiven(tool: Tool | undefined, type: unknown): { readonly type: string; readonly audience: string | undefined; readonly connector: string | undefined } {
  if (tool === undefined) return { type: 'grant.denied', audience: undefined, connector: undefined }
  const { connector, audience } = tool
  if (connector === 'jwt') return { type: 'grant.issued', audience, connector: undefined }
  return type === 'grant.renewed' ? { type, audience: undefined, connector: undefined } : { type: 'grant.minting', audience: undefined, connector }
}

const stages = ['sandbox', 'pilot', 'production'] as const satisfies readonly Stage[]
const proofs = ['private_key_jwt', 'stint_token'] as const satisfies readonly AccessRequest['proof'][]
const count = z.int().min(0)
// The form that it was written in, for the texts are compared afterwards.
const instant = z.string().refine((text) => formatTimeAgain(text) === text)

// Only what a request is made from. What else an entry holds must come out again, so that it needs no schema.
const inputSchema = z.object({
  principal: z.object({ id: z.string() }),
  actions: z.array(z.object({ id: z.string() })).min(1),
  resource: z.object({ type: z.enum(['Tool', 'Target']), id: z.string() }),
  entities: z
    .tuple([z.object({ attrs: z.object({ stage: z.enum(stages), environment: z.string(), owner: z.string(), tags: z.array(z.string()) }) })])
    .rest(z.unknown()),
  context: z.object({
    ttl: z.object({ __extn: z.object({ arg: z.string().regex(/^[1-9]\d{0,8}s$/) }) }),
    approvals: count,
    now: z.object({ __extn: z.object({ arg: instant }) }),
    task: z.string().optional(),
    depth: count,
    onBehalfOf: z.string().optional(),
    proof: z.enum(proofs),
    boundKey: z.boolean(),
    recentGrants: count.optional(),
    recentDenials: count.optional(),
  }),
})
const entrySchema = z.object({ decision: z.object({ cedar_version: z.string(), input: inputSchema }) })

/** The request that was decided on, from what the log says that the policy saw. */
function requestOf({ principal, actions, resource, entities, context }: z.infer<typeof inputSchema>): AccessRequest {
  const [{ attrs }] = entities
  const slash = resource.type === 'Tool' ? resource.id.length : Math.max(0, resource.id.indexOf('/'))
  const { ttl, now, task, onBehalfOf, recentGrants, recentDenials, ...rest } = context
  return {
    ...rest,
    workload: { name: principal.id, stage: attrs.stage, environment: attrs.environment, team: attrs.owner, tags: attrs.tags },
    tool: resource.id.slice(0, slash),
    actions: actions.map(({ id }) => id),
    ...(resource.type === 'Target' && { target: resource.id.slice(slash + 1) }),
    ttlSeconds: Number(ttl.__extn.arg.slice(0, -1)),
    ...(task !== undefined && { task }),
    ...(onBehalfOf !== undefined && { onBehalfOf }),
    nowMs: parseTime(now.__extn.arg) ?? 0,
    ...(recentGrants !== undefined && { recentGrants }),
    ...(recentDenials !== undefined && { recentDenials }),
  }
}

function decideAgain(decider: Decider, set: PolicySet, request: AccessRequest): { decision: DecisionRecord } | { mismatch: Mismatch } {
  try {
    for (const fact of decider.factsRead(set, request)) {
      if (request[fact] !== undefined) continue
      const replayed = 'a number, for a rule reads it'
      return { mismatch: { path: `decision.input.context.${fact}`, recorded: undefined, replayed } }
    }
    return { decision: describeDecision(decider.decide(set, request)) }
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    // What the catalog does not have is refused before anything is decided.
    const { tool, actions, target } = request
    return { mismatch: { path: 'decision.input', recorded: { tool, actions, target }, replayed: error.publicMessage } }
  }
}

/** The innermost members that differ; lists of plain values as a whole. The path of each is put together on the way back. */
function findMismatches(recorded: unknown, replayed: unknown): Mismatch[] {
  if (recorded === replayed) return []
  if (!isObject(recorded) || !isObject(replayed) || !areAlike(recorded, replayed)) {
    if (Array.isArray(recorded) && isDeepStrictEqual(recorded, replayed)) return []
    // Both come from JSON, or are such values.
    return [{ path: '', recorded: recorded as JsonValue | undefined, replayed: replayed as JsonValue | undefined }]
  }
  const keys = Object.keys(replayed)
  const found = keys.flatMap((key) => findWithin(key, recorded[key], replayed[key]))
  const more = Object.keys(recorded).filter((key) => !Object.hasOwn(replayed, key))
  return [...found, ...more.flatMap((key) => findWithin(key, recorded[key], undefined))]
}

function findWithin(key: string, recorded: unknown, replayed: unknown): Mismatch[] {
  return findMismatches(recorded, replayed).map((mismatch) => ({ ...mismatch, path: mismatch.path === '' ? key : `${key}.${mismatch.path}` }))
}

type Members = Readonly<Record<string, unknown>>

/** Whether to look into the members: of two objects, or of two lists of as many objects. */
function areAlike(a: Members, b: Members): boolean {
  if (!Array.isArray(a) || !Array.isArray(b)) return !Array.isArray(a) && !Array.isArray(b)
  return a.length === b.length && a.every(isObject)
}

function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null
}

function valueAt(value: JsonObject, path: readonly PropertyKey[]): JsonValue | undefined {
  // From JSON, and so are its members.
  return path.reduce<unknown>((at, key) => (isObject(at) ? at[String(key)] : undefined), value) as JsonValue | undefined
}

function formatTimeAgain(text: string): string | undefined {
  const ms = parseTime(text)
  return ms === undefined ? undefined : formatTime(ms)
}
