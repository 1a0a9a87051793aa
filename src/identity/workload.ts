/** How far a workload may be trusted. */
export const stages = ['sandbox', 'pilot', 'production'] as const
export type Stage = (typeof stages)[number]

export const workloadStatuses = ['active', 'suspended', 'retired'] as const
export type WorkloadStatus = (typeof workloadStatuses)[number]

/** Signature algorithms that a workload's own key may have (RFC 7518 §3.4, RFC 9864 §2.2). */
export const workloadKeyAlgorithms = ['ES256', 'Ed25519'] as const
export type WorkloadKeyAlgorithm = (typeof workloadKeyAlgorithms)[number]

/** A registered public key. Its `kid` is its RFC 7638 SHA-256 thumbprint, whatever the JWK called itself. */
export interface WorkloadKey {
  readonly kid: string
  readonly alg: WorkloadKeyAlgorithm
  /** Public members only: `kty`, `crv`, `x` and, on P-256, `y`. */
  readonly jwk: Readonly<Record<string, string>>
  readonly addedAtMs: number
  /**
   * From then on the key authenticates nobody; it can never be registered again. Lies ahead of a key that was rotated out
   * and still overlaps with its successor.
   */
  readonly removedAtMs?: number
}

/** `ending`: it proves the workload still, and ends by itself. */
export const keyStatuses = ['active', 'ending', 'removed'] as const
export type KeyStatus = (typeof keyStatuses)[number]

/** What a key is good for at that time, which is the ledger's (invariant 12). */
export function keyStatus({ removedAtMs }: Pick<WorkloadKey, 'removedAtMs'>, nowMs: number): KeyStatus {
  if (removedAtMs === undefined) return 'active'
  return removedAtMs > nowMs ? 'ending' : 'removed'
}

/** How many keys a workload may have that are not removed. */
export const keysMax = 8

/** One agent in one environment, with one accountable owner. */
export interface Workload {
  /** A DNS label (RFC 1123 §2.1), never used twice. */
  readonly name: string
  readonly environment: string
  readonly stage: Stage
  readonly owner: Owner
  readonly purpose: string
  readonly tags: readonly string[]
  /** From this instant on the workload is refused until an admin moves the date. */
  readonly reviewAtMs: number
  readonly status: WorkloadStatus
  readonly createdAtMs: number
  readonly updatedAtMs: number
  readonly keys: readonly WorkloadKey[]
}

export interface Owner {
  readonly team: string
  /** Where to reach a person, by reference (`oncall:support`), never an address: it would outlive them in the log. */
  readonly contact: string
}

/** `spiffe://<trust domain>/<name>`: the workload's OAuth `client_id` and token subject (SPIFFE-ID §2). */
export function spiffeId(trustDomain: string, workloadName: string): string {
  return `spiffe://${trustDomain}/${workloadName}`
}

// A DNS label in lower case.
export const workloadNamePattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** The workload's name in a SPIFFE ID of this trust domain, or `undefined` if the text is no such ID. */
export function workloadNameOf(trustDomain: string, id: string): string | undefined {
  const prefix = `spiffe://${trustDomain}/`
  if (!id.startsWith(prefix)) return undefined
  const name = id.slice(prefix.length)
  return workloadNamePattern.test(name) ? name : undefined
}
