import type { Insertable } from 'kysely'
import type { AuditEvent } from '../../src/audit/event.ts'
import type { Broker } from '../../src/broker/broker.ts'
import { issueGrant } from '../../src/broker/issue.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { newId } from '../../src/kernel/ids.ts'
import { handlePlace } from '../../src/storage/credentials.ts'
import type { CredentialTable } from '../../src/storage/schema.ts'
import { createAsserter, type Signer } from './bodies.ts'

/** Grants in an outside tool that have expired by the time a broker serves. */
export interface Backlog {
  readonly tool: string
  readonly action: string
  readonly count: number
  /** Whether the tool has really made each; else it finds nothing to end. */
  readonly real: boolean
}

const rowsAtOnce = 500
const mintsAtOnce = 8
/** The shortest that there is: it is over before anybody serves. */
const ttlSeconds = 1

/** Lends that many credentials for a second, or records that they were. */
export async function lendExpired(broker: Broker, [signer]: readonly Signer[], { tool, action, count, real }: Backlog): Promise<void> {
  if (signer === undefined) throw new Error('credentials are lent to a workload: there is none')
  const assert = createAsserter(signer, broker.issuer)
  const lend = async (): Promise<string> =>
    (await issueGrant(broker, { assertion: assert() }, { tool, actions: [action], ttlSeconds }, { requestId: newId('req', Date.now(), broker.random) })).grant
  if (!real) return recordLike(broker, await lend(), count)
  for (let made = 0; made < count; made += mintsAtOnce) await Promise.all(Array.from({ length: Math.min(mintsAtOnce, count - made) }, lend))
}

/** So many more grants with the rows and entries that this one has, all but its role in the tool. */
async function recordLike(broker: Broker, model: string, count: number): Promise<void> {
  const { database, ledger, random, sealer } = broker
  const grant = await database.read.selectFrom('grants').selectAll().where('id', '=', model).executeTakeFirstOrThrow()
  const credential = await database.read.selectFrom('credential').selectAll().where('grant_id', '=', model).executeTakeFirstOrThrow()
  const bodies = await database.read.selectFrom('audit_event').select('body').where('grant_id', '=', model).orderBy('idx').execute()
  const [minting, activated] = bodies.map(({ body }) => {
    const { index: _index, time: _time, salt: _salt, v: _version, ...event } = JSON.parse(body) as Record<string, unknown>
    // What was just recorded of the model.
    return event as unknown as AuditEvent
  })
  if (minting?.type !== 'grant.minting' || activated?.type !== 'grant.activated') throw new Error('the model was not lent')
  const { handle, handle_version: version } = credential
  const opened = handle !== null && version !== null ? sealer.open({ ciphertext: handle, version }, handlePlace(model)) : undefined
  const { issued_index: _issued, issued_at: _at, revoked_index: _revoked, ...row } = grant
  for (let made = 0; made < count; made += rowsAtOnce) {
    const nowMs = ledger.nowMs()
    const expiresAt = formatTime(nowMs + ttlSeconds * 1000)
    const ids = Array.from({ length: Math.min(rowsAtOnce, count - made) }, () => newId('grant', nowMs, random))
    await Promise.all(
      ids.map((id) =>
        ledger.append({
          grant: { ...row, id, expires_at: expiresAt },
          events: [{ ...minting, grant: id, expires_at: expiresAt }, { ...activated, grant: id }],
        }),
      ),
    )
    // Beside the ledger, which would take a savepoint for each.
    const rows: Insertable<CredentialTable>[] = ids.map((id) => {
      const sealed = opened && sealer.seal(opened, handlePlace(id))
      return { ...credential, grant_id: id, due_at: expiresAt, ...(sealed && { handle: sealed.ciphertext, handle_version: sealed.version }) }
    })
    await database.maintenance.insertInto('credential').values(rows).execute()
  }
}
