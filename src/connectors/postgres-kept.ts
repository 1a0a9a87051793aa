import { setTimeout } from 'node:timers/promises'
import type pg from 'pg'
import { findPlace, orAborted, useClient, type Use } from './postgres-session.ts'
import { createPool } from './postgres-settings.ts'
import type { RootUrl } from './postgres-url.ts'

/** A single connection that stays open from its first use on, and is opened again where it is lost. Work queues for it. */
export interface Kept {
  /** Opens it, unless it is open. */
  open(): Promise<void>
  /** A signal ends the call, and not the connection, unless the server is silent for longer than its longest statement. */
  run<T>(signal: AbortSignal, use: Use<T>): Promise<T>
  close(): Promise<void>
}

/** Above the server's own limit for a statement. */
const patienceMs = 16_000
const reopenMsMax = 15_000

export function createKept(settings: pg.PoolConfig, root: RootUrl): Kept {
  const closed = new AbortController()
  const pool = createPool({ ...settings, application_name: 'stint kept', idleTimeoutMillis: 0 }, 1)
  const state = { there: false, reopening: false }
  pool.on('connect', () => {
    state.there = true
  })
  pool.on('remove', () => {
    state.there = false
    void reopen()
  })

  async function open(): Promise<void> {
    if (!state.there) (await pool.connect()).release()
  }

  /** At once, for agents may be after its place, and then again and again. */
  async function reopen(): Promise<void> {
    if (state.reopening) return
    state.reopening = true
    for (let delayMs = 100; !closed.signal.aborted && !state.there; delayMs = Math.min(2 * delayMs, reopenMsMax)) {
      const opened = await open().then(() => true, () => false)
      if (!opened) await setTimeout(delayMs, undefined, { ref: false, signal: closed.signal }).catch(() => undefined)
    }
    state.reopening = false
  }

  return {
    open,
    async run(signal, use) {
      const client = await findPlace(signal, root, () => pool.connect(), (late) => late.release())
      const work = useClient(client, root, signal, use, (broken) => client.release(broken), patienceMs)
      return orAborted(signal, root, work, () => undefined)
    },
    async close() {
      closed.abort()
      await pool.end()
    },
  }
}
