import { ConnectorError, type Denials, type Denying, type DenyLists, type Written } from '../connectors/connector.ts'
import { outboundMsMax } from '../grant/lifetime.ts'
import type { Tool } from '../policy/catalog.ts'
import { findDenyList, findDueDenyLists, findToolOf } from '../storage/deny-lists.ts'
import type { Broker } from './broker.ts'
import { countNamed, judgeDenials } from './denials.ts'
import { busy, createDenyListLeases, type Writer } from './deny-list-leases.ts'
import type { Tools } from './tools.ts'

export interface DenyListsOptions extends Pick<Broker, 'database' | 'ledger' | 'knowledge' | 'random' | 'log' | 'meter'> {
  /** The tools, which are given these lists themselves. */
  tools(): Tools
}

export interface BrokerDenyLists extends DenyLists {
  /** Has a list written as it ought to be. Throws as `deny`. */
  write(list: string, signal: AbortSignal): Promise<void>
  /** Reads back every list that denies anybody, mends what somebody has changed, and cleans it of what is dead. */
  lookAfter(): Promise<void>
  /** Waits for the writes that are under way. */
  close(): Promise<void>
}

/** For so long what was read back a moment ago need not be read again. */
const freshMs = 10_000

/** What is written together: whoever comes while a write is under way is in the next one. */
interface Batch {
  readonly grants: Set<string>
  readonly rewrite?: Denying
  readonly done: PromiseWithResolvers<Outcome>
}

interface Outcome {
  readonly left: ReadonlySet<string>
  readonly written: Pick<Written, 'named' | 'problem'>
}

/** What one tool has written, and what it was told to. */
interface ByTool extends Written {
  readonly judged: Denials
  readonly label: { readonly tool: string }
}

interface Line {
  readonly next: Batch[]
  running?: Promise<void>
  /** What the list was read to deny, and when. */
  confirmed?: { readonly grants: ReadonlySet<string>; readonly atMs: number }
}

/**
 * Lists that are written whole from the rows, by one process at a time: of all calls of this process one write does for many,
 * and between processes a lease on the list's row decides. A process that dies over it holds the others up until the lease is
 * over; one that sleeps through it may put something old over something new, which the next look mends.
 */
