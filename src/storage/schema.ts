/**
 * The tables, the same on both engines. Instants are RFC 3339 text with milliseconds in UTC, which sorts as time does;
 * lists and objects are JSON text; hashes are 32 bytes.
 */
export interface Schema {
  log_head: LogHeadTable
  audit_event: AuditEventTable
  replay_mark: ReplayMarkTable
  grants: GrantTable
  revocation: RevocationTable
  workload: WorkloadTable
  workload_key: WorkloadKeyTable
  operator: OperatorTable
  operator_session: OperatorSessionTable
  enrolment: EnrolmentTable
  policy_set: PolicySetTable
  policy_in_force: PolicyInForceTable
  sealing_key: SealingKeyTable
  signing_key: SigningKeyTable
  checkpoint: CheckpointTable
  cosignature: CosignatureTable
  tree_hash: TreeHashTable
  credential: CredentialTable
  renewal: RenewalTable
  idempotency_key: IdempotencyKeyTable
  sealed_secret: SealedSecretTable
  custody: CustodyTable
  sweep: SweepTable
  deny_list: DenyListTable
  rotation: RotationTable
}

/** One row. Whoever holds its lock may append (the ledger alone does). */
export interface LogHeadTable {
  id: number
  /** Number of entries; the next entry's index. */
  size: number
  epoch: number
  /** The ledger's time: that of the last batch, never earlier than the one before. */
  time: string
  root: Uint8Array
  frontier: Uint8Array
}

interface AuditEventTable {
  idx: number
  time: string
  type: string
  workload: string | null
  tool: string | null
  grant_id: string | null
  task: string | null
  body: string
  leaf_hash: Uint8Array
}

interface ReplayMarkTable {
  id: string
  expires_at: string
}

/** `grants`, since `grant` is a word of SQL's own. */
export interface GrantTable {
  id: string
  workload: string
  tool: string
  actions: string
  target: string | null
  task: string | null
  audience: string
  issued_index: number
  issued_at: string
  expires_at: string
  /** The entry that ended this one grant; revocations of many grants are rows of `revocation` instead. */
  revoked_index: number | null
}

/** Ends all grants that fit its selector and were issued before its own entry, however many, in one row. */
interface RevocationTable {
  idx: number
  workload: string | null
  task: string | null
  before_time: string | null
  tool: string | null
}

export interface WorkloadTable {
  name: string
  environment: string
  stage: string
  team: string
  contact: string
  purpose: string
  tags: string
  review_at: string
  status: string
  created_at: string
  updated_at: string
  /** The review date that was announced last: a date that was moved since is announced anew. */
  review_announced: string | null
}

export interface WorkloadKeyTable {
  /** RFC 7638 thumbprint: unique over all workloads and all time, so that one key belongs to one workload. */
  kid: string
  workload: string
  alg: string
  jwk: string
  added_at: string
  /** From then on the key proves nothing. May lie ahead: a key that was rotated out ends by itself. */
  removed_at: string | null
}

export interface OperatorTable {
  id: string
  name: string
  role: string
  /** Hex SHA-256 of the credential's secret part. */
  secret_hash: string
  created_at: string
  expires_at: string | null
  revoked_at: string | null
}

/** A person who signed in by OpenID Connect, until the session ends. */
interface OperatorSessionTable {
  id: string
  /** Who vouched for the person: the session ends with Stint's trust in it. */
  issuer: string
  /** The issuer's name for the person, by reference. */
  subject: string
  role: string
  /** Hex SHA-256 of the credential's secret part. */
  secret_hash: string
  created_at: string
  expires_at: string
  ended_at: string | null
}

/** A one-time code with which an agent registers a key of its own. */
export interface EnrolmentTable {
  id: string
  workload: string
  /** Hex SHA-256 of the code's secret part. */
  code_hash: string
  created_at: string
  expires_at: string
  /** When it was redeemed, or cancelled: then it has no `kid`. */
  ended_at: string | null
  /** The key that was registered by it. */
  kid: string | null
}

/** Every policy set that was ever in force, by its hash. Never changed, never deleted. */
interface PolicySetTable {
  hash: string
  files: string
  cedar_version: string
  created_at: string
}

/** One row: which set decides. Changed by compare-and-swap. */
interface PolicyInForceTable {
  id: number
  hash: string
  since: string
  event_index: number
}

interface SealingKeyTable {
  version: number
  /** Empty once the key was erased. */
  wrapped: string
  created_at: string
  /** The size that the log had when it was made; none where that was before it was counted. */
  created_index: number | null
  /** The name of the root key that wrapped it; none where that was before root keys had names, and once it was erased. */
  root: string | null
  /** From then on it seals, when every process has it; none: from its creation on. */
  seals_from: string | null
}

interface SigningKeyTable {
  kid: string
  use: string
  alg: string
  public_jwk: string
  sealed_private: string
  sealed_version: number
  created_at: string
  publish_at: string
  sign_from: string
  verify_until: string | null
}

/** Every checkpoint that was ever signed. Never changed, never deleted. */
interface CheckpointTable {
  size: number
  root: Uint8Array
  /** The signed note. */
  note: string
  created_at: string
}

/** What a witness said to a checkpoint: a signature line that goes behind its note. */
interface CosignatureTable {
  size: number
  witness: string
  line: string
  created_at: string
}

