import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { JsonObject } from '../audit/encode.ts'
import type { Stage } from '../identity/workload.ts'
import type { Tool } from './catalog.ts'
import type { CedarCall } from './cedar.ts'
import type { Fact } from './reads.ts'
import { actionGroups, resourceOf } from './schema.ts'
import { findTargetProblem } from './target.ts'

/** What a workload asks for, with what Stint knows about it. */
export interface AccessRequest {
  readonly workload: {
    readonly name: string
    readonly stage: Stage
    readonly environment: string
    readonly team: string
    readonly tags: readonly string[]
  }
  readonly tool: string
  /** Full names `tool:verb`: at least one, all of the tool, no duplicates. */
  readonly actions: readonly string[]
  readonly target?: string
  readonly ttlSeconds: number
  readonly task?: string
  readonly proof: 'private_key_jwt' | 'stint_token'
  readonly boundKey: boolean
  readonly depth: number
  readonly onBehalfOf?: string
  readonly approvals: number
  readonly nowMs: number
  /** Given where `factsRead` says so: grants to, and denials of, this workload within the last hour. */
  readonly recentGrants?: number
  readonly recentDenials?: number
}

/** What is the same for every call of a request; the context varies while other times and approvals are tried. */
export interface RequestWorld {
  readonly principal: CedarCall['principal']
  readonly actions: readonly CedarCall['action'][]
  readonly resource: CedarCall['resource']
  readonly entities: CedarCall['entities']
}

/** Refuses a request that is not about this tool, and one that only a bug could make. */
export function checkRequest(tool: Tool | undefined, request: AccessRequest): Tool {
  if (tool === undefined) throw new BrokerError({ code: 'invalid_target', publicMessage: 'There is no such tool.' })
  const { actions } = request
  if (actions.length === 0 || new Set(actions).size !== actions.length || !actions.every((name) => tool.actions.has(name))) {
    throw new BrokerError({ code: 'invalid_scope', publicMessage: `Name actions of the tool ${tool.name}, each once.` })
  }
  const problem = findTargetProblem(tool.target, request.target)
  if (problem !== undefined) {
    throw new BrokerError({ code: 'invalid_target', publicMessage: `The tool ${tool.name} ${problem}.` })
  }
  // A lone surrogate becomes U+FFFD on its way to Cedar and to the log: two different tasks would be one.
  if (request.task?.isWellFormed() === false || request.onBehalfOf?.isWellFormed() === false) {
    throw new BrokerError({ code: 'invalid_request', publicMessage: 'The task is not valid Unicode text.' })
  }
  const counts = [request.approvals, request.depth, request.recentGrants ?? 0, request.recentDenials ?? 0]
  if (!(Number.isSafeInteger(request.ttlSeconds) && request.ttlSeconds > 0) || !counts.every(isCount)) {
    throw new Error('a request to decide on holds a time or a count that is no whole number')
  }
  return tool
}

/**
 * The workload with its team, the actions with all their groups, the target with its tool: everything that a rule may
 * ask about. Without an ancestor, a `forbid` on it would silently not match (invariant 4).
 */
export function describeWorld(tool: Tool, request: AccessRequest): RequestWorld {
  const { workload } = request
  const principal = { type: 'Workload', id: workload.name }
  const team = { type: 'Team', id: workload.team }
  const resource = resourceOf(tool.name, request.target)
  const toolEntity = { type: 'Tool', id: tool.name }
  const actions = request.actions.map((id) => ({ type: 'Action', id }))
  const groups = new Set<string>()
  const entities: CedarCall['entities'][number][] = [
    {
      uid: principal,
      // Names come from here alone; what callers and admins chose are values (invariant 9).
      attrs: {
        stage: workload.stage,
        environment: workload.environment,
        owner: workload.team,
        tags: [...new Set(workload.tags)].sort(),
      },
      parents: [team],
    },
    { uid: team, attrs: {}, parents: [] },
    { uid: toolEntity, attrs: { sensitivity: tool.sensitivity }, parents: [] },
  ]
  if (request.target !== undefined) entities.push({ uid: resource, attrs: { name: request.target }, parents: [toolEntity] })
  for (const uid of actions) {
    const parents = actionGroups(tool, uid.id).map((id) => ({ type: 'Action', id }))
    for (const { id } of parents) groups.add(id)
    entities.push({ uid, attrs: {}, parents })
  }
  for (const id of groups) entities.push({ uid: { type: 'Action', id }, attrs: {}, parents: [] })
  return { principal, actions, resource, entities }
}

/** The context that rules see. The recent counts are in it only where a rule of the slice reads them. */
export function describeContext(
  request: AccessRequest,
  facts: ReadonlySet<Fact>,
  tried: { readonly ttlSeconds: number; readonly approvals: number },
): CedarCall['context'] {
  return {
    ttl: { __extn: { fn: 'duration', arg: `${tried.ttlSeconds}s` } },
    approvals: tried.approvals,
    now: { __extn: { fn: 'datetime', arg: formatTime(request.nowMs) } },
    ...(request.task === undefined ? {} : { task: request.task }),
    depth: request.depth,
    ...(request.onBehalfOf === undefined ? {} : { onBehalfOf: request.onBehalfOf }),
    proof: request.proof,
    boundKey: request.boundKey,
    ...readCount(request, facts, 'recentGrants'),
    ...readCount(request, facts, 'recentDenials'),
  }
}

/** Everything that the policy saw, as plain JSON: enough to evaluate again without Stint (invariant 5). */
export function describeInput(world: RequestWorld, context: CedarCall['context']): JsonObject {
  // Both are built above, of strings, whole numbers, booleans, arrays and objects.
  return { ...world, context } as unknown as JsonObject
}

function readCount(request: AccessRequest, facts: ReadonlySet<Fact>, name: 'recentGrants' | 'recentDenials') {
  if (!facts.has(name)) return {}
  const count = request[name]
  // To guess 0 would let a rule on too many grants or denials pass.
  if (count === undefined) throw new Error(`a rule reads ${name}: look it up, see factsRead`)
  return { [name]: count }
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}