export function createDenyLists({ database, ledger, knowledge, random, log, meter, tools }: DenyListsOptions): BrokerDenyLists {
  const lines = new Map<string, Line>()
  const leases = createDenyListLeases({ database, ledger, random })
  /** Which tools of the policy set in force may write which list. */
  let inForce: { readonly policySet: string; readonly writers: ReadonlyMap<string, readonly [Tool, ...Tool[]]> } | undefined

  /** In which order they are asked to write it: each by a root credential of its own. */
  async function findWriters(list: string, [grant]: readonly string[]): Promise<readonly [Writer, ...Writer[]]> {
    const current = await findInForce().catch((error: unknown) => void log.debug('the policy set in force was not read for a deny list', { error }))
    const inForceNow = current?.writers.get(list)
    if (current !== undefined && inForceNow !== undefined) {
      const [first, ...others] = inForceNow
      const { policySet } = current
      return [{ tool: first, policySet }, ...others.map((tool) => ({ tool, policySet }))]
    }
    // No tool of today has this list: it is written as it was when something was made there.
    const known = (grant === undefined ? undefined : await findToolOf(database.read, grant)) ?? (await findDenyList(database.read, list))
    const former = known && (await tools().find(known.policySet, known.tool))
    if (former !== undefined && known !== undefined) return [{ tool: former, policySet: known.policySet }]
    throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `No tool of the catalog denies sessions at ${list} any more: an admin puts one back whose kill switch does.` })
  }

  async function findInForce() {
    const { policySet } = await knowledge.refresh()
    if (policySet === undefined || inForce?.policySet === policySet.hash) return inForce
    const writers = new Map<string, readonly [Tool, ...Tool[]]>()
    for (const tool of policySet.catalog.values()) {
      const list = tools().isOutside(tool) ? tools().findDenying(tool)?.list : undefined
      const others = list === undefined ? undefined : writers.get(list)
      if (list !== undefined) writers.set(list, others === undefined ? [tool] : [...others, tool])
    }
    return (inForce = { policySet: policySet.hash, writers })
  }

  async function writeBatch(list: string, line: Line, { grants, rewrite }: Batch): Promise<Outcome> {
    const signal = AbortSignal.timeout(outboundMsMax)
    const writers = await findWriters(list, [...grants])
    const owner = await leases.take(list, writers[0], signal)
    try {
      const { judged, label, left, changed, named, problem } = await writeByAny(list, { grants, ...(rewrite && { rewrite }) }, rewrite === undefined ? writers : [writers[0]], signal)
      if (problem !== undefined) {
        meter.count('deny_failures', label)
        log.error('a part of what denies sessions cannot be used: what it denied is denied by the rest', { list, ...label, problem, left: left.length })
      }
      if (changed) log.debug('a list of what is denied was written', { list, ...label, named })
      const { cutOffBeforeMs } = judged
      const lives = judged.grants.length > 0 || cutOffBeforeMs !== undefined
      const end = { lives, ...(cutOffBeforeMs !== undefined && { cutOffBeforeMs }), ...(problem !== undefined && { problem }) }
      if (owner !== undefined && !(await leases.release(list, owner, end))) throw overtaken()
      const out = new Set(left)
      line.confirmed = { grants: new Set([...grants, ...judged.grants].filter((grant) => !out.has(grant))), atMs: performance.now() }
      return { left: out, written: { named, ...(problem !== undefined && { problem }) } }
    } catch (error) {
      const problem = error instanceof ConnectorError ? error.publicMessage : 'It was not written.'
      if (owner !== undefined) await leases.release(list, owner, { problem }).catch((failure: unknown) => log.warn('a list of what is denied was not given back: it is when its lease is over', { list, error: failure }))
      throw error
    }
  }

  /** By the first of these tools that can. */
  async function writeByAny(list: string, batch: Pick<Batch, 'grants' | 'rewrite'>, [writer, next, ...others]: readonly [Writer, ...Writer[]], signal: AbortSignal): Promise<ByTool> {
    const label = { tool: writer.tool.name }
    try {
      return await writeBy(list, batch, writer, signal)
    } catch (error) {
      meter.count('deny_failures', label)
      const isOwn = error instanceof ConnectorError && error.outcome === 'nothing_done' && error.retryAfterSeconds === undefined
      if (next === undefined || !isOwn || signal.aborted) throw error
      log.warn('a list of what is denied was not written by a tool: the next one that shares it is asked', { list, ...label, error })
      return writeByAny(list, batch, [next, ...others], signal)
    }
  }

  async function writeBy(list: string, { grants, rewrite }: Pick<Batch, 'grants' | 'rewrite'>, { tool }: Writer, signal: AbortSignal): Promise<ByTool> {
    const label = { tool: tool.name }
    let judged: Denials = { grants: [] }
    const written = await tools().call(tool, async ({ denying: own }, callSignal) => {
      const denying = rewrite ?? own
      if (denying === undefined) throw new Error(`the tool ${tool.name} denies nothing`)
      return denying.write(
        async (found) => {
          const { denials, missing } = await judgeDenials({ database, ledger }, list, grants, found)
          if (missing > 0) log.warn('a list of what is denied was changed by somebody else: it is written again', { list, ...label, missing })
          if (missing > 0) meter.count('deny_repairs', label)
          return (judged = denials)
        },
        { rewrite: rewrite !== undefined },
        AbortSignal.any([signal, callSignal]),
      )
    })
    return { ...written, judged, label }
  }

  /** In the next write of the list, whoever asks for it. */
  function join(list: string, grants: readonly string[], rewrite?: Denying): Promise<Outcome> {
    const line = lines.get(list) ?? { next: [] }
    lines.set(list, line)
    let batch = rewrite === undefined ? line.next.find((one) => one.rewrite === undefined) : undefined
    if (batch === undefined) {
      batch = { grants: new Set(), done: Promise.withResolvers(), ...(rewrite && { rewrite }) }
      batch.done.promise.catch(() => undefined)
      line.next.push(batch)
    }
    for (const grant of grants) batch.grants.add(grant)
    line.running ??= run(list, line)
    return batch.done.promise
  }

  async function run(list: string, line: Line): Promise<void> {
    for (let batch = line.next.shift(); batch !== undefined; batch = line.next.shift()) {
      await writeBatch(list, line, batch).then(batch.done.resolve, batch.done.reject)
    }
    delete line.running
  }

  /** The outcome, for as long as somebody waits for it; the write goes on. */
  async function inTime(outcome: Promise<Outcome>, signal: AbortSignal): Promise<Outcome> {
    const { promise, reject } = Promise.withResolvers<never>()
    const onAbort = () => reject(busy())
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      return await Promise.race([outcome, promise])
    } catch (error) {
      if (error instanceof ConnectorError) throw error
      throw new ConnectorError({ outcome: 'unknown', publicMessage: 'Whether the list of what is denied was written is not known: it is tried again.', cause: error })
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  return {
    async deny(list, grants, signal) {
      const confirmed = lines.get(list)?.confirmed
      if (confirmed !== undefined && performance.now() - confirmed.atMs < freshMs && grants.every((grant) => confirmed.grants.has(grant))) return []
      const { left } = await inTime(join(list, grants), signal)
      return grants.filter((grant) => left.has(grant))
    },
    async rewrite(denying, signal) {
      return (await inTime(join(denying.list, [], denying), signal)).written
    },
    async write(list, signal) {
      await inTime(join(list, []), signal)
    },
    async findCutOff(list) {
      const { cutOffBeforeMs = -Infinity } = (await findDenyList(database.read, list)) ?? {}
      return Number.isFinite(cutOffBeforeMs) ? cutOffBeforeMs : undefined
    },
    countNamed: (list) => countNamed({ database, ledger }, list),
    async lookAfter() {
      const due = await findDueDenyLists(database.read, ledger.nowMs())
      await Promise.all(due.map((list) => join(list, []).catch((error: unknown) => log.warn('a list of what is denied was not looked after: it is again in a minute', { list, error }))))
    },
    async close() {
      await Promise.all([...lines.values()].map((line) => line.running))
    },
  }
}

function overtaken(): ConnectorError {
  return new ConnectorError({ outcome: 'unknown', publicMessage: 'Another process has written the list of what is denied meanwhile: it is written again.' })
}