/** The root of the leaves from `idx · 256^level`, `256^level` of them, from level 1 on: the leaves' own are in their rows. */
interface TreeHashTable {
  level: number
  idx: number
  hash: Uint8Array
}

/** What a grant has made in an outside system. One row for each grant whose credential Stint does not sign itself. */
export interface CredentialTable {
  grant_id: string
  tool: string
  workload: string
  connector: string
  /** The policy set whose catalog says where it was made. */
  policy_set: string
  /** A `GrantState`; only what `nextState` allows is ever written. */
  state: string
  /** Why it ends, from `ending` on: `revoked`, `expired` or `undone`. */
  cause: string | null
  /** How it ends before its time, as the connector promised (invariant 8). */
  effect: string
  /** The process that mints or ends it, until `lease_until`. */
  owner: string | null
  lease_until: string | null
  /** When somebody has to look at it next; none when it is over or stuck. */
  due_at: string | null
  /** Tries to end it. */
  tries: number
  /** What the tool calls it. */
  reference: string | null
  /** What ending it needs, sealed; erased at the end. */
  handle: string | null
  handle_version: number | null
  /** Hex SHA-256 of a bearer token that was lent, so that its holder can give it back by showing it. */
  token_hash: string | null
  /** Until then it may live whatever Stint does; none where Stint can end it. */
  dies_at: string | null
  /** Where it is denied that it does anything, once it is over; none where it is ended by itself. */
  deny_list: string | null
  /** Until when it has to be denied: the latest end that the tool itself gives it. */
  deny_until: string | null
  /** How long the tool takes to carry out that it has ended, in seconds; none where it has no delay or names none. */
  delay_seconds: number | null
  /** What went wrong last. */
  problem: string | null
  ended_at: string | null
}

/** A grant that goes on from another one, whose longest life counts from the first. */
interface RenewalTable {
  grant_id: string
  /** The first grant. */
  renews: string
  first_issued_at: string
}

/** What a workload asked for under a key of its own: asked again, it must not live twice. */
interface IdempotencyKeyTable {
  workload: string
  id: string
  /** Hex SHA-256 of the request. */
  body_hash: string
  grant_id: string
  expires_at: string
}

/** One version of a secret that Stint keeps. Of a version that is in no stage only the fact is kept. */
interface SealedSecretTable {
  name: string
  version: number
  sealed: string
  sealed_version: number
  created_at: string
  /** `current`: in use. `pending`: to be the next. `previous`: may still open something. */
  stage: string | null
  /** The rotation that made it; none where an admin put it. */
  rotation: string | null
}

/** A sealed secret that replaces itself when it is used. */
interface CustodyTable {
  /** The secret's name. */
  name: string
  tool: string
  /** `ready`, `in_use` or `used_up`. */
  state: string
  owner: string | null
  lease_until: string | null
  problem: string | null
}

interface SweepTable {
  id: number
  /** The index of the last revocation of many that was carried to the credentials which it covers. */
  revocations_carried: number
}

/** Where a tool that cannot end a session is told which ones to deny: rendered whole from the credentials that name it. */
export interface DenyListTable {
  id: string
  /** The tool through which it was written last, and the policy set that describes it. */
  tool: string
  policy_set: string
  /** The process that writes it, until `lease_until`. */
  owner: string | null
  lease_until: string | null
  /** Whatever was made before is denied, by the word of an admin. */
  cut_off_before: string | null
  /** When somebody has to look at it next; none when it is empty. */
  look_at: string | null
  written_at: string | null
  problem: string | null
}

/** The rotation of one thing: how it went last, how far the one under way has come, when the next is due. */
export interface RotationTable {
  /** The tool's name, for a secret. */
  name: string
  tool: string | null
  /** The secret that is rotated, as the catalog names it. */
  secret: string | null
  /** How long a version is to be in force; with the policy set that says so: none where nothing is rotated by schedule. */
  every_seconds: number | null
  scheduled_by: string | null
  /** The set by which the tool was described when the run began, or the last one. */
  policy_set: string | null
  /** The run that is under way, or ordered. */
  id: string | null
  /** The step of it that is to be done next. */
  step: string | null
  /** Why: `schedule`, `revocation`, `leak`, `request`. */
  reason: string | null
  /** 1 where the version before must open nothing any more as soon as there is a new one. */
  leaked: number
  /** Why another run is to follow at once: what was ordered meanwhile and concerns the next version. */
  again: string | null
  /** Tries of the next step that failed. */
  tries: number
  /** Runs that failed, since one did not. */
  failures: number
  started_at: string | null
  /** The version that is in force, and the one that it replaced by the last run. */
  version: string | null
  replaced: string | null
  /** When the replaced version is to open nothing any more; none once it does not. */
  retire_at: string | null
  /** 1 where whatever it holds open is to be cut off, too. */
  retire_leaked: number
  finished_at: string | null
  failed_at: string | null
  /** The last run that came to an end. */
  last_id: string | null
  /** When the next version is due, by schedule or because somebody ordered it. */
  next_at: string | null
  /** When somebody has to do something next. */
  due_at: string | null
  owner: string | null
  lease_until: string | null
  problem: string | null
  /** The due date of which it was announced that it was missed. */
  overdue_announced: string | null
}
