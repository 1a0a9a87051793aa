import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import type { Workload, WorkloadStatus } from '../identity/workload.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Place } from '../storage/change.ts'
import type { Schema } from '../storage/schema.ts'
import { findWorkload, updateWorkload } from '../storage/workloads.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { cancelOpenEnrolments } from './enrolments.ts'
import { requireWorkload, type ChangedWorkload } from './register.ts'

/** Stops a workload at once: no new tokens, and introspection calls the ones it holds inactive until it is resumed. */
export function suspendWorkload(broker: Broker, caller: Caller, name: string, reason: string | undefined): Promise<ChangedWorkload> {
  return changeStatus(broker, caller, name, 'suspended', reason)
}

/** Lets a suspended workload work again. Throws `conflict` while its review date has passed: an admin moves it first. */
export function resumeWorkload(broker: Broker, caller: Caller, name: string, reason: string | undefined): Promise<ChangedWorkload> {
  return changeStatus(broker, caller, name, 'active', reason)
}

/** Ends a workload for good. Its name and its keys are never used again. */
export function retireWorkload(broker: Broker, caller: Caller, name: string, reason: string | undefined): Promise<ChangedWorkload> {
  return changeStatus(broker, caller, name, 'retired', reason)
}

/** Suspends a workload as part of a revocation's own transaction; no event where it is stopped already. */
export async function stopWorkload(tx: Kysely<Schema>, caller: Caller, name: string, reason: string | undefined, { timeMs }: Place): Promise<AuditEvent[]> {
  const workload = await findWorkload(tx, name)
  if (workload?.status !== 'active') return []
  await updateWorkload(tx, { ...workload, status: 'suspended', updatedAtMs: timeMs })
  const cancelled = await cancelOpenEnrolments(tx, caller, name, timeMs)
  return [{ type: 'workload.suspended', ...causedBy(caller), workload: name, ...(reason !== undefined && { reason }) }, ...cancelled]
}

const eventTypes = { suspended: 'workload.suspended', active: 'workload.resumed', retired: 'workload.retired' } as const

async function changeStatus(
  broker: Broker,
  caller: Caller,
  name: string,
  status: WorkloadStatus,
  reason: string | undefined,
): Promise<ChangedWorkload> {
  const { result, index } = await commit(broker, {
    async apply(tx, { timeMs }) {
      const before = await requireWorkload(tx, name, status === 'active' ? 'resumed' : status)
      if (before.status === status) return { result: { workload: before, recorded: false }, unrecorded: 'nothing changed' }
      if (status === 'active' && before.reviewAtMs <= timeMs) {
        throw new BrokerError({
          code: 'conflict',
          publicMessage: `The review date of ${name} has passed: move it with \`stint workload update ${name} --review-at DATE\` first.`,
        })
      }
      const after: Workload = { ...before, status, updatedAtMs: timeMs }
      await updateWorkload(tx, after)
      // A code is as good as a key: one that leaked must not wait for the workload to be resumed.
      const cancelled = status === 'active' ? [] : await cancelOpenEnrolments(tx, caller, name, timeMs)
      return {
        result: { workload: after, recorded: true },
        raisesEpoch: true,
        events: [{ type: eventTypes[status], ...causedBy(caller), workload: name, ...(reason !== undefined && { reason }) }, ...cancelled],
      }
    },
  })
  return { workload: result.workload, ...(result.recorded && { auditIndex: index }) }
}
