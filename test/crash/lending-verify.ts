import { createLife } from '../../src/audit/verify-life.ts'
import { createPieceCheck } from '../../src/audit/verify-piece.ts'
import { isOver } from '../../src/grant/grant.ts'
import { report } from './book.ts'
import type { Body, KeptLog } from './kept-log.ts'
import type { LedgerRole, LedgerTool } from './ledger-tool.ts'
import { drop, query, stateOfLent, type LentBook } from './lent.ts'
import { findUnfinished, hasExpiredSince, isLive, type StoredGrant } from './lending-state.ts'
import { borrow, type Lending } from './lending-steps.ts'
import type { Site } from './site.ts'
import { readSnapshot } from './snapshot.ts'
import { compareState } from './verify.ts'
import { siteTrustDomain } from './site.ts'

/** What an answer said was ended has no role, whether or not anybody has swept since. */
export function checkEnded({ book }: Pick<Lending, 'book'>, roles: ReadonlyMap<string, LedgerRole>, when: string): void {
  for (const lent of book.lent.values()) {
    const role = roles.get(lent.grant)
    if (lent.ended === 'yes' && role !== undefined) report(book, `${when}: the role of ${lent.grant} (entry ${lent.index}) is there, of which an answer said that it was ended`)
  }
}

/** The rules of the offline verifier, told of every entry in order. */
export function createRules(book: Pick<LentBook, 'problems'>): { follow(bodies: readonly string[]): void } {
  const refuse = ({ index, what }: { readonly index?: number; readonly what: string }): void => report(book, `the verifier: entry ${String(index)} ${what}`)
  const checkPiece = createPieceCheck()
  const life = createLife(`${siteTrustDomain}/log`, refuse)
  return {
    follow(bodies) {
      const piece = checkPiece(Buffer.from(`${bodies.join('\n')}\n`), 'jsonl', [])
      piece.problems.forEach(refuse)
      life.addEntries(piece, 0, Infinity)
    },
  }
}

/** Takes in what is new in the log; returns how many entries. */
export async function followLog(site: Site, log: KeptLog, rules: ReturnType<typeof createRules>, book: Pick<LentBook, 'problems'>): Promise<number> {
  const from = log.size
  const snapshot = await readSnapshot(site, from)
  log.follow(snapshot, book)
  compareState(snapshot, log, from, book)
  if (snapshot.entries.length > 0) rules.follow(snapshot.entries.map(({ body }) => body))
  return snapshot.entries.length
}

/** Roles that were there at a moment and should not have been: of grants that were never given out, or were over by then. */
export function findOrphans(roles: ReadonlyMap<string, LedgerRole>, stored: ReadonlyMap<string, StoredGrant>, log: KeptLog, atMs: number): string[] {
  return [...roles.keys()].filter((grant) => {
    const row = stored.get(grant)
    return row === undefined || !log.activated.has(grant) || row.expiresAtMs <= atMs || findEnd(row, log) !== undefined
  })
}

/** The entry that ended it before its time. */
function findEnd(grant: StoredGrant, log: KeptLog): number | undefined {
  return log.revoked.get(grant.grant) ?? findSweeps(grant, log)[0]
}

/** The entries by which many were ended, and it among them. */
export function findSweeps({ tool, issuedIndex, workload, task }: StoredGrant, log: KeptLog): number[] {
  const covers = ([index, event]: readonly [number, Body]): boolean => {
    const of = (member: string, value: string): boolean => event[member] === undefined || event[member] === value
    return index > issuedIndex && of('workload', workload) && of('task', task) && of('tool', tool)
  }
  return [...log.sweeps].filter(covers).map(([index]) => index)
}

/** What there is after a sweep: of the tool between two looks at the database, for what is ended meanwhile. */
export interface Swept {
  readonly before: ReadonlyMap<string, StoredGrant>
  readonly roles: ReadonlyMap<string, LedgerRole>
  readonly after: ReadonlyMap<string, StoredGrant>
  /** By the broker's clock: what was to end by then has. */
  readonly sweptMs: number
}

/** The same, and the database with the tool. */
export function compareLending({ book, nowMs }: Lending, { before, roles, after, sweptMs }: Swept, log: KeptLog): void {
  for (const { grant, state, problem } of findUnfinished(after, sweptMs)) report(book, `${grant} is ${state} after the sweep: ${problem ?? 'no problem is known'}`)
  for (const [grant, { sessions }] of roles) {
    const row = before.get(grant)
    if (row === undefined || (!isLive(row, sweptMs) && !hasExpiredSince(row, sweptMs))) report(book, `the role of ${grant} is there with ${sessions} sessions, and the grant is ${row?.state ?? 'not in the database'}`)
  }
  for (const row of after.values()) {
    const { grant } = row
    if (isLive(row, nowMs()) && roles.get(grant)?.canLogIn !== true) report(book, `${grant} is alive, and its role is ${roles.has(grant) ? 'locked' : 'not there'}`)
  }
  compareGrants({ book, nowMs }, after, log)
}

