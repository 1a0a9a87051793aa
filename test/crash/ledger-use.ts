import { setTimeout } from 'node:timers/promises'
import { report } from './book.ts'
import type { LedgerTool } from './ledger-tool.ts'
import { logIn, nameTable, query, stateOfLent, type Lent, type LentBook } from './lent.ts'
import type { Lending, Wielding } from './lending-steps.ts'
import type { Random } from './random.ts'

const livesSeconds = { short: [2, 20], long: [300, 3_600] } as const

/** Agents that read and write a database with roles of their own. */
export function wieldRoles(lending: () => Lending): Wielding {
  return {
    wish() {
      const { random } = lending()
      const [least, most] = random.chance(0.3) ? livesSeconds.short : livesSeconds.long
      return { tool: 'ledger', actions: random.chance(0.5) ? ['read'] : ['read', 'ledger:write'], ttl_seconds: least + random.below(most - least) }
    },
    use: (lent) => useRole(lending(), lent),
    expectEnded: (lent) => expectRoleEnded(lending(), lent),
    mayEndSo: (_tool, outcome, effect) => outcome !== 'stuck' && outcome !== 'lives_until' && effect === 'immediate',
    mayWait: () => false,
    renews: true,
  }
}

/** Ends the broker's connections to the database now and then, while somebody is to. */
export async function cutRoles({ book, random }: Pick<Lending, 'book' | 'random'>, tool: LedgerTool): Promise<void> {
  if (book.cutting) book.counts.cuts += await tool.cutRoot(random.chance(0.7))
  await setTimeout(40 + random.below(300))
}

const sessionsMax = 24

/** Works with a credential that must work, must not, or may. */
async function useRole(lending: Lending, lent: Lent): Promise<void> {
  const { book, random, nowMs } = lending
  const before = stateOfLent(book, lent, nowMs())
  if (before === 'ended') return expectRoleEnded(lending, lent)
  // Nobody else uses it meanwhile.
  const held = lent.session
  lent.session = undefined
  const session = held ?? (await logIn(lent.credential))
  const problem = typeof session === 'string' ? session : await work(book, random, lent, session)
  if (problem !== undefined && before === 'live' && stateOfLent(book, lent, nowMs()) === 'live' && !problem.startsWith('53300')) {
    report(book, `the credential of ${lent.grant} (entry ${lent.index}), which is alive, does not work: ${problem}`)
  }
  if (typeof session === 'string') return
  if (held === undefined) book.counts.logins++
  const open = [...book.lent.values()].filter((one) => one.session !== undefined).length
  const isKept = (problem === undefined || held !== undefined) && open < sessionsMax && lent.session === undefined
  if (isKept) lent.session = session
  else await session.end().catch(() => undefined)
  // It was ended while this was at work.
  if (isKept && lent.ended === 'yes') await expectRoleEnded(lending, lent)
}

/** Reads, writes, and leaves things behind, as agents do. Returns what the server refused it with. */
async function work(book: LentBook, random: Random, lent: Lent, session: NonNullable<Lent['session']>): Promise<string | undefined> {
  if (!lent.asked.body.actions.includes('ledger:write') || random.chance(0.6)) {
    const rows = await query(session, 'select text from notes')
    return typeof rows === 'string' ? rows : undefined
  }
  if (random.chance(0.2)) {
    // Left in the middle of something, locks and all.
    const rows = await query(session, `begin; insert into notes values ('never committed'); lock table notes in row exclusive mode`)
    return typeof rows === 'string' ? rows : undefined
  }
  const created = await query(session, `rollback; create table ${nameTable(lent, random.below(1_000_000))} (n int)`)
  if (typeof created === 'string') return created
  book.tables++
  return undefined
}

/** What was ended opens nothing: neither a new connection nor the one that was open. */
async function expectRoleEnded({ book }: Pick<Lending, 'book'>, lent: Lent): Promise<void> {
  const { session } = lent
  lent.session = undefined
  if (session !== undefined && typeof (await query(session, 'select 1')) !== 'string') report(book, `a connection of ${lent.grant}, which was ended, goes on`)
  await session?.end().catch(() => undefined)
  const opened = await logIn(lent.credential)
  if (typeof opened === 'string') {
    book.counts.refusedLogins++
    return
  }
  report(book, `the credential of ${lent.grant} (entry ${lent.index}) was ended, and logs in`)
  await opened.end()
}
