import { countSealedBefore, listSealedBefore, replaceSealed, sealedColumns, type SealedRow } from '../storage/sealed-rows.ts'
import { eraseSealingKey, listSealingKeys } from '../storage/sealing-keys.ts'
import { findDueSealingSteps } from '../crypto/sealing-key-life.ts'
import type { AuditEvent } from '../audit/event.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

type Resealing = Pick<Broker, 'ledger' | 'database' | 'sealer' | 'log' | 'rotateSealingKeysAfterMs'>
type Column = (typeof sealedColumns)[number]

/** So many values are sealed anew in one commit, which holds up issuance for a few milliseconds. */
const valuesPerCommit = 50

/**
 * Seals anew what stands under a version before this one. What is still to be done is what the rows say: a process that dies
 * half-way leaves the rest to whoever comes next, and of two at once each value is replaced by the first.
 */
export async function resealBefore(broker: Resealing, version: number): Promise<void> {
  for (const column of sealedColumns) {
    let damaged = 0
    for (let last: SealedRow | undefined; ; ) {
      const rows = await listSealedBefore(broker.database.read, column, version, valuesPerCommit, last)
      last = rows.at(-1)
      if (last === undefined) break
      damaged += await resealRows(broker, column, rows)
    }
    if (damaged > 0) broker.log.error('sealed values do not open, and so the key that sealed them is kept', { table: column.table, count: damaged })
  }
}

/** Returns how many of them do not open. */
async function resealRows({ ledger, sealer }: Resealing, column: Column, rows: readonly SealedRow[]): Promise<number> {
  const resealed = rows.flatMap((row) => {
    const place = column.place(row.key)
    try {
      return [{ row, sealed: sealer.seal(sealer.open(row.sealed, place), place) }]
    } catch {
      return []
    }
  })
  await commit<void>(
    { ledger },
    {
      async apply(tx) {
        for (const { row, sealed } of resealed) await replaceSealed(tx, column, row, sealed)
        return { result: undefined, unrecorded: 'housekeeping' }
      },
    },
  )
  return rows.length - resealed.length
}

const schedule: Caller = { actor: { kind: 'stint', id: 'schedule' } }

/**
 * Erases the keys that were replaced, once nothing is under them. All that seals commits through the ledger, one at a time:
 * nothing can be written between the look and the erasure, and after it the database refuses it.
 */
export async function eraseReplaced(broker: Resealing): Promise<void> {
  await commit<void>(broker, {
    async apply(tx, place) {
      const { sealing, replaced, erasable } = findDueSealingSteps(await listSealingKeys(tx), place, broker.rotateSealingKeysAfterMs)
      if (sealing === undefined || !erasable || (await countSealedBefore(tx, sealing.version)) > 0) return { result: undefined, unrecorded: 'nothing changed' }
      const events: AuditEvent[] = []
      for (const { version } of replaced) {
        await eraseSealingKey(tx, version)
        events.push({ type: 'key.erased', ...causedBy(schedule), use: 'seal', version })
      }
      const [first, ...rest] = events
      if (first === undefined) return { result: undefined, unrecorded: 'nothing changed' }
      return { result: undefined, raisesEpoch: false, events: [first, ...rest] }
    },
  })
}