/** Compares what clients know with the log, and the log with the database: nothing new is asked for meanwhile. */
export function compareGrants({ book, nowMs }: Pick<Lending, 'book' | 'nowMs'>, after: ReadonlyMap<string, StoredGrant>, log: KeptLog): void {
  const keys = new Map<string, string>()
  for (const row of after.values()) {
    const { grant, task } = row
    if (!isLive(row, nowMs())) continue
    if (!log.activated.has(grant)) report(book, `${grant} is alive, and no entry tells of it`)
    const end = findEnd(row, log)
    if (end !== undefined) report(book, `${grant} is alive, and entry ${end} has ended it`)
    if (!task.startsWith('once-')) continue
    const other = keys.get(task)
    if (other !== undefined) report(book, `${grant} and ${other} are both alive, and were asked for under one idempotency key`)
    keys.set(task, grant)
  }
  compareBook(book, after, log, nowMs())
}

function compareBook(book: LentBook, stored: ReadonlyMap<string, StoredGrant>, log: KeptLog, nowMs: number): void {
  for (const lent of book.lent.values()) {
    const { grant, index, workload, task } = lent
    const wrong = (what: string): void => report(book, `a client has the credential of ${grant} (entry ${index}), ${what}`)
    const [row, intent, given] = [stored.get(grant), log.issued.get(grant), log.activated.get(grant)]
    if (row === undefined || intent === undefined || given === undefined) {
      wrong('which is not in the log')
      continue
    }
    const isSame = given['index'] === index && Number(intent['index']) < index && [intent, given].every((event) => event['workload'] === workload && event['task'] === task)
    if (!isSame) wrong(`and entries ${String(intent['index'])} and ${String(given['index'])} record another one`)
    const live = isLive(row, nowMs)
    if (lent.ended === 'yes' && live) wrong('of which an answer said that it was ended, and it is alive')
    if (stateOfLent(book, lent, nowMs) === 'live' && !live) wrong(`which nobody has ended, and it is ${row.state}`)
    if (lent.renewing === 0 && row.expiresAtMs < lent.expiresAtMs) wrong(`and the renewal is not in force until ${new Date(lent.expiresAtMs).toISOString()}`)
  }
}

/** What the log has settled that no answer did: the book knows it from now on. */
export function settleLent(book: LentBook, stored: ReadonlyMap<string, StoredGrant>, nowMs: number): void {
  book.orders.clear()
  for (const asked of book.toRepeat) asked.unanswered = false
  for (const lent of book.lent.values()) {
    const row = stored.get(lent.grant)
    if (row === undefined) continue
    lent.asked.unanswered = false
    lent.ended = isLive(row, nowMs) ? 'no' : isOver(row.state) ? 'yes' : 'maybe'
    lent.expiresAtMs = row.expiresAtMs
  }
}

const loginsTried = 3
const repeatsTried = 2
const endedKept = 60

/** Tries credentials: some that live, all connections that are open, requests again that were not answered, and the newest that were ended. Forgets older ones. */
export async function tryLent(lending: Lending): Promise<void> {
  const { book, random, nowMs } = lending
  const all = [...book.lent.values()].sort((a, b) => a.index - b.index)
  const live = all.filter((lent) => stateOfLent(book, lent, nowMs()) === 'live')
  for (const lent of live) {
    const { session } = lent
    const answer = session && (await query(session, 'select 1'))
    // The agent may have left it in the middle of something that failed.
    if (typeof answer === 'string' && !answer.startsWith('25P02') && stateOfLent(book, lent, nowMs()) === 'live') report(book, `a connection of ${lent.grant}, which is alive, was ended: ${answer}`)
  }
  const idle = live.filter((lent) => lent.session === undefined)
  for (let i = 0; i < loginsTried; i++) {
    const lent = random.pick(idle)
    if (lent !== undefined) await lending.use(lent)
  }
  for (const asked of [...book.toRepeat].slice(0, repeatsTried)) {
    book.toRepeat.delete(asked)
    book.counts.repeated++
    await borrow(lending, asked, true)
  }
  const ended = all.filter((lent) => lent.ended === 'yes')
  for (const lent of ended.slice(-2)) await lending.expectEnded(lent)
  for (const lent of ended) await drop(lent)
  for (const { grant } of ended.slice(0, -endedKept)) book.lent.delete(grant)
}

/** Once everything is over: nothing is left of it in the tool, and all that agents have made is there. */
export async function checkEmpty(tool: LedgerTool, book: LentBook, tracesBefore: number): Promise<void> {
  const roles = await tool.readRoles()
  for (const [grant, { name }] of roles) report(book, `the role ${name} of ${grant} is left, though all is over`)
  const traces = await tool.countTraces()
  if (traces !== tracesBefore) report(book, `the catalogs of the server have ${traces} rows of roles that are lent, and had ${tracesBefore}`)
  const tables = await tool.countTables()
  if (tables < book.tables) report(book, `agents have made ${book.tables} tables, and ${tables} are there`)
}
