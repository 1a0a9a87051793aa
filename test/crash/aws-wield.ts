import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import type { Cloud } from './aws-cloud.ts'
import { tryLogin } from './aws-logins.ts'
import { report } from './book.ts'
import { stateOfLent, type Lent } from './lent.ts'
import type { Lending, Wielding } from './lending-steps.ts'

/** The tools whose credential is a secret that Stint replaces. */
export const rotatedTools = ['vault', 'kept'] as const

/** What is done beside lending and ending. */
export interface RotationCounts {
  /** Orders of an admin. */
  ordered: number
  /** By the log. */
  begun: number
  finished: number
  failed: number
  retired: number
  /** Of a run that a process had begun which was killed. */
  resumed: number
}

const livesSeconds = { cloud: { short: [2, 20], long: [120, 900] }, secret: { short: [2, 10], long: [20, 60] } } as const
/** Three policies hold some 500 grants, and those of the last fifteen rounds are denied. */
export const sessionsPerRound = 20

/** Agents that are lent sessions of a role, of which there are not too many, and secrets. */
export function wieldCloud(lending: () => Lending, cloud: Cloud, mayTakeSession: () => boolean): Wielding {
  return {
    wish() {
      const { random } = lending()
      const isCloud = random.chance(0.6) && mayTakeSession()
      const { short, long } = isCloud ? livesSeconds.cloud : livesSeconds.secret
      const [least, most] = random.chance(0.3) ? short : long
      const seconds = least + random.below(most - least)
      if (!isCloud) return { tool: random.pick(rotatedTools) ?? 'vault', actions: ['use'], ttl_seconds: seconds }
      return {
        tool: 'cloud',
        actions: random.chance(0.5) ? ['read'] : ['read', 'cloud:write'],
        target: `team-${random.below(5)}/2026`,
        // So that some live as long as their sessions.
        ttl_seconds: random.chance(0.1) ? 900 : seconds,
      }
    },
    use: (lent) => useLent(lending(), lent, cloud),
    expectEnded: (lent) => expectLentEnded(lending(), lent),
    // A session may die by itself as it is ended; a secret that was given back is replaced later.
    mayEndSo: (tool, outcome, effect) => effect === 'propagating' && outcome !== 'stuck' && outcome !== 'written_off' && (tool === 'cloud' || outcome !== 'lives_until'),
    mayWait: (tool) => tool !== 'cloud',
    renews: false,
  }
}

function isRotated({ asked }: Lent): boolean {
  return rotatedTools.some((tool) => tool === asked.body.tool)
}

/** The value of a secret, as it was lent. */
export function valueOf({ credential }: Lent): string {
  return String(credential['value'])
}

async function useLent({ book, nowMs }: Lending, lent: Lent, cloud: Cloud): Promise<void> {
  if (isRotated(lent)) {
    // Whether it must work depends on what else was revoked of its version.
    if ((await tryLogin(valueOf(lent))) === undefined) book.counts.logins++
    return
  }
  const session = cloud.sessions.get(lent.grant)
  const { AccessKeyId: id, SecretAccessKey: key, SessionToken: token, Expiration: dies } = lent.credential
  if (session === undefined || ![id, key, token].every((member) => typeof member === 'string' && member !== '')) report(book, `${lent.grant} has a credential of no session: ${Object.keys(lent.credential).join(', ')}`)
  else if (stateOfLent(book, lent, nowMs()) === 'live' && Date.parse(String(dies)) < lent.expiresAtMs - 5_000) report(book, `${lent.grant} is alive until ${lent.expiresAtMs}, and its session until ${String(dies)}`)
}

/** A value that was replaced logs in no more. What stands in the policies is looked at when nothing is written to them. */
async function expectLentEnded({ book }: Lending, lent: Lent): Promise<void> {
  if (!isRotated(lent)) return
  if ((await tryLogin(valueOf(lent))) === undefined) report(book, `the value of ${lent.grant} (entry ${lent.index}) was ended, and logs in`)
  else book.counts.refusedLogins++
}

/** Has the calls of the broker go wrong now and then, while somebody is to. */
export async function disturbCloud({ book, random }: Lending, cloud: Cloud): Promise<void> {
  if (book.cutting) {
    cloud.disturb(random)
    book.counts.cuts++
  }
  await setTimeout(60 + random.below(400))
}

/** An admin orders a new version, of a secret that may have leaked or not. */
export async function orderRotation({ client, book, random, adminCredential }: Lending, counts: RotationCounts): Promise<void> {
  await setTimeout(random.below(900))
  const json = { reason: randomUUID(), ...(random.chance(0.3) && { leaked: true }) }
  const name = random.pick(rotatedTools) ?? 'vault'
  const answer = await client.send({ method: 'POST', path: `/v1/rotations/${name}`, json, bearer: adminCredential })
  if (answer === undefined) book.counts.unanswered++
  if (answer === undefined || answer.status === 0) return
  book.counts.answered++
  if (answer.status >= 300) report(book, `an order to rotate ${name} was answered ${answer.status} ${answer.text}`)
  counts.ordered++
}
