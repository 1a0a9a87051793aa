import type { Actor } from '../audit/event.ts'
import type { Sealer } from '../crypto/seal.ts'
import type { AuthenticateWorkload } from '../identity/authenticate.ts'
import type { Clock } from '../kernel/clock.ts'
import type { RandomBytes } from '../kernel/ids.ts'
import type { Log } from '../kernel/log.ts'
import type { Meter, Metrics } from '../kernel/meter.ts'
import type { Tracer } from '../kernel/tracer.ts'
import type { RateLimit } from '../kernel/rate-limit.ts'
import type { Decider } from '../policy/decide.ts'
import type { Database } from '../storage/engine.ts'
import type { Ledger } from '../storage/ledger.ts'
import type { Anchoring } from './anchor.ts'
import type { CheckpointKey } from './checkpoint-key.ts'
import type { SeenCheckpoint } from './checkpoints.ts'
import type { BrokerDenyLists } from './deny-lists.ts'
import type { ExportPlaces } from './export-audit.ts'
import type { Knowledge } from './knowledge.ts'
import type { Refusals } from './refusals.ts'
import type { Pace } from './pace.ts'
import type { PolicyFolder } from './reload-policy.ts'
import type { SealingKeys } from './sealing-keys.ts'
import type { Rotating } from './rotate.ts'
import type { CompanyIssuer } from './sign-in.ts'
import type { Sweeping } from './sweep.ts'
import type { Tools } from './tools.ts'
import type { Turns } from './turns.ts'
import type { UnrecordedEndings } from './unrecorded.ts'
import type { Pass } from './waypoints.ts'

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
  /** Seals the keys that are made while the broker runs. */
  readonly sealer: Sealer
  /** The keys that it seals under, and the root key that wraps them. */
  readonly sealingKeys: SealingKeys
  /** Signs the log's checkpoints. */
  readonly checkpointKey: CheckpointKey
  /** What the next checkpoint must go on from, whatever the database says. */
  readonly seenCheckpoint: SeenCheckpoint
  /** Keeps the log's checkpoints elsewhere. */
  readonly anchoring: Anchoring
  /** The tools whose credentials live in outside systems. */
  readonly tools: Tools
  /** Where sessions are denied that a tool cannot end. */
  readonly denyLists: BrokerDenyLists
  /** What was ended outside while the log could not be written. */
  readonly unrecorded: UnrecordedEndings
  readonly sweeping: Sweeping
  readonly rotating: Rotating
  readonly pace: Pace
  /** Names this process among those of one database, as long as it lives. */
  readonly processId: string
  /** Told of each step of lending and ending; does nothing but in tests that stop a broker there. */
  readonly pass: Pass
  /** How long a key signs tokens. */
  readonly rotateKeysAfterMs: number
  /** How long a key seals. */
  readonly rotateSealingKeysAfterMs: number
  /** Absent where the configuration names no folder. */
  readonly policyFolder?: PolicyFolder
  readonly refusals: Refusals
  readonly turns: Turns
  readonly exports: ExportPlaces
  /** How often each workload may ask, by its name. */
  readonly workloadLimit: RateLimit
  readonly clock: Clock
  readonly random: RandomBytes
  readonly log: Log
  readonly meter: Meter
  /** What the meter and the state of things show, for whoever asks. */
  readonly metrics: Metrics
  /** Absent where no traces are wanted. */
  readonly tracer?: Tracer
  /** Whether the process was told to stop: it finishes what was begun, and ought not to be sent more. */
  isDraining(): boolean
  /** Who vouches for people who sign in; absent where the configuration names nobody. */
  readonly companyIssuer?: CompanyIssuer
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
