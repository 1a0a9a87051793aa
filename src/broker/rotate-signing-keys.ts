import type { AuditEvent } from '../audit/event.ts'
import {
  compareNewest,
  findDueSteps,
  findSigning,
  hasEnded,
  keysMaxAgeSeconds,
  keyStatus,
  keyStatuses,
  publishAheadMs,
  type KeyStatus,
} from '../crypto/key-life.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { countLiveGrants, findLastExpiry } from '../storage/grants.ts'
import { endSigningKey, eraseSigningKey, insertSigningKey, listSigningKeys, type SigningKeyRow } from '../storage/keys.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { describeNewKey, makeSigningKey, type MadeKey } from './keys.ts'

type Rotating = Pick<Broker, 'ledger' | 'database' | 'sealer' | 'rotateKeysAfterMs'>

const schedule: Caller = { actor: { kind: 'stint', id: 'schedule' } }

/**
 * Takes every step of the rotation that is due: publishes a successor, sets the end of the keys that it has taken over
 * from, erases the private halves of those that have ended. Decided inside the transaction: of several processes one does
 * it, and one that dies leaves the next step to whoever comes next (invariant 11).
 */
export async function advanceSigningKeys(broker: Rotating): Promise<void> {
  const { database, ledger, sealer, rotateKeysAfterMs } = broker
  const look = async (db: typeof database.read, nowMs: number) => findDueSteps((await listSigningKeys(db)).map(toTimes), nowMs, rotateKeysAfterMs)
  const seen = await look(database.read, ledger.nowMs())
  if (!seen.successor && seen.replaced.length === 0 && seen.ended.length === 0) return
  // A commit awaits nothing but its queries: the key is made beforehand.
  const made = seen.successor ? await makeSigningKey(sealer) : undefined
  await commit(broker, {
    async apply(tx, { timeMs }) {
      const { successor, replaced, signing, ended } = await look(tx, timeMs)
      const events: AuditEvent[] = []
      for (const { kid } of ended) {
        await eraseSigningKey(tx, kid)
        events.push({ type: 'key.erased', ...causedBy(schedule), use: 'token', kid })
      }
      if (signing !== undefined && replaced.length > 0) {
        // From this epoch on no process signs with them: what they have signed has expired when the last grant has.
        const verifyUntilMs = Math.max(timeMs, (await findLastExpiry(tx)) ?? timeMs)
        for (const { kid } of replaced) events.push(await replaceKey({ tx, caller: schedule }, kid, signing.kid, verifyUntilMs))
      }
      if (successor && made !== undefined) {
        const signFromMs = signing === undefined ? timeMs : timeMs + publishAheadMs
        await insertSigningKey(tx, { ...made, createdAtMs: timeMs, publishAtMs: timeMs, signFromMs })
        events.push(describeNewKey(made, signFromMs, schedule))
      }
      const [first, ...rest] = events
      if (first === undefined) return { result: undefined, unrecorded: 'nothing changed' }
      return { result: undefined, raisesEpoch: true, events: [first, ...rest] }
    },
  })
}

/** What a rotation that an admin asked for does, and what becomes of the tokens that are alive. */
export interface SigningKeyRotation {
  readonly kid: string
  readonly signFromMs: number
  /** The keys that it takes over from, and from when on nothing that they have signed is accepted. */
  readonly replaces: readonly { readonly kid: string; readonly verifyUntilMs: number }[]
  /** Only where the keys ended at once: the tokens that ended with them, as far as they were counted. */
  readonly endedTokens?: { readonly count: number; readonly more: boolean; readonly cachedUntilMs: number }
  readonly auditIndex: number
}

/**
 * Begins a rotation before its time. Ordinarily nothing happens to live tokens: the successor is published and signs when
 * caches have had their time. With `now` it signs at once, and from the commit on no other key is accepted. Throws
 * `conflict` where another rotation came first, or is under way and `now` was not asked for.
 */
