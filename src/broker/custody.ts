import { setTimeout as pause } from 'node:timers/promises'
import { ConnectorError, type Custody, type Used } from '../connectors/connector.ts'
import { newId } from '../kernel/ids.ts'
import { secretNamePattern } from '../kernel/secret-source.ts'
import type { Secret } from '../kernel/secret.ts'
import type { Broker } from './broker.ts'
import { createPlaces } from './custody-places.ts'
import { createCustodyStore, type Use, type UseEnd } from './custody-store.ts'
import { needsReconnection } from './secrets.ts'

export interface CustodyOptions extends Pick<Broker, 'database' | 'ledger' | 'sealer' | 'random' | 'log'> {
  /** How long somebody waits for a secret that others are using. */
  readonly waitMsMax?: number
  /** How long somebody waits for the end of a use to be stored. */
  readonly storeMsMax?: number
  /** How long it is tried to store it. */
  readonly keepMsMax?: number
}

export interface BrokerCustody extends Custody {
  /** Marks as used up what was taken and not given back in its time: the process that had it is gone. */
  sweep(): Promise<void>
  /** Waits for the uses that are under way, and tries a last time to store the ends that could not be stored. */
  close(): Promise<void>
}

const pollMs = 100
const givingBackMax = 64

/**
 * Secrets that each use may replace. A commit takes the row, the use runs with no transaction open, and one commit stores the
 * replacement and gives the row back. So wherever a process dies, the row says `in_use` with a lease that runs out, and from
 * then on the secret counts as used up: whether it was sent nobody knows, and a refresh token that is sent twice can end all
 * that was ever issued with it (RFC 9700 §4.14.2).
 */
export function createCustody(options: CustodyOptions): BrokerCustody {
  const { ledger, random, log, waitMsMax = 10_000, storeMsMax = 3_000, keepMsMax = 3_600_000 } = options
  const store = createCustodyStore(options)
  const places = createPlaces()
  const underWay = new Set<Promise<unknown>>()
  const closing = new AbortController()

  /** Takes the row, or says why not. Waits while another process has it. */
  async function take(use: Use, signal: AbortSignal): Promise<Secret> {
    for (;;) {
      const taken = await store.take(use)
      if (taken === 'used_up') throw needsReconnection(use.tool, use.name)
      if (taken !== 'in_use') return taken
      do await waitMs(pollMs, signal)
      while (!signal.aborted && (await store.isInUse(use.name)))
      if (signal.aborted) throw busy(use.tool)
    }
  }

  /** For a take that failed: the answer to its commit may have been lost, and then the row is taken and nobody uses the secret. */
  async function giveBackUnused(use: Use): Promise<void> {
    // What cannot be looked up now can be given back later; when that is tried for many, the lease has to do.
    if (await store.isOwn(use).catch(() => underWay.size < givingBackMax)) void keepEnding(use, { state: 'ready' })
  }

  async function run<T>(use: Use, secret: Secret, body: (secret: Secret) => Promise<Used<T>>): Promise<T> {
    let used: Used<T>
    try {
      used = await body(secret)
    } catch (error) {
      if (error instanceof ConnectorError && error.outcome === 'nothing_done') {
        await inTime(keepEnding(use, { state: 'ready', secret }))
        throw error
      }
      const reason = error instanceof ConnectorError ? error.publicMessage : 'it failed in a way that was not foreseen'
      await inTime(keepEnding(use, { state: 'used_up', problem: `whether the refresh token was used up is not known: ${reason}` }))
      throw needsReconnection(use.tool, use.name, { outcome: 'unknown', cause: error })
    }
    if ('usedUp' in used) {
      await inTime(keepEnding(use, { state: 'used_up', problem: used.usedUp }))
      throw needsReconnection(use.tool, use.name)
    }
    const { result, replacement } = used
    const stored = await inTime(keepEnding(use, { state: 'ready', secret, replacement }))
    // Without a replacement nothing is lost if this process dies now.
    if (stored || replacement === undefined) return result
    const publicMessage = `The tool ${use.tool} has answered, and its new refresh token could not be stored yet: nothing is lent until it is.`
    throw new ConnectorError({ outcome: 'unknown', publicMessage })
  }

  /** Stores the end of a use, for as long as it takes: what is lost of it is a refresh token, and then a person has to reconnect the tool. */
  function keepEnding(use: Use, end: UseEnd): Promise<void> {
    return track(storeEnd(use, end))
  }

  async function storeEnd(use: Use, end: UseEnd): Promise<void> {
    const untilMs = performance.now() + keepMsMax
    for (let retryMs = 100; ; retryMs = Math.min(retryMs * 2, 15_000)) {
      const last = closing.signal.aborted || performance.now() >= untilMs
      try {
        return await store.end(use, end)
      } catch (error) {
        const fields = { secret: use.name, tool: use.tool, error }
        if (last) {
          log.error('what a use of a refresh token came to cannot be stored: its tool will need reconnection', fields)
          throw error
        }
        log.warn('what a use of a refresh token came to cannot be stored yet: it is tried again', fields)
      }
      await waitMs(retryMs, closing.signal)
    }
  }

  /** Whether an end was stored within the time that somebody waits for it. */
  async function inTime(ending: Promise<void>): Promise<boolean> {
    const done = new AbortController()
    try {
      return await Promise.race([ending.then(() => true), waitMs(storeMsMax, done.signal).then(() => false)])
    } catch {
      return false
    } finally {
      done.abort()
    }
  }

  function track<T>(work: Promise<T>): Promise<T> {
    const settled = work.then(
      () => undefined,
      () => undefined,
    )
    underWay.add(settled)
    void settled.then(() => underWay.delete(settled))
    return work
  }

  return {
    async lend(source, tool, body, signal) {
      const name = source.slice('sealed:'.length)
      if (!source.startsWith('sealed:') || !secretNamePattern.test(name)) {
        throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `The refresh token of the tool ${tool} must be kept as sealed:name.` })
      }
      const use: Use = { name, tool, owner: newId('use', ledger.nowMs(), random) }
      const waiting = AbortSignal.any([signal, closing.signal, AbortSignal.timeout(waitMsMax)])
      const leave = await places.enter(name, waiting)
      if (leave === undefined) throw busy(tool)
      try {
        const secret = await take(use, waiting).catch(async (error: unknown) => {
          if (error instanceof ConnectorError) throw error
          await giveBackUnused(use)
          throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `The refresh token of the tool ${tool} cannot be taken now: try again shortly.`, cause: error })
        })
        return await track(run(use, secret, body))
      } finally {
        leave()
      }
    },
    sweep: store.sweep,
    async close() {
      closing.abort()
      while (underWay.size > 0) await Promise.all(underWay)
    },
  }
}

/** Until the time is over or the signal comes. */
async function waitMs(ms: number, signal: AbortSignal): Promise<void> {
  await pause(ms, undefined, { signal }).catch(() => undefined)
}

function busy(tool: string): ConnectorError {
  const publicMessage = `The tool ${tool} is busy: its refresh token serves one request at a time, and others were before this one. Try again shortly.`
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, retryAfterSeconds: 5 })
}
