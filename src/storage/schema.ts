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
  wrapped: string
  created_at: string
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
