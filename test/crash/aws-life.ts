import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Engine } from '../../src/storage/engine.ts'
import type { Aws } from '../aws/emulator.ts'
import type { Server } from '../template.ts'
import { createCloud, type Cloud } from './aws-cloud.ts'
import { createLogins, type Logins } from './aws-logins.ts'
import { awsPolicies, rotatedEveryDays } from './aws-policies.ts'
import { lookAtDead, readKept, readRotations } from './aws-state.ts'
import { checkAnswered, checkCurrent, checkSettled, compareSessions, findOrdered, findUnsettled, findUnsettledRotations, tryFresh } from './aws-verify.ts'
import { disturbCloud, orderRotation, sessionsPerRound, wieldCloud, type RotationCounts } from './aws-wield.ts'
import { report } from './book.ts'
import { createKeptLog } from './kept-log.ts'
import { leaseOverMs, stopInEarnest, sweepAfter, type BrokerLife } from './lending-life.ts'
import { readStoredGrants } from './lending-state.ts'
import { compareGrants, createRules, followLog, settleLent } from './lending-verify.ts'
import { createLendingLoad, type LendingLoad } from './lending.ts'
import type { LentBook } from './lent.ts'
import type { Random } from './random.ts'
import { createSite, openSite, untilAnswered } from './site.ts'

/** One database with its clients, its account of AWS, and its secrets. */
export interface AwsLife extends BrokerLife {
  readonly cloud: Cloud
  readonly logins: Logins
  /** How many sessions there were when the round began. */
  sessionsBefore: number
}

interface LifeOptions {
  readonly engine: Engine
  readonly folder: string
  readonly server: Server
  readonly aws: Aws
  readonly random: Random
  readonly book: LentBook
  readonly rotations: RotationCounts
}

/** Makes an account, secrets and a site, starts a first broker, and puts in force and registers what the load works with. */
export async function beginAwsLife({ engine, folder, server, aws, random, book, rotations }: LifeOptions): Promise<AwsLife> {
  const logins = await createLogins(server, folder)
  let load: LendingLoad | undefined
  const cloud = await createCloud(aws, { folder, secret: logins.vault.first, nowMs: () => Date.now() + (load?.offMs ?? 0) })
  const site = await createSite(join(folder, 'site'), engine, server, ['sts', 'iam', 'secrets-manager'].map((service) => `@aws-sdk/client-${service}`))
  const adminCredential = await openSite(site)
  const mayTakeSession = (): boolean => cloud.sessions.size - life.sessionsBefore < sessionsPerRound
  load = createLendingLoad({
    port: site.port,
    book,
    random,
    adminCredential,
    policies: awsPolicies(cloud, logins),
    wield: (lending) => wieldCloud(lending, cloud, mayTakeSession),
    others: (lending) => [() => disturbCloud(lending, cloud), () => orderRotation(lending, rotations)],
  })
  const life: AwsLife = { site, cloud, logins, load, book, log: createKeptLog(), rules: createRules(book), sessionsBefore: 0, broker: site.serveWithHooks([]), next: site.load() }
  try {
    await untilAnswered(life.broker, site.port)
    await load.prepare()
    const answer = await load.client.send({ method: 'PUT', path: '/v1/secrets/kept', json: { value: logins.kept.first }, bearer: adminCredential })
    if (answer?.status !== 200) throw new Error(`the secret was not taken: ${String(answer?.status)} ${String(answer?.text)}`)
  } catch (error) {
    await Promise.all([life.broker.stop('SIGKILL'), life.next.stop('SIGKILL')])
    throw error
  }
  return life
}

/** Looks at what a dead broker has left, before anybody else has touched it. Returns how many rotations it was at. */
export async function checkAfterKill({ site, cloud, load, book }: AwsLife): Promise<number> {
  await cloud.settle()
  checkAnswered(load, await cloud.readDenials(), cloud.sessions, 'after the kill')
  const { kept, rotations } = await lookAtDead(site, async (dead) => ({ kept: await readKept(dead), rotations: await readRotations(dead) }))
  await checkCurrent(load, await cloud.readVersions(), kept, 'after the kill')
  if (rotations.length > 2) report(book, `there are ${rotations.length} rotations`)
  return rotations.filter(({ run }) => run !== undefined && run.step !== 'order').length
}

const settleMsMax = 60_000
/** Nothing is looked at that is about to change. */
const soonMs = 3_000
/** What was put off may be put off again, and a rotation has several steps. */
const waitsMax = 8

