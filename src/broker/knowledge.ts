import type { Keyring } from '../crypto/keyring.ts'
import type { Workload } from '../identity/workload.ts'
import type { PolicySet } from '../policy/policy-set.ts'
import { loadPolicySet } from '../policy/policy-set.ts'
import type { Database } from '../storage/engine.ts'
import { readHead, type Head } from '../storage/head.ts'
import { readPolicyFiles, readPolicyInForce, type PolicyInForce } from '../storage/policy-sets.ts'
import { listRestorations } from '../storage/restorations.ts'
import { findWorkload } from '../storage/workloads.ts'

/** What decisions read, as of one epoch. A commit under this epoch proves that none of it has changed (invariant 13). */
export interface View {
  readonly epoch: number
  readonly policySet: PolicySet | undefined
  /** Since when, and by which entry, that set is in force. */
  readonly policyInForce: PolicyInForce | undefined
  readonly keyring: Keyring
  /** Proofs that were signed before are refused, since the log was accepted as restored; `undefined` where it never was. */
  readonly proofsFromMs: number | undefined
  findWorkload(name: string): Promise<Workload | undefined>
  /** Whether `findWorkload` would answer without asking the database. */
  remembersWorkload(name: string): boolean
}

/** What this process remembers of the database: always one epoch's view, replaced as a whole. */
export interface Knowledge {
  /** The remembered view, or a first one. It may be outdated: whoever decides by it commits under its epoch. */
  current(): Promise<View>
  /** A view that is at least as new as this call. */
  refresh(): Promise<View>
  /** Whether no newer epoch is committed. Asked before a refusal, which nothing is committed for. */
  isNewest(view: View): Promise<boolean>
  /** Keeps a set that was loaded, so that it is not loaded again if it is the next to come into force. */
  remember(set: PolicySet): void
}

export interface KnowledgeOptions {
  readonly database: Database
  /** Told of every head that is read. */
  observe(head: Head): void
  loadKeyring(): Promise<Keyring>
  readonly workloadsMax?: number
}

export function createKnowledge({ database, observe, loadKeyring, workloadsMax = 20_000 }: KnowledgeOptions): Knowledge {
  const db = database.read
  let view: View | undefined
  let policySet: PolicySet | undefined
  let loadedAhead: PolicySet | undefined

  async function readPolicySet(inForce: PolicyInForce | undefined): Promise<PolicySet | undefined> {
    if (inForce === undefined) return undefined
    if (policySet?.hash === inForce.hash) return policySet
    if (loadedAhead?.hash === inForce.hash) {
      policySet = loadedAhead
      loadedAhead = undefined
      return policySet
    }
    const files = await readPolicyFiles(db, inForce.hash)
    const loaded = loadPolicySet(files ?? new Map())
    // It was validated before it came into force: this is a damaged row, or a version of Stint that reads it otherwise.
    if (!('set' in loaded)) throw new Error(`the policy set in force, ${inForce.hash}, does not load: ${loaded.problems[0]?.message ?? ''}`)
    policySet = loaded.set
    return policySet
  }

  async function refresh(): Promise<View> {
    // The head first: whatever is read after it is at least as new, and if newer, a commit under this epoch fails.
    const head = await readHead(db)
    observe(head)
    if (view?.epoch === head.epoch) return view
    const workloads = new Map<string, Workload>()
    const policyInForce = await readPolicyInForce(db)
    const next: View = {
      epoch: head.epoch,
      policySet: await readPolicySet(policyInForce),
      policyInForce,
      keyring: await loadKeyring(),
      proofsFromMs: (await listRestorations(db))[0]?.proofsFromMs,
      async findWorkload(name) {
        const known = workloads.get(name)
        if (known !== undefined) return known
        const found = await findWorkload(db, name)
        if (found !== undefined) {
          if (workloads.size >= workloadsMax) workloads.clear()
          workloads.set(name, found)
        }
        return found
      },
      remembersWorkload: (name) => workloads.has(name),
    }
    if (view === undefined || view.epoch < next.epoch) view = next
    return next
  }

  return {
    current: async () => view ?? refresh(),
    refresh,
    isNewest: async ({ epoch }) => (await readHead(db)).epoch === epoch,
    remember(set) {
      if (set.hash !== policySet?.hash) loadedAhead = set
    },
  }
}
