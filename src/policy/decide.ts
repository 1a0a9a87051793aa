import { unreachable } from '../kernel/errors.ts'
import type { JsonObject } from '../audit/encode.ts'
import { judge, type ActionSlice, type Judgement } from './judge.ts'
import { createLru } from './lru.ts'
import type { Policy, PolicySet } from './policy-set.ts'
import type { Fact, Reads } from './reads.ts'
import { checkRequest, describeContext, describeInput, describeWorld, type AccessRequest } from './request.ts'
import { actionGroups, resourceOf } from './schema.ts'
import { findSlice, joinReads, sliceKey, type SliceQuestion } from './slice.ts'
import { createSlotPool } from './slot-pool.ts'

export interface Decision {
  readonly verdict: 'allow' | 'deny' | 'needs_approval'
  /** With `needs_approval`: how many distinct approvals in all would allow it. */
  readonly approvalsNeeded?: number
  /** With `deny`: a shorter time (at least 1 s) that would be allowed as the request stands. */
  readonly allowedTtlSeconds?: number
  /**
   * Ids of the determining policies, sorted: the permits of an allow, the forbids of a denial (none: no permit matched),
   * and with `needs_approval` the permits that would allow it then.
   */
  readonly reasons: readonly string[]
  /** Evaluation errors and warnings, each `policy-id: message`; any one denies. */
  readonly errors: readonly string[]
  readonly policySet: string
  readonly cedarVersion: string
  /** All that the policy saw (`principal`, `actions`, `resource`, `context`, `entities`): canonical JSON values only. */
  readonly input: JsonObject
}

export type VolatileFact = 'recentGrants' | 'recentDenials'

export interface Decider {
  /** Volatile facts that a rule for this request reads, and that the caller must therefore look up. */
  factsRead(set: PolicySet, request: AccessRequest): ReadonlySet<VolatileFact>
  /** Decides. Throws `invalid_scope` or `invalid_target` for a request that does not fit the set's catalog. */
  decide(set: PolicySet, request: AccessRequest): Decision
}

/** The rules for one request, found once and shared by all requests that no rule's scope can tell apart. */
interface RequestSlices {
  readonly actions: readonly ActionSlice[]
  readonly reads: Reads
  readonly volatileFacts: ReadonlySet<VolatileFact>
  /** Names set, tool and slices; `undefined` where a rule reads what changes by itself, so that nothing is remembered. */
  readonly key: string | undefined
}

interface Slice {
  readonly serial: number
  readonly policies: readonly Policy[]
}

const policiesInMemoryMax = 20_000

/**
 * A decider with bounded memories: pre-parsed slices and verdicts. A remembered verdict is found under the set's hash,
 * the tool, the slices and every fact of the request that a rule of them reads.
 */
export function createDecider(limits: { readonly slicesMax: number; readonly verdictsMax: number }): Decider {
  const pool = createSlotPool(limits.slicesMax, policiesInMemoryMax)
  const slices = createLru<string, Slice>(limits.slicesMax)
  const requests = createLru<string, RequestSlices>(limits.slicesMax * 4)
  const verdicts = createLru<string, Judgement>(limits.verdictsMax)
  let serial = 0

  function sliceFor(set: PolicySet, policies: readonly Policy[]): Slice {
    const key = `${set.hash}|${policies.map(({ ordinal }) => ordinal).join(',')}`
    const known = slices.get(key)
    if (known !== undefined) return known
    const slice = { serial: serial++, policies }
    slices.set(key, slice)
    return slice
  }

  function slicesFor(set: PolicySet, request: AccessRequest): RequestSlices {
    const questions = askFor(set, request)
    let key = `${set.hash}|${request.tool}`
    for (const question of questions) key += `|${sliceKey(set.index, question)}`
    const known = requests.get(key)
    if (known !== undefined) return known

    const found = questions.map((question) => ({ question, slice: sliceFor(set, findSlice(set.index, question)) }))
    const reads = joinReads(found.flatMap(({ slice }) => slice.policies.map((policy) => policy.reads)))
    const changesByItself = (['now', 'recentGrants', 'recentDenials'] as const).some((fact) => reads.facts.has(fact))
    const made: RequestSlices = {
      actions: found.map(({ question, slice: { policies } }) => {
        return { action: question.action, policies, slot: () => pool.slotFor(policies) }
      }),
      reads,
      volatileFacts: new Set((['recentGrants', 'recentDenials'] as const).filter((fact) => reads.facts.has(fact))),
      key: changesByItself
        ? undefined
        : `${set.hash}|${request.tool}|${found.map(({ slice }) => slice.serial).join(',')}|`,
    }
    requests.set(key, made)
    return made
  }

  return {
    factsRead(set, request) {
      checkRequest(set.catalog.get(request.tool), request)
      return slicesFor(set, request).volatileFacts
    },

    decide(set, request) {
      const tool = checkRequest(set.catalog.get(request.tool), request)
      const found = slicesFor(set, request)
      const world = describeWorld(tool, request)
      const context = describeContext(request, found.reads.facts, request)
      const key = found.key === undefined ? undefined : found.key + factsKey(request, found.reads.facts)
      let judgement = key === undefined ? undefined : verdicts.get(key)
      if (judgement === undefined) {
        judgement = judge(tool, request, world, found.actions, found.reads)
        if (key !== undefined) verdicts.set(key, judgement)
      }
      const { hash: policySet, cedarVersion } = set
      return { ...judgement, policySet, cedarVersion, input: describeInput(world, context) }
    },
  }
}

function askFor(set: PolicySet, request: AccessRequest): SliceQuestion[] {
  const tool = set.catalog.get(request.tool)
  const targetId = request.target === undefined ? undefined : resourceOf(request.tool, request.target).id
  return request.actions.map((action) => ({
    workload: request.workload.name,
    team: request.workload.team,
    action,
    groups: tool === undefined ? [] : actionGroups(tool, action),
    tool: request.tool,
    targetId,
  }))
}

/** The values of the facts that are read, as text that no two different requests share: each behind its name and length. */
function factsKey(request: AccessRequest, facts: ReadonlySet<Fact>): string {
  let key = ''
  for (const fact of facts) {
    for (const value of valuesOf(request, fact)) key += value === undefined ? '-' : `${value.length}:${value}`
    key += `;${fact};`
  }
  return key
}

/** What a fact stands for in a request. Facts that change by themselves are never part of a key. */
function valuesOf(request: AccessRequest, fact: Fact): readonly (string | undefined)[] {
  const { workload } = request
  switch (fact) {
    case 'principal':
      return [workload.name, workload.team]
    case 'owner':
      return [workload.team]
    case 'stage':
      return [workload.stage]
    case 'environment':
      return [workload.environment]
    case 'tags':
      return workload.tags
    case 'action':
      return request.actions
    case 'resource':
      return [request.target]
    case 'ttl':
      return [String(request.ttlSeconds)]
    case 'approvals':
      return [String(request.approvals)]
    case 'depth':
      return [String(request.depth)]
    case 'boundKey':
      return [String(request.boundKey)]
    case 'task':
      return [request.task]
    case 'onBehalfOf':
      return [request.onBehalfOf]
    case 'proof':
      return [request.proof]
    case 'now':
    case 'recentGrants':
    case 'recentDenials':
      throw new Error(`${fact} changes by itself: nothing that reads it is remembered`)
    default:
      return unreachable(fact)
  }
}
