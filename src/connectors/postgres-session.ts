import { setTimeout } from 'node:timers/promises'
import type pg from 'pg'
import { ConnectorError } from './connector.ts'
import { describeFailure, isConflict, isLost, sqlState } from './postgres-failure.ts'
import type { RootUrl } from './postgres-url.ts'

/** A connection as the root role, for as long as one thing is done with it. */
export interface Session {
  readonly root: RootUrl
  /** Runs one statement with values, or several with none; the rows of the last. */
  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<readonly Row[]>
}

/** What is done in a session; what it throws becomes a `ConnectorError`. */
export type Use<T> = (session: Session) => Promise<T>

/** The connection, unless the signal ends it; one that comes later is given back. Nothing was asked yet: `nothing_done`. */
export async function orAborted<T>(signal: AbortSignal, root: RootUrl, connecting: Promise<T>, giveBack: (late: T) => void): Promise<T> {
  const aborted = Promise.withResolvers<never>()
  const onAbort = (): void => aborted.reject(new Error('aborted'))
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([aborted.promise, connecting])
  } catch (error) {
    connecting.then(giveBack, () => undefined)
    throw describeFailure(error, root, 'nothing_done')
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

const placeMsMax = 1_500

/**
 * The same, asked for again for some moments where the server has no place. Agents who take every place that comes free also
 * pass through the reserved ones, for as long as it takes to prove who they are: `reserved_connections` keeps them only after that.
 */
export async function findPlace<T>(signal: AbortSignal, root: RootUrl, connect: () => Promise<T>, giveBack: (late: T) => void): Promise<T> {
  const untilMs = performance.now() + placeMsMax
  for (;;) {
    try {
      return await orAborted(signal, root, connect(), giveBack)
    } catch (error) {
      // 53300: too many connections.
      if (sqlState(error) !== '53300' || performance.now() > untilMs || signal.aborted) throw error
      await setTimeout(20 + Math.random() * 40)
    }
  }
}

/**
 * Where the signal ends it, the connection is cut at once; or, with patience, is given that many milliseconds to end the
 * statement that it is at, after which nothing more is begun, so that the connection stays.
 */
export async function useClient<T>(client: pg.Client, root: RootUrl, signal: AbortSignal, use: Use<T>, release: (broken: boolean) => void, patienceMs = 0): Promise<T> {
  let patience: NodeJS.Timeout | undefined
  const cut = (): void => void client.connection.stream.destroy(new Error('aborted'))
  const onAbort = (): void => {
    if (patienceMs === 0) cut()
    else patience = globalThis.setTimeout(cut, patienceMs).unref()
  }
  signal.addEventListener('abort', onAbort, { once: true })
  let broken = false
  try {
    return await use({
      root,
      async query<Row extends object>(text: string, values?: readonly unknown[]) {
        if (patienceMs > 0 && signal.aborted && !/^(?:commit|rollback)$/.test(text)) {
          throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `The call to PostgreSQL at ${root.host}:${root.port} was given up.` })
        }
        const answer: unknown = await client.query(text, values === undefined ? undefined : [...values])
        // Several statements in one text have an answer each.
        const last = Array.isArray(answer) ? (answer.at(-1) as pg.QueryResult<Row>) : (answer as pg.QueryResult<Row>)
        return last.rows
      },
    })
  } catch (error) {
    broken = isLost(error)
    throw describeFailure(error, root, broken ? 'unknown' : 'nothing_done')
  } finally {
    signal.removeEventListener('abort', onAbort)
    clearTimeout(patience)
    release(broken || (signal.aborted && patienceMs === 0))
  }
}

/**
 * Runs `body` as one transaction. Until COMMIT is sent nothing can come of it, however it ends: `nothing_done`. If the
 * answer to COMMIT is lost, the outcome is `unknown` (invariant 2).
 */
export async function runInTransaction<T>(session: Session, body: () => Promise<T>): Promise<T> {
  const { root } = session
  let result: T
  try {
    await session.query('begin isolation level read committed read write')
    result = await body()
  } catch (error) {
    await session.query('rollback').catch(() => undefined)
    throw describeFailure(error, root, 'nothing_done')
  }
  await session.query('commit').catch((error: unknown) => {
    throw describeFailure(error, root, isLost(error) ? 'unknown' : 'nothing_done')
  })
  return result
}

const conflictTriesMax = 8

/** Does it again where it met somebody else who changed the same rows of a catalog, up to 8 times. */
export async function retryConflicts<T>(signal: AbortSignal, attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt()
    } catch (error) {
      if (!isConflict(error) || tries === conflictTriesMax || signal.aborted) throw error
      await setTimeout(Math.random() * 20 * tries)
    }
  }
}
