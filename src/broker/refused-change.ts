import type { BrokerError } from '../kernel/errors.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'

/** What was asked for, as the address that it was sent to. */
export interface AttemptedChange {
  readonly method: string
  /** The route's own pattern: what was filled in stands in the detail. */
  readonly route: string
}

/** Records that an operator's change was refused. A refusal of a policy set has an event of its own, with its problems. */
export async function recordRefusedChange(
  { ledger }: Pick<Broker, 'ledger'>,
  caller: Caller,
  attempted: AttemptedChange,
  error: BrokerError,
): Promise<void> {
  await ledger.append({ events: [describeRefusedChange(caller, attempted, error)] })
}

/** The event of a refused change, for verbs that record it together with what it spends. */
export function describeRefusedChange(caller: Caller, { method, route }: AttemptedChange, { code, publicMessage }: BrokerError) {
  const { actor } = caller
  const detail = publicMessage.slice(0, 500).toWellFormed()
  const workload = actor.kind === 'workload' ? actor.id : undefined
  return { type: 'change.refused', ...causedBy(caller), method, route, code, detail, ...(workload !== undefined && { workload }) } as const
}