/** Lets the leases of the dead run out, sweeps, lets rotations come to their ends, and compares. Returns how many sessions are denied. */
export async function settleAndCompare(life: AwsLife): Promise<number> {
  const { site, cloud, load, book, log } = life
  const sweptMs = await settle(life)
  const [vault, kept, stored] = [await cloud.readVersions(), await readKept(site), await readStoredGrants(site)]
  await followLog(site, log, life.rules, book)
  const ordered = findOrdered(stored, log)
  for (const { grant, tool, state, cause, problem } of findUnsettled(stored, stagedVersions(vault, kept), ordered, sweptMs)) {
    report(book, `${grant} of ${tool} is ${state} (${cause ?? 'not to end'}${ordered.has(grant) ? ', by an operator' : ''}) after the sweep: ${problem ?? 'no problem is known'}`)
  }
  for (const { name, run, problem } of findUnsettledRotations(await readRotations(site), sweptMs)) report(book, `the rotation of ${name} is at ${run?.step ?? 'no step'} after the sweep: ${problem ?? 'no problem is known'}`)
  const denials = await cloud.readDenials()
  checkAnswered(load, denials, cloud.sessions, 'after the sweep')
  const denied = compareSessions(load, { stored, denials, sessions: cloud.sessions, sweptMs }, log)
  compareGrants(load, await readStoredGrants(site), log)
  await checkCurrent(load, vault, kept, 'after the sweep')
  await checkSettled(load, stored, vault, kept)
  settleLent(book, stored, load.nowMs())
  if (book.problems.length === 0) await tryFresh(load, vault, kept)
  return denied
}

/** Sweeps until nothing is under way; what was put off is waited for by the clock alone. Returns the time by which all that was due has been looked at. */
async function settle(life: AwsLife): Promise<number> {
  const { site, cloud, load, book, log, rules } = life
  const giveUpMs = performance.now() + settleMsMax
  let sweptMs = await sweepAfter(life, leaseOverMs)
  for (let waited = 0; performance.now() < giveUpMs; ) {
    const rotations = findUnsettledRotations(await readRotations(site), load.nowMs() + soonMs)
    const [vault, kept, stored] = [await cloud.readVersions(), await readKept(site), await readStoredGrants(site)]
    await followLog(site, log, rules, book)
    const unsettled = [...rotations, ...findUnsettled(stored, stagedVersions(vault, kept), findOrdered(stored, log), sweptMs)]
    if (unsettled.length === 0) break
    const isUnderWay = unsettled.some(({ dueAtMs = 0, leaseUntilMs = 0 }) => Math.min(dueAtMs, leaseUntilMs) > load.nowMs() || dueAtMs <= load.nowMs())
    if (isUnderWay) {
      await setTimeout(20)
      // So that jobs are due.
      sweptMs = await sweepAfter(life, 1_000)
      continue
    }
    if (waited++ === waitsMax) break
    book.counts.sweepsMore++
    sweptMs = await sweepAfter(life, Math.max(...unsettled.map(({ dueAtMs = 0 }) => dueAtMs)) - load.nowMs() + 1_000)
  }
  return sweptMs
}

function stagedVersions(vault: Awaited<ReturnType<Cloud['readVersions']>>, kept: Awaited<ReturnType<typeof readKept>>): ReadonlyMap<string, readonly string[]> {
  return new Map([
    ['vault', [...vault.current, ...vault.pending, ...vault.previous]],
    ['kept', kept.map(({ version }) => version)],
  ])
}

/** Lets everything expire and every secret be replaced: nothing is left then. Looks at the log as a whole, and stops the broker as one does in earnest. */
export async function endAwsLife(life: AwsLife): Promise<void> {
  const { site, cloud, book } = life
  await sweepAfter(life, rotatedEveryDays * 86_400_000)
  await settleAndCompare(life)
  // The last versions before them are retired, and what was tried last expires.
  await sweepAfter(life, 3_600_000)
  await settleAndCompare(life)
  const { identities } = await cloud.readDenials()
  const left = [...identities].filter((identity) => identity.startsWith('grant_'))
  if (left.length > 0) report(book, `${left.length} sessions are denied, though all are dead: ${left.slice(0, 3).join(', ')}`)
  for (const { grant, tool, state } of (await readStoredGrants(site)).values()) if (tool === 'cloud' && state === 'ending') report(book, `${grant} is ${state}, though its session is dead`)
  await followLog(site, life.log, life.rules, book)
  await stopInEarnest(life)
}
