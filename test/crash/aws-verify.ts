import { isOver } from '../../src/grant/grant.ts'
import type { StoredRotation } from '../../src/storage/rotations.ts'
import type { Cloud, Denials, StagedVersions } from './aws-cloud.ts'
import { tryLogin } from './aws-logins.ts'
import type { KeptVersion } from './aws-state.ts'
import { rotatedTools, valueOf } from './aws-wield.ts'
import { hasOperator, report } from './book.ts'
import type { KeptLog } from './kept-log.ts'
import { hasExpiredSince, isLive, type StoredGrant } from './lending-state.ts'
import { findSweeps } from './lending-verify.ts'
import { borrow, makeAsked, type Lending } from './lending-steps.ts'

type Look = Pick<Lending, 'book' | 'nowMs'>

/** The policies hold Stint's own statements alone; and what an answer said was ended is denied from that answer on. */
export function checkAnswered({ book, nowMs }: Look, { identities, problems }: Denials, sessions: Cloud['sessions'], when: string): void {
  for (const problem of problems) report(book, `${when}: the policy ${problem}`)
  for (const { grant, index, ended, asked } of book.lent.values()) {
    const session = sessions.get(grant)
    if (asked.body.tool !== 'cloud' || ended !== 'yes' || session === undefined || session.diesAtMs <= nowMs() + soonMs) continue
    if (!identities.has(grant)) report(book, `${when}: the session of ${grant} (entry ${index}) is not denied, of which an answer said that it was ended`)
  }
}

/** A session that dies so soon is let die. */
const soonMs = 6_000

export interface SweptCloud {
  readonly stored: ReadonlyMap<string, StoredGrant>
  readonly denials: Denials
  readonly sessions: Cloud['sessions']
  /** By the broker's clock: what was to end by then has. */
  readonly sweptMs: number
}

/** Every session that was ever asked for has an intent, and is alive in the database, denied in the role, or dead; no other one is denied. Returns how many are denied. */
export function compareSessions({ book, nowMs }: Look, { stored, denials: { identities }, sessions, sweptMs }: SweptCloud, log: KeptLog): number {
  let denied = 0
  for (const [grant, { diesAtMs, count }] of sessions) {
    const [row, intent] = [stored.get(grant), log.issued.get(grant)]
    if (row === undefined || intent?.['type'] !== 'grant.minting') report(book, `${count} sessions were opened for ${grant}, and no entry tells of the intent`)
    const isDenied = identities.has(grant)
    if (isDenied) denied++
    const live = row !== undefined && (isLive(row, sweptMs) || hasExpiredSince(row, sweptMs))
    if (live && isDenied && isLive(row, nowMs())) report(book, `${grant} is alive, and its session is denied`)
    const dies = diesAtMs <= nowMs() + soonMs || (row !== undefined && isLetDie(row))
    if (!live && !dies && !isDenied) report(book, `the session of ${grant} lives until ${new Date(diesAtMs).toISOString()} and is not denied, and the grant is ${row?.state ?? 'not in the database'}`)
  }
  return denied
}

/** Whether a grant is over but for its session, which ends as soon by itself as it would be ended. */
function isLetDie({ tool, state, diesAtMs = Infinity, expiresAtMs }: StoredGrant): boolean {
  return tool === 'cloud' && state === 'ending' && diesAtMs <= expiresAtMs + soonMs
}

/** Whether a grant is to wait for its secret to be replaced, which nobody has ordered for it: it was given back, or has expired. */
function waits({ tool, state, reference = '' }: StoredGrant, versions: ReadonlyMap<string, readonly string[]>): boolean {
  return state === 'ending' && (versions.get(tool) ?? []).includes(reference.slice(reference.lastIndexOf('/') + 1))
}

/** What is neither alive nor over, nor waits as it may. `ordered`: grants of which an operator has ordered the end, which is not to wait. */
export function findUnsettled(stored: ReadonlyMap<string, StoredGrant>, versions: ReadonlyMap<string, readonly string[]>, ordered: ReadonlySet<string>, atMs: number): StoredGrant[] {
  return [...stored.values()].filter((one) => {
    const rests = isLive(one, atMs) || isOver(one.state) || hasExpiredSince(one, atMs) || isLetDie(one)
    return !rests && (ordered.has(one.grant) || !waits(one, versions))
  })
}

