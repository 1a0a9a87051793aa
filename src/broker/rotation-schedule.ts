import { randomUUID } from 'node:crypto'
import type { Kysely } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Tool } from '../policy/catalog.ts'
import type { PolicySet } from '../policy/policy-set.ts'
import { hasRevokedEnds, wakeEnds } from '../storage/due-credentials.ts'
import { readPolicyInForce } from '../storage/policy-sets.ts'
import { changeRotation, findRotation, insertRotation, listMissed, listRotations, type StoredRotation } from '../storage/rotations.ts'
import type { Schema } from '../storage/schema.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { listKeyRotations } from './key-rotations.ts'
import { findMissed, graceMsMin, planOrder } from './rotation-life.ts'

const schedule: Caller = { actor: { kind: 'stint', id: 'schedule' } }

/**
 * Keeps a row for each tool of the policy set in force whose secret Stint replaces. One that is not replaced any more is not
 * due any more, and its row stays; a run that has begun goes on by the set under which it did.
 */
export async function syncRotations(broker: Broker): Promise<void> {
  const { policySet } = await broker.knowledge.refresh()
  if (policySet === undefined || broker.rotating.syncedSet === policySet.hash) return
  const wanted = listRotated(broker, policySet)
  const rows = await listRotations(broker.database.read)
  if (isOutdated(rows, wanted, policySet.hash)) {
    await commit<void>(broker, {
      async apply(tx, { timeMs }) {
        // By a set that another process has replaced meanwhile nothing is scheduled.
        if ((await readPolicyInForce(tx))?.hash !== policySet.hash) return { result: undefined, unrecorded: 'nothing changed' }
        for (const [name, rotated] of wanted) if (rotated !== undefined) await scheduleOne(tx, name, rotated, policySet.hash, timeMs)
        for (const row of await listRotations(tx)) if (!wanted.has(row.name)) await dismissOne(tx, row, timeMs)
        return { result: undefined, unrecorded: 'housekeeping' }
      },
    })
  }
  broker.rotating.syncedSet = policySet.hash
}

interface Rotated {
  readonly everySeconds: number
  readonly secret?: string
}

/** The tools whose secret is replaced, with how often; of one that cannot be opened nobody knows, and all stays as it is. */
function listRotated({ tools, log }: Broker, { catalog }: PolicySet): ReadonlyMap<string, Rotated | undefined> {
  const rotated = new Map<string, Rotated | undefined>()
  for (const tool of catalog.values()) {
    if (!tools.isOutside(tool)) continue
    try {
      const { rotation } = tools.open(tool)
      if (rotation !== undefined) rotated.set(tool.name, { everySeconds: rotation.everySeconds, ...nameSecret(tool) })
    } catch (error) {
      rotated.set(tool.name, undefined)
      log.warn('whether a secret is to be rotated is not known: its tool cannot be opened', { tool: tool.name, error })
    }
  }
  return rotated
}

/** The secret that a tool lends, as its kind of connector has it in the catalog. */
function nameSecret({ config }: Tool): { readonly secret?: string } {
  const { secret, secret_id: id } = config as { readonly secret?: unknown; readonly secret_id?: unknown }
  const name = secret ?? id
  return typeof name === 'string' ? { secret: name } : {}
}

function isOutdated(rows: readonly StoredRotation[], wanted: ReadonlyMap<string, Rotated | undefined>, hash: string): boolean {
  const known = new Map(rows.map((row) => [row.name, row.scheduled]))
  const isNew = [...wanted].some(([name, rotated]) => rotated !== undefined && known.get(name)?.policySet !== hash)
  return isNew || rows.some(({ name, scheduled }) => scheduled !== undefined && !wanted.has(name))
}

/** When the next version is due is seen by looking at the one in force; until then it counts from now. */
async function scheduleOne(tx: Kysely<Schema>, name: string, { everySeconds, secret }: Rotated, policySet: string, timeMs: number): Promise<void> {
  const scheduled = { everySeconds, policySet }
  await insertRotation(tx, name, name)
  const row = await findRotation(tx, name)
  if (row === undefined || row.scheduled?.policySet === scheduled.policySet) return
  const nextAtMs = row.nextAtMs ?? timeMs + scheduled.everySeconds * 1000
  // By another secret nothing is known of what was in force in the one before.
  const isOther = row.secret !== undefined && row.secret !== secret
  await changeRotation(tx, name, { scheduled, secret: secret ?? null, nextAtMs, ...(isOther && { version: null }), ...(row.run === undefined && { dueAtMs: timeMs }) })
  // What was revoked before there was a row could order nothing.
  if (row.scheduled !== undefined || !(await hasRevokedEnds(tx, name))) return
  await changeRotation(tx, name, planOrder({ ...row, nextAtMs }, { reason: 'revocation', id: randomUUID() }, timeMs) ?? {})
}

async function dismissOne(tx: Kysely<Schema>, { name, scheduled, run, retireAtMs }: StoredRotation, timeMs: number): Promise<void> {
  if (scheduled === undefined) return
  // Whoever waits is told that nothing comes of it by itself any more.
  await wakeEnds(tx, name, timeMs)
  const hasBegun = run !== undefined && run.step !== 'order'
  await changeRotation(tx, name, { scheduled: null, nextAtMs: null, overdueAnnouncedMs: null, ...(!hasBegun && { run: null, leaked: false, again: null, problem: null, dueAtMs: retireAtMs ?? null }) })
}

/** Has the log say, once for each date, that a version should have been replaced by then and was not (invariant 11). */
export async function announceOverdue(broker: Broker): Promise<void> {
  const { database, ledger } = broker
  for (const { name } of await listMissed(database.read, ledger.nowMs() - graceMsMin)) {
    await announce(broker, name, (row, timeMs) => (row === undefined ? undefined : findMissed(row, timeMs)))
  }
  for (const { name, nextMs, overdue } of await listKeyRotations(broker)) if (overdue) await announce(broker, name, () => nextMs)
}

async function announce(broker: Broker, name: string, findDate: (row: StoredRotation | undefined, timeMs: number) => number | undefined): Promise<void> {
  await commit<void>(broker, {
    async apply(tx, { timeMs }) {
      const row = await findRotation(tx, name)
      const dateMs = findDate(row, timeMs)
      if (dateMs === undefined || row?.overdueAnnouncedMs === dateMs) return { result: undefined, unrecorded: 'nothing changed' }
      await insertRotation(tx, name)
      await changeRotation(tx, name, { overdueAnnouncedMs: dateMs })
      const event = { type: 'rotation.overdue', ...causedBy(schedule), rotation: name, due_at: formatTime(dateMs) } as const
      return { result: undefined, raisesEpoch: false, events: [event] }
    },
  })
}
