import { rootOf } from '../audit/merkle.ts'
import { consistencyNodes, verifyConsistency } from '../audit/proof.ts'
import { findNewestCheckpoint, insertCheckpoint, type StoredCheckpoint } from '../storage/checkpoints.ts'
import { readHead } from '../storage/head.ts'
import { hashFullTiles, insertTreeHashes, readNode, tileWidth } from '../storage/tree.ts'
import type { Broker } from './broker.ts'
import { commit } from './commit.ts'

type Signing = Pick<Broker, 'database' | 'ledger' | 'checkpointKey'>

/**
 * Signs the tree as it is now, unless its newest checkpoint says it already, and returns that one. It is stored only behind
 * the one that it was proven to go on from (compare-and-swap): of several processes one does it. Throws
 * `InconsistentTree` rather than sign what contradicts an earlier checkpoint (invariant 3), and from then on the ledger
 * commits nothing.
 */
export async function advanceCheckpoint(broker: Signing): Promise<StoredCheckpoint> {
  const { database, ledger, checkpointKey } = broker
  const { size, frontier } = await readHead(database.read)
  const head = { size, root: rootOf(frontier) }
  const earlier = await findNewestCheckpoint(database.read)
  // Another process may have signed a larger tree since the head was read.
  if (earlier !== undefined && earlier.size >= size && (await readHead(database.read)).size >= earlier.size) return earlier
  await storeTreeHashes(broker, size)
  await proveGrowth(broker, earlier, head)
  const made = { ...head, note: checkpointKey.sign(head) }
  const { result } = await commit(
    { ledger },
    {
      async apply(tx, { timeMs }) {
        const newest = await findNewestCheckpoint(tx)
        if (newest?.size !== earlier?.size) return { result: newest, unrecorded: 'nothing changed' }
        await insertCheckpoint(tx, made, timeMs)
        return { result: made, unrecorded: 'housekeeping' }
      },
    },
  )
  return result ?? made
}

/** A checkpoint of at least that many entries, which the log must have. */
export async function requireCheckpoint(broker: Signing, size: number): Promise<StoredCheckpoint> {
  for (;;) {
    const newest = await findNewestCheckpoint(broker.database.read)
    if (newest !== undefined && newest.size >= size) return newest
    const advanced = await advanceCheckpoint(broker)
    if (advanced.size >= size) return advanced
  }
}

/** The tree is not one that goes on from its newest checkpoint. */
export class InconsistentTree extends Error {
  constructor(why: string) {
    super(`the log contradicts its own checkpoint: ${why}; nothing is issued until it was looked into`)
    this.name = 'InconsistentTree'
  }
}

/** The consistency proof that others will ask for, made and checked before anything is signed. */
async function proveGrowth({ database: { read }, ledger }: Signing, earlier: StoredCheckpoint | undefined, head: Pick<StoredCheckpoint, 'size' | 'root'>): Promise<void> {
  const root = head.size === 0 ? head.root : await readNode(read, { start: 0, end: head.size })
  const problem = Buffer.compare(root, head.root) === 0 ? undefined : `its ${head.size} entries do not have the root of its head`
  const grown = async (from: StoredCheckpoint): Promise<boolean> => {
    if (from.size > head.size) return false
    const nodes = from.size === 0 ? [] : consistencyNodes(from.size, head.size)
    const proof: Uint8Array[] = []
    for (const node of nodes) proof.push(await readNode(read, node))
    return verifyConsistency(from, head, proof)
  }
  const why = problem ?? (earlier === undefined || (await grown(earlier)) ? undefined : `its ${head.size} entries do not go on from the ${earlier.size} that were signed`)
  if (why === undefined) return
  const error = new InconsistentTree(why)
  ledger.hold(error.message)
  throw error
}

// Some 30 ms of work, and a commit of as many rows at most.
const tilesPerCommit = 64

/** Stores the hashes of all full tiles of a tree of that size, level by level: 1/256 of a row for each entry. */
async function storeTreeHashes({ database: { read }, ledger }: Signing, size: number): Promise<void> {
  for (let level = 1; tileWidth ** level <= size; level++) {
    for (;;) {
      const hashes = await hashFullTiles(read, level, size, tilesPerCommit)
      if (hashes.length === 0) break
      await commit(
        { ledger },
        {
          async apply(tx) {
            await insertTreeHashes(tx, hashes)
            return { result: undefined, unrecorded: 'housekeeping' }
          },
        },
      )
    }
  }
}