/** Grants of which an operator has ordered the end, before anybody else had ended them. */
export function findOrdered(stored: ReadonlyMap<string, StoredGrant>, log: KeptLog): ReadonlySet<string> {
  const ordered = [...stored.values()].filter((row) => {
    const own = log.revoked.get(row.grant) ?? Infinity
    const [first = Infinity] = findSweeps(row, log)
    return own < first ? log.recalled.has(row.grant) : hasOperator(log.sweeps.get(first) ?? {})
  })
  return new Set(ordered.map(({ grant }) => grant))
}

/** Runs that are under way, and versions whose time is over and that open something yet. */
export function findUnsettledRotations(rotations: readonly StoredRotation[], atMs: number): StoredRotation[] {
  return rotations.filter(({ run, retireAtMs = Infinity, nextAtMs = Infinity }) => run !== undefined || retireAtMs <= atMs || nextAtMs <= atMs)
}

/** There is one current version of each secret, and it logs in. */
export async function checkCurrent({ book }: Pick<Lending, 'book'>, vault: StagedVersions, kept: readonly KeptVersion[], when: string): Promise<void> {
  const [current, ...others] = kept.filter(({ stage }) => stage === 'current')
  const pending = kept.filter(({ stage }) => stage === 'pending')
  if (current === undefined || others.length > 0 || pending.length > 1) report(book, `${when}: kept has the versions ${kept.map(({ version, stage }) => `${version} ${stage}`).join(', ')}`)
  if (vault.current.length !== 1 || vault.pending.length > 1) report(book, `${when}: vault has ${vault.current.length} versions that are current, and ${vault.pending.length} that are pending`)
  const values = [['kept', current?.value ?? ''], ['vault', vault.value]] as const
  await Promise.all(
    values.map(async ([name, value]) => {
      const refused = await tryLogin(value)
      if (refused !== undefined) report(book, `${when}: the current value of ${name} does not log in: ${refused}`)
    }),
  )
}

/** After everything is settled nothing is half-way, and a value that was lent and ended logs in no more. */
export async function checkSettled({ book }: Pick<Lending, 'book'>, stored: ReadonlyMap<string, StoredGrant>, vault: StagedVersions, kept: readonly KeptVersion[]): Promise<void> {
  if (vault.pending.length > 0 || kept.some(({ stage }) => stage === 'pending')) report(book, 'a version is pending, and no rotation is under way')
  const ended = [...book.lent.values()].filter(({ grant, asked }) => rotatedTools.some((tool) => tool === asked.body.tool) && isOver(stored.get(grant)?.state ?? 'active'))
  // Each value once: a version is lent many times.
  const values = new Map(ended.map((lent) => [valueOf(lent), lent]))
  await Promise.all(
    [...values].slice(-loginsTried).map(async ([value, { grant, asked }]) => {
      if ((await tryLogin(value)) === undefined) report(book, `${grant} of ${asked.body.tool} is ${String(stored.get(grant)?.state)}, and what it was lent logs in`)
      else book.counts.refusedLogins++
    }),
  )
}

const loginsTried = 4

/** A fresh grant of each secret is of the version in force, and logs in. */
export async function tryFresh(lending: Lending, vault: StagedVersions, kept: readonly KeptVersion[]): Promise<void> {
  const { book, random } = lending
  const agent = random.pick(lending.agents)
  if (agent === undefined) return
  for (const tool of rotatedTools) {
    const asked = makeAsked({ random, wish: () => ({ tool, actions: ['use'], ttl_seconds: 60 }) }, agent, true)
    await borrow(lending, asked, true)
    const lent = [...book.lent.values()].find((one) => one.asked === asked)
    const version = tool === 'vault' ? vault.current[0] : kept.find(({ stage }) => stage === 'current')?.version
    if (lent === undefined) continue
    if (String(lent.credential['version']) !== version) report(book, `a fresh grant of ${tool} is of version ${String(lent.credential['version'])}, and ${String(version)} is current`)
    const refused = await tryLogin(valueOf(lent))
    if (refused !== undefined) report(book, `what a fresh grant of ${tool} was lent does not log in: ${refused}`)
  }
}
