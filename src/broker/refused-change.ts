import type { BrokerError } from '../kernel/errors.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'

/** What an operator asked for, as the address that it was sent to. */
export interface AttemptedChange {
  readonly method: string
  /** The route's own pattern: what was filled in stands in the detail. */
  readonly route: string
}

/** Records that an operator's change was refused. A refusal of a policy set has an event of its own, with its problems. */
export async function recordRefusedChange(
  { ledger }: Pick<Broker, 'ledger'>,
  caller: Caller,
  { method, route }: AttemptedChange,
  { code, publicMessage }: BrokerError,
): Promise<void> {
  const detail = publicMessage.slice(0, 500).toWellFormed()
  await ledger.append({ events: [{ type: 'change.refused', ...causedBy(caller), method, route, code, detail }] })
}
