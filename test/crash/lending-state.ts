import { grantStates, isOver, type GrantState } from '../../src/grant/grant.ts'
import type { Site } from './site.ts'
import { readAtOnce } from './snapshot.ts'

/** What Stint's database knows of one grant in the tool. */
export interface StoredGrant {
  readonly grant: string
  readonly tool: string
  readonly workload: string
  readonly task: string
  readonly state: GrantState
  /** Why it ends, where it does. */
  readonly cause: string | undefined
  readonly issuedIndex: number
  readonly revokedIndex: number | undefined
  readonly expiresAtMs: number
  /** Until then it may live whatever is done, where the tool says so. */
  readonly diesAtMs: number | undefined
  /** What the tool calls it. */
  readonly reference: string | undefined
  readonly dueAtMs: number | undefined
  /** Until then a process has it to mint or to end. */
  readonly leaseUntilMs: number | undefined
  readonly problem: string | undefined
}

/** All grants whose credential lives in the tool, or did, by their ids. */
export async function readStoredGrants(site: Pick<Site, 'engine' | 'database'>): Promise<Map<string, StoredGrant>> {
  const rows = await readAtOnce(site, (tx) =>
    tx
      .selectFrom('credential')
      .innerJoin('grants', 'grants.id', 'credential.grant_id')
      .select(['grants.id', 'grants.tool', 'grants.workload', 'grants.task', 'grants.issued_index', 'grants.revoked_index', 'grants.expires_at', 'credential.state', 'credential.cause', 'credential.dies_at', 'credential.reference', 'credential.due_at', 'credential.lease_until', 'credential.problem'])
      .execute(),
  )
  return new Map(
    rows.map((row) => [
      row.id,
      {
        grant: row.id,
        tool: row.tool,
        workload: row.workload,
        task: row.task ?? '',
        state: toState(row.state),
        cause: row.cause ?? undefined,
        issuedIndex: Number(row.issued_index),
        revokedIndex: row.revoked_index === null ? undefined : Number(row.revoked_index),
        expiresAtMs: Date.parse(row.expires_at),
        diesAtMs: row.dies_at === null ? undefined : Date.parse(row.dies_at),
        reference: row.reference ?? undefined,
        dueAtMs: row.due_at === null ? undefined : Date.parse(row.due_at),
        leaseUntilMs: row.lease_until === null ? undefined : Date.parse(row.lease_until),
        problem: row.problem ?? undefined,
      },
    ]),
  )
}

function toState(text: string): GrantState {
  const state = grantStates.find((one) => one === text)
  if (state === undefined) throw new Error(`a grant is ${text}`)
  return state
}

/** Whether it is alive at that time: active, and nothing has ended it. */
export function isLive({ state, revokedIndex, expiresAtMs }: StoredGrant, nowMs: number): boolean {
  return state === 'active' && revokedIndex === undefined && expiresAtMs > nowMs
}

/** Those that were neither alive nor over at that time; what has expired since then may be on its way. */
export function findUnfinished(stored: ReadonlyMap<string, StoredGrant>, atMs: number): StoredGrant[] {
  return [...stored.values()].filter((one) => !isLive(one, atMs) && !isOver(one.state) && !hasExpiredSince(one, atMs))
}

/** Whether it was alive at that time and ends by itself. */
export function hasExpiredSince({ state, cause, expiresAtMs }: StoredGrant, atMs: number): boolean {
  return state === 'ending' && cause === 'expired' && expiresAtMs > atMs
}
