import type { Kysely } from 'kysely'
import { ConnectorError, type OpenedVersion, type SealedVersions } from '../connectors/connector.ts'
import type { CallbackChange, Outcome, Place } from '../storage/change.ts'
import type { Schema } from '../storage/schema.ts'
import { findStages, moveVersion, type StoredSecret } from '../storage/secrets.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { describeStored, eraseVersions, openSecret, sealVersion } from './secrets.ts'

const caller: Caller = { actor: { kind: 'stint', id: 'rotation' } }

/**
 * The versions of sealed secrets as connectors use them. A pending version belongs to the rotation that made it: no other one
 * can take its place, so that a process which comes back late does no harm to the one that has taken over.
 */
export function createSealedVersions({ database, ledger, sealer }: Pick<Broker, 'database' | 'ledger' | 'sealer'>): SealedVersions {
  const open = (stored: StoredSecret): OpenedVersion => {
    const { version, createdAtMs, rotation } = stored
    return { version: String(version), sinceMs: createdAtMs, value: openSecret({ sealer }, stored), ...(rotation !== undefined && { rotation }) }
  }

  async function change<R>(name: string, apply: (tx: Kysely<Schema>, place: Place) => Promise<Outcome<R>>): Promise<R> {
    return guard(name, 'unknown', async () => {
      const callback: Pick<CallbackChange<R>, 'apply'> = { apply }
      return (await commit<R>({ ledger }, callback)).result
    })
  }

  return {
    async find(name) {
      const { current, pending, previous, older } = await guard(name, 'nothing_done', () => findStages(database.read, name))
      return {
        ...(current && { current: open(current) }),
        ...(pending && { pending: open(pending) }),
        ...(previous && { previous: open(previous) }),
        ...(older.length > 0 && { older: older.map(open) }),
      }
    },

    create: (name, rotation, value) =>
      change<OpenedVersion>(name, async (tx, { timeMs }) => {
        const { current, pending } = await findStages(tx, name)
        if (pending?.rotation === rotation) return { result: open(pending), unrecorded: 'nothing changed' }
        if (current === undefined) throw refuse(`There is no sealed secret ${name} that a new value could follow: an admin puts it, with stint secret put ${name}.`)
        if (current.rotation === rotation) throw refuse(`The rotation ${rotation} of the sealed secret ${name} is finished.`)
        if (pending !== undefined) {
          throw refuse(`Another rotation of the sealed secret ${name} is under way (${pending.rotation}): if nothing comes of it, an admin gives it up by putting the secret anew, with stint secret put ${name}.`)
        }
        const stored = await sealVersion({ sealer }, tx, { name, value, timeMs, stage: 'pending', rotation })
        return { result: open(stored), raisesEpoch: false, events: [{ type: 'secret.stored', ...causedBy(caller), ...describeStored(stored) }] }
      }),

    promote: (name, rotation) =>
      change<{ version: string; replaced?: string }>(name, async (tx) => {
        const { current, pending, previous, older } = await findStages(tx, name)
        // Also where somebody has put another one since: it was in force, and lent.
        const replaced = [...older, previous, current].filter((one) => one !== undefined)
        const at = replaced.findIndex((one) => one.rotation === rotation)
        const done = replaced[at]
        if (done !== undefined) {
          const before = replaced[at - 1]
          return { result: { version: String(done.version), ...(before && { replaced: String(before.version) }) }, unrecorded: 'nothing changed' }
        }
        if (pending?.rotation !== rotation) throw overtaken(name)
        if (current !== undefined) await moveVersion(tx, current, 'previous')
        await moveVersion(tx, pending, 'current')
        const { version } = pending
        return {
          result: { version: String(version), ...(current && { replaced: String(current.version) }) },
          raisesEpoch: false,
          events: [{ type: 'secret.promoted', ...causedBy(caller), secret: name, version, rotation, ...(current && { replaced: current.version }) }],
        }
      }),

    abandon: (name, rotation) =>
      change<void>(name, async (tx, { timeMs }) => {
        const { pending } = await findStages(tx, name)
        if (pending?.rotation !== rotation) return { result: undefined, unrecorded: 'nothing changed' }
        return erase(tx, name, pending, timeMs)
      }),

    retire: (name, version) =>
      change<void>(name, async (tx, { timeMs }) => {
        const { current, pending, previous, older } = await findStages(tx, name)
        if (String(current?.version) === version) throw refuse(`Version ${version} of the sealed secret ${name} is the one in use: it is not erased.`)
        const found = [pending, previous, ...older].find((one) => String(one?.version) === version)
        return found === undefined ? { result: undefined, unrecorded: 'nothing changed' } : erase(tx, name, found, timeMs)
      }),
  }
}

async function erase(tx: Kysely<Schema>, name: string, { version, rotation }: StoredSecret, timeMs: number): Promise<Outcome<void>> {
  await eraseVersions(tx, name, [version], timeMs)
  const event = { type: 'secret.erased', ...causedBy(caller), secret: name, version, ...(rotation !== undefined && { rotation }) } as const
  return { result: undefined, raisesEpoch: false, events: [event] }
}

/** What a put has given up, or another process. */
function overtaken(name: string): ConnectorError {
  return refuse(`The sealed secret ${name} has no pending value of this rotation any more: it was put anew meanwhile, or the rotation was given up. What is in use stays.`)
}

function refuse(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage })
}

/** What the database does not do is told like everything else that a connector meets. */
async function guard<R>(name: string, outcome: ConnectorError['outcome'], work: () => Promise<R>): Promise<R> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof ConnectorError) throw cause
    const publicMessage = `The sealed secret ${name} cannot be reached: the broker's database does not answer as it should. Try again shortly.`
    throw new ConnectorError({ outcome, publicMessage, retryAfterSeconds: 5, cause })
  }
}