export async function rotateSigningKeys(
  broker: Rotating & Pick<Broker, 'knowledge'>,
  caller: Caller,
  { now, reason }: { readonly now: boolean; readonly reason?: string },
): Promise<SigningKeyRotation> {
  const { database, ledger, knowledge, sealer } = broker
  const seen = findSigning(await listSigningKeys(database.read), ledger.nowMs())
  const made = await makeSigningKey(sealer)
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const keys = await listSigningKeys(tx)
      const live = keys.filter((key) => !hasEnded(key, timeMs))
      const signing = findSigning(live, timeMs)
      if (signing?.kid !== seen?.kid) throw refuse(`Another rotation came first: ${signing?.kid ?? 'no key'} signs now. Look at it with \`stint keys list\`.`)
      const next = live.find((key) => key.signFromMs > timeMs)
      if (next !== undefined && !now) {
        throw refuse(`A rotation is under way: ${next.kid} takes over at ${formatTime(next.signFromMs)}. Wait for it, or rotate at once with \`stint keys rotate --now\`.`)
      }
      const signFromMs = now ? timeMs : timeMs + publishAheadMs
      // All of them, also one that was to sign next: whoever could read one could read the others.
      const [created, ...replaced] = await takeOverSigning({ tx, caller }, made, now ? live : [], timeMs, signFromMs)
      return {
        result: { live, signing, signFromMs, timeMs },
        raisesEpoch: true,
        events: [{ ...created, ...(reason !== undefined && { reason }) }, ...replaced],
      }
    },
  })
  const { live, signing, signFromMs, timeMs } = result
  const rotation = { kid: made.kid, signFromMs, auditIndex: index }
  if (!now) {
    const { policySet } = await knowledge.refresh()
    const ttlMsMax = 1000 * Math.max(0, ...[...(policySet?.catalog.values() ?? [])].map(({ ttl }) => ttl.maxSeconds))
    return { ...rotation, replaces: signing === undefined ? [] : [{ kid: signing.kid, verifyUntilMs: signFromMs + ttlMsMax }] }
  }
  const sinceMs = Math.min(timeMs, ...live.map((key) => key.signFromMs))
  // Counted once it is done: for the person who asked, and nothing depends on it.
  const { live: count, more } = await countLiveGrants(database.read, { sinceMs, beforeIndex: index, nowMs: timeMs })
  return {
    ...rotation,
    replaces: live.map(({ kid }) => ({ kid, verifyUntilMs: timeMs })),
    endedTokens: { count, more, cachedUntilMs: timeMs + keysMaxAgeSeconds * 1000 },
  }
}

/** A signing key as it is shown. */
export interface ShownSigningKey extends Pick<SigningKeyRow, 'kid' | 'alg' | 'createdAtMs' | 'signFromMs' | 'verifyUntilMs'> {
  readonly status: KeyStatus
}

const shownMax = 100

/** The keys in the order of their lives, those that ended lately at the end; and when the next rotation is due. */
export async function showSigningKeys({ database, ledger, rotateKeysAfterMs }: Rotating): Promise<{
  readonly keys: readonly ShownSigningKey[]
  readonly nextRotationMs: number
}> {
  const nowMs = ledger.nowMs()
  const rows = await listSigningKeys(database.read)
  const newestMs = Math.max(...rows.filter((key) => !hasEnded(key, nowMs)).map((key) => key.signFromMs))
  const keys = rows.map((key) => ({ ...key, status: keyStatus(key, rows, nowMs) }))
  keys.sort((a, b) => keyStatuses.indexOf(a.status) - keyStatuses.indexOf(b.status) || compareNewest(a, b))
  return { keys: keys.slice(0, shownMax), nextRotationMs: newestMs + rotateKeysAfterMs }
}

/** Within which commit, and for whom, keys are replaced. */
export interface Replacing {
  readonly tx: Parameters<typeof endSigningKey>[0]
  readonly caller: Caller
}

/** Inserts a key that was made, and ends those that it replaces at once. Returns the events of it, that of the new key first. */
export async function takeOverSigning(
  { tx, caller }: Replacing,
  made: MadeKey,
  replaced: readonly Pick<SigningKeyRow, 'kid'>[],
  timeMs: number,
  signFromMs = timeMs,
): Promise<[ReturnType<typeof describeNewKey>, ...AuditEvent[]]> {
  await insertSigningKey(tx, { ...made, createdAtMs: timeMs, publishAtMs: timeMs, signFromMs })
  const events: AuditEvent[] = []
  for (const { kid } of replaced) events.push(await replaceKey({ tx, caller }, kid, made.kid, timeMs))
  return [describeNewKey(made, signFromMs, caller), ...events]
}

async function replaceKey({ tx, caller }: Replacing, kid: string, successor: string, verifyUntilMs: number): Promise<AuditEvent> {
  await endSigningKey(tx, kid, verifyUntilMs)
  return { type: 'key.replaced', ...causedBy(caller), use: 'token', kid, successor, verify_until: formatTime(verifyUntilMs) }
}

function toTimes({ sealedPrivate, ...key }: SigningKeyRow) {
  return { ...key, erased: sealedPrivate === undefined }
}

function refuse(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage })
}
