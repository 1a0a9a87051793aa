import { randomUUID } from 'node:crypto'
import type { Kysely } from 'kysely'
import { readReference } from '../connectors/secret-reference.ts'
import { BrokerError } from '../kernel/errors.ts'
import { mayBeSameSecret } from '../policy/kinds/rotation.ts'
import type { StoredCredential } from '../storage/credentials.ts'
import { changeRotation, findRotation, type StoredRotation } from '../storage/rotations.ts'
import type { Schema } from '../storage/schema.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { describeHeld, heldUntilMs, planOrder } from './rotation-life.ts'
import { syncRotations } from './rotation-schedule.ts'

/**
 * Orders a new version of the secret that this credential lent, in the transaction that revokes it: who has a copy of a value
 * can be stopped by nothing else. It is one order for all that are revoked of one version. Bystanders, who hold the same
 * version by grants that nobody has revoked, lose it as soon as the next one is in force, which takes seconds, and not at the
 * end of their grants: they ask again, and are lent the next. A holder who gives his grant back orders nothing.
 */
export async function orderRotation(tx: Kysely<Schema>, { tool, reference }: Pick<StoredCredential, 'tool' | 'reference'>, timeMs: number): Promise<void> {
  // Without a reference nothing was lent.
  if (reference === undefined) return
  const row = await findRotation(tx, tool)
  if (row?.scheduled === undefined || !isOf(row, reference)) return
  const change = planOrder(row, { reason: 'revocation', version: readReference(reference).version, id: randomUUID() }, timeMs)
  if (change !== undefined) await changeRotation(tx, tool, change)
}

/** Whether what was lent is of the secret that is rotated now: a tool's file may name another one since. */
export function isOf({ secret }: Pick<StoredRotation, 'secret'>, reference: string): boolean {
  return secret === undefined || mayBeSameSecret(secret, readReference(reference).secret)
}

/** What was ordered: the run that does it. */
export interface OrderedRotation {
  readonly id: string
  readonly auditIndex: number
}

/**
 * Orders a new version of a tool's secret now. With `leaked` the one before it opens nothing any more as soon as the new one is
 * in force. A run that is under way serves the order. Throws `not_found` for what no row or tool has the name of, `conflict`
 * for what Stint does not replace.
 */
export async function requestRotation(
  broker: Broker,
  caller: Caller,
  name: string,
  { leaked, reason }: { readonly leaked: boolean; readonly reason?: string },
): Promise<OrderedRotation> {
  await syncRotations(broker)
  const { policySet } = await broker.knowledge.refresh()
  const { result: id, index } = await commit<string>(broker, {
    async apply(tx, { timeMs }) {
      const row = await findRotation(tx, name)
      if (row?.scheduled === undefined) throw refuse(name, policySet?.catalog.has(name) === true)
      const why = leaked ? 'leak' : 'request'
      const ordered = planOrder(row, { reason: why, id: randomUUID() }, timeMs)
      // Whoever asks does not wait for the next try, but for those to whom the version before was promised.
      const heldMs = heldUntilMs({ ...row, leaked: row.leaked || leaked }, timeMs)
      const change = { ...ordered, ...(row.owner === undefined && { dueAtMs: timeMs }), ...(heldMs !== undefined && { problem: describeHeld(heldMs) }) }
      await changeRotation(tx, name, change)
      const id = change.run?.id ?? row.run?.id ?? ''
      return {
        result: id,
        // No decision reads rotations.
        raisesEpoch: false,
        events: [{ type: 'rotation.ordered', ...causedBy(caller), rotation: name, id, reason: why, ...(reason !== undefined && { detail: reason }) }],
      }
    },
  })
  return { id, auditIndex: index }
}

function refuse(name: string, isTool: boolean): BrokerError {
  if (!isTool) return new BrokerError({ code: 'not_found', publicMessage: `There is no rotation ${name}: see stint rotations.` })
  const publicMessage = `The tool ${name} names no rotation in the catalog: change its secret where it is from, and hand over the new one.`
  return new BrokerError({ code: 'conflict', publicMessage })
}
