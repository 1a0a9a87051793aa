import { join } from 'node:path'
import type { NoteVerifier } from '../../src/audit/note.ts'
import type { Engine } from '../../src/storage/engine.ts'
import type { Server } from '../template.ts'
import { createBook, report, type Book } from './book.ts'
import type { Child } from './child.ts'
import { createKeptLog, type KeptLog } from './kept-log.ts'
import { createLoad, type Load, type LoadOptions } from './load.ts'
import type { Random } from './random.ts'
import { forgetExpired, introspectSome, replayAssertions, retryUnanswered, tryStanding } from './replays.ts'
import { createSite, openSite, untilAnswered, type Site } from './site.ts'
import { readSnapshot, untilSettled } from './snapshot.ts'
import { compareBook, compareCheckpoints, compareState, createVerified, readVerifier, settleBook } from './verify.ts'

/** One database from its making to its end, with its clients and what was recomputed of its log. */
export interface Lifetime {
  readonly site: Site
  readonly book: Book
  readonly load: Load
  readonly log: KeptLog
  readonly tried: Tried
  /** Waits until the broker answers, and follows its clock. */
  open(broker: Child, offMs?: number): Promise<void>
  /**
   * Compares all that is new, then tries replays: while the load rests, and a broker answers that was started at that time;
   * 0 for one that goes on.
   */
  verify(startedAtMs: number): Promise<void>
  /** The same once more for the log as a whole, from its first entry. */
  verifyWhole(): Promise<void>
}

/** How often what was tried. */
export interface Tried {
  entries: number
  replays: number
  retries: number
  introspections: number
}

export function createTried(): Tried {
  return { entries: 0, replays: 0, retries: 0, introspections: 0 }
}

export interface LifetimeOptions {
  readonly folder: string
  readonly engine: Engine
  readonly random: Random
  readonly server?: Server
  /** Ends the first migrations before their time, where a test is about that. */
  readonly beforeOpening?: (site: Site) => Promise<void>
  /** Starts the first broker; an ordinary one unless it says otherwise. */
  readonly serve?: (site: Site) => Child
  readonly load?: Partial<LoadOptions>
  /** Where to count on, and to report to. */
  readonly book?: Partial<Pick<Book, 'counts' | 'problems'>>
  readonly tried?: Tried
}

/** Makes a site, migrates it, starts a first broker and registers what the load works with. Returns with that broker running. */
export async function beginLifetime(options: LifetimeOptions): Promise<Lifetime & { readonly broker: Child }> {
  const { folder, engine, random, server, beforeOpening } = options
  const site = await createSite(join(folder, 'site'), engine, server)
  await beforeOpening?.(site)
  const credential = await openSite(site)
  const book = createBook(options.book)
  const load = createLoad({ port: site.port, book, random, credential, ...options.load })
  const verified = createVerified()
  const { tried = createTried() } = options
  let log = createKeptLog()
  let verifier: NoteVerifier | undefined

  async function compare(kept: KeptLog): Promise<void> {
    const from = kept.size
    const snapshot = await readSnapshot(site, from)
    kept.follow(snapshot, book)
    tried.entries += snapshot.entries.length
    compareState(snapshot, kept, from, book)
    compareBook(book, kept, verified)
    verifier ??= await readVerifier(load)
    compareCheckpoints(snapshot, kept, book, verified, verifier)
  }
  async function open(broker: Child, offMs = 0): Promise<void> {
    await untilAnswered(broker, site.port)
    const { head } = await readSnapshot(site, Number.MAX_SAFE_INTEGER)
    load.setClock(offMs, head.timeMs)
  }
  const broker = options.serve?.(site) ?? site.serve()
  try {
    await open(broker)
    await load.prepare()
  } catch (error) {
    await broker.stop('SIGKILL')
    throw error
  }
  return {
    site,
    book,
    load,
    tried,
    broker,
    get log() {
      return log
    },
    open,
    async verify(startedAtMs) {
      await untilSettled(site, startedAtMs)
      await compare(log)
      // A broker signs the tree before it answers anybody.
      const { index } = book.tokens.at(-1) ?? { index: -1 }
      if (startedAtMs > 0 && verified.storedNotes <= index) report(book, `the newest checkpoint is of ${verified.storedNotes} entries, and entry ${index} was answered before the start`)
      settleBook(load, log)
      forgetExpired(book.assertions, Math.min(load.nowMs(), Date.now()))
      await checkReadiness(load)
      tried.replays += await replayAssertions(load)
      tried.retries += await retryUnanswered(load, (mark) => log.marks.has(mark))
      tried.introspections += await introspectSome(load)
      await tryStanding(load)
    },
    async verifyWhole() {
      await compare(log)
      const afresh = createKeptLog()
      const snapshot = await readSnapshot(site, 0)
      afresh.follow(snapshot, book)
      compareState(snapshot, afresh, 0, book)
      compareCheckpoints(snapshot, afresh, book, { ...createVerified(), tokens: book.tokens.length }, verifier ?? (await readVerifier(load)))
      log = afresh
    },
  }
}

/** A broker that was started is ready, but for a clock that was set back. */
async function checkReadiness({ client, book, nowMs }: Load): Promise<void> {
  const answer = await client.send({ method: 'GET', path: '/readyz' })
  const { clock, ...parts } = (answer?.body['parts'] ?? {}) as Record<string, string>
  const isWell = Object.values(parts).length > 0 && Object.values(parts).every((state) => state === 'ready')
  const mayBeBehind = nowMs() > Date.now() + 1_000
  if (!isWell || (clock !== 'ready' && !mayBeBehind)) report(book, `the broker is not ready: ${String(answer?.text)}`)
}
