import type { Actor } from '../audit/event.ts'
import type { AuthenticateWorkload } from '../identity/authenticate.ts'
import type { Clock } from '../kernel/clock.ts'
import type { RandomBytes } from '../kernel/ids.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter } from '../kernel/meter.ts'
import type { Decider } from '../policy/decide.ts'
import type { Database } from '../storage/engine.ts'
import type { Ledger } from '../storage/ledger.ts'
import type { Knowledge } from './knowledge.ts'
import type { Refusals } from './refusals.ts'
import type { Turns } from './turns.ts'

/** Everything that the broker's verbs work with, wired once by `compose.ts` and handed to each as its first argument. */
export interface Broker {
  /** The OAuth issuer: an origin without a trailing slash (RFC 8414 §2). */
  readonly issuer: string
  readonly trustDomain: string
  readonly database: Database
  readonly ledger: Ledger
  readonly knowledge: Knowledge
  readonly decider: Decider
  readonly authenticate: AuthenticateWorkload
  readonly refusals: Refusals
  readonly turns: Turns
  readonly clock: Clock
  readonly random: RandomBytes
  readonly log: Log
  readonly meter: Meter
}

/** On whose behalf a verb runs, and under which request. */
export interface Caller {
  readonly actor: Actor
  readonly requestId?: string
}

/** The common members of an event that this caller causes. */
export function causedBy({ actor, requestId }: Caller): { actor: Actor; request_id?: string } {
  return { actor, ...(requestId !== undefined && { request_id: requestId }) }
}
