import { listSealingKeys, replaceWrapped, type SealingKeyRow, type WrappedKey } from '../storage/sealing-keys.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { isOwn } from './sealing-keys.ts'

type Rewrapping = Pick<Broker, 'ledger' | 'database' | 'sealingKeys'>

/** What a move to the root key came to. */
export interface Rewrapped {
  /** The root key of this process. */
  readonly root: string
  /** The one that it gives up, where it was given one. */
  readonly previous?: string
  /** Whether the previous one still wraps a key. */
  readonly isPreviousNeeded: boolean
  /** The versions that were wrapped anew. */
  readonly moved: readonly number[]
  /**
   * Keys that another root key wraps than this process was given: another process has moved on to it, and this one was started
   * with a configuration of before.
   */
  readonly elsewhere: readonly { readonly version: number; readonly root: string }[]
  /** The entry that records the move; absent where nothing was moved. */
  readonly auditIndex?: number
}

/**
 * Wraps by the root key every sealing key that the previous one wraps, or that does not say what wraps it. Each is wrapped and
 * opened again before the commit, which changes only rows that are as they were: at each moment one of the two opens them.
 */
export async function rewrapSealingKeys(broker: Rewrapping, caller: Caller): Promise<Rewrapped> {
  const { database, sealingKeys } = broker
  const { root, previous } = sealingKeys
  const moves: { readonly seen: string; readonly key: WrappedKey }[] = []
  for (const row of await listMovable(broker)) {
    if (!sealingKeys.has(row.version)) await sealingKeys.load()
    moves.push({ seen: row.wrapped, key: await sealingKeys.wrap(row.version) })
  }
  const recorded = moves.length === 0 ? { result: [], index: 0 } : await commitMoves(broker, caller, moves)
  const left = (await listSealingKeys(database.read)).flatMap((row) => (row.erased || row.root === root.name ? [] : [{ version: row.version, root: row.root ?? '' }]))
  return {
    root: root.name,
    ...(previous !== undefined && { previous: previous.name }),
    isPreviousNeeded: previous !== undefined && left.some((row) => row.root === '' || row.root === previous.name),
    moved: recorded.result,
    elsewhere: left.filter((row) => row.root !== '' && row.root !== previous?.name),
    ...(recorded.result.length > 0 && { auditIndex: recorded.index }),
  }
}

/** The keys that are not wrapped by the root key of this process, and that it may move there. */
async function listMovable({ database, sealingKeys }: Rewrapping): Promise<SealingKeyRow[]> {
  return (await listSealingKeys(database.read)).filter((row) => !row.erased && row.root !== sealingKeys.root.name && isOwn(sealingKeys, row))
}

async function commitMoves({ ledger, sealingKeys }: Rewrapping, caller: Caller, moves: readonly { readonly seen: string; readonly key: WrappedKey }[]) {
  return commit<readonly number[]>(
    { ledger },
    {
      async apply(tx) {
        const versions: number[] = []
        for (const { seen, key } of moves) if (await replaceWrapped(tx, key, seen)) versions.push(key.version)
        if (versions.length === 0) return { result: versions, unrecorded: 'nothing changed' }
        return { result: versions, raisesEpoch: false, events: [{ type: 'key.rewrapped', ...causedBy(caller), root: sealingKeys.root.name, versions }] }
      },
    },
  )
}

/**
 * Makes what moves keys by itself, for a job: each key once. So two processes that were given each other's root key, as when a
 * change of the configuration is taken back half-way, do not move a key to and fro; an admin decides it then.
 */
export function createKeyMover(broker: Rewrapping): () => Promise<void> {
  const caller: Caller = { actor: { kind: 'stint', id: 'schedule' } }
  const settled = new Set<number>()
  return async () => {
    const seen = await listSealingKeys(broker.database.read)
    if ((await listMovable(broker)).some(({ version }) => !settled.has(version))) await rewrapSealingKeys(broker, caller)
    for (const { version } of seen) settled.add(version)
  }
}
