import { openCheckpoint } from '../audit/checkpoint.ts'
import { rootOf } from '../audit/merkle.ts'
import { consistencyNodes, verifyConsistency } from '../audit/proof.ts'
import { findNewestCheckpoint, insertCheckpoint, type StoredCheckpoint } from '../storage/checkpoints.ts'
import { readHead } from '../storage/head.ts'
import { computeRoot, hashFullTiles, insertTreeHashes, MissingHashes, readNode, readTreeHead, tileWidth, type TreeHash, type TreeHead } from '../storage/tree.ts'
import type { Broker } from './broker.ts'
import { commit } from './commit.ts'

type Signing = Pick<Broker, 'database' | 'ledger' | 'checkpointKey' | 'seenCheckpoint'>

/** The newest checkpoint that this process signed, or read and proved: what the database says is held against it. */
export interface SeenCheckpoint {
  newest(): StoredCheckpoint | undefined
  remember(checkpoint: StoredCheckpoint): void
}

/** Remembers none yet. Whoever owns the database can rewrite all that it says, but not what a process remembers. */
export function createSeenCheckpoint(): SeenCheckpoint {
  let newest: StoredCheckpoint | undefined
  return {
    newest: () => newest,
    remember(checkpoint) {
      // Of two that are proven at once, the smaller one may come later.
      if (newest === undefined || checkpoint.size > newest.size) newest = checkpoint
    },
  }
}

/**
 * Signs the tree as it is now, unless its newest checkpoint says it already, and returns that one. It is stored only behind
 * the one that it was proven to go on from (compare-and-swap): of several processes one does it. Throws
 * `InconsistentTree` rather than sign what contradicts an earlier checkpoint (invariant 3), be it one that only this process
 * remembers, and from then on the ledger commits nothing.
 */
export async function advanceCheckpoint(broker: Signing): Promise<StoredCheckpoint> {
  try {
    return await signTree(broker)
  } catch (error) {
    const found = error instanceof MissingHashes ? new InconsistentTree(error.message) : error
    if (found instanceof InconsistentTree) broker.ledger.hold(found.message)
    throw found
  }
}

/** A checkpoint of at least that many entries. Throws `RangeError` if the log has fewer. */
export async function requireCheckpoint(broker: Signing, size: number): Promise<StoredCheckpoint> {
  const { size: there } = await readHead(broker.database.read)
  if (there < size) throw new RangeError(`a log of ${there} entries has no checkpoint of ${size}`)
  // More than once where another process signs a tree that it had read before this one grew.
  for (let newest = await findNewestCheckpoint(broker.database.read); ; newest = await advanceCheckpoint(broker)) {
    if (newest !== undefined && newest.size >= size) return newest
  }
}

/** The tree is not one that goes on from its newest checkpoint. */
export class InconsistentTree extends Error {
  constructor(why: string) {
    super(`the log contradicts its own checkpoint: ${why}; nothing is issued until it was looked into`)
    this.name = 'InconsistentTree'
  }
}

async function signTree(broker: Signing): Promise<StoredCheckpoint> {
  const { database, ledger, checkpointKey, seenCheckpoint } = broker
  const seen = seenCheckpoint.newest()
  // Read behind what was seen, a sound database has it.
  const earlier = await findNewestCheckpoint(database.read)
  if (seen !== undefined && (earlier?.size ?? -1) < seen.size) throw isGone(seen.size)
  // Read behind the checkpoint, a sound head is not behind it.
  const head = await readTreeHead(database.read)
  checkStatements(broker, earlier, head)
  if (earlier?.size === head.size) {
    await proveGrowth(broker, seen, head)
    seenCheckpoint.remember(earlier)
    return earlier
  }
  const tiles = await hashFullTiles(database.read, 1, head.size)
  if (!equal(await computeRoot(database.read, head.size, tiles), head.root)) {
    throw new InconsistentTree(`its ${head.size} entries do not have the root of its head`)
  }
  // Only now, for what is stored stays.
  await storeTreeHashes(broker, head.size, tiles)
  await proveGrowth(broker, earlier, head)
  // What another process has signed since, too.
  if (seen !== undefined && (seen.size !== earlier?.size || !equal(seen.root, earlier.root))) await proveGrowth(broker, seen, head)
  const made = { size: head.size, root: head.root, note: checkpointKey.sign(head) }
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
  if (result === undefined) throw isGone(earlier?.size)
  // What another process signed meanwhile is proven by the next run.
  if (result === made) seenCheckpoint.remember(made)
  return result
}

/** What can be told without the tree: throws `InconsistentTree` unless head and checkpoint say what they were written to say. */
function checkStatements({ checkpointKey: { verifier } }: Signing, earlier: StoredCheckpoint | undefined, { size, root, frontier }: TreeHead): void {
  if (!equal(root, rootOf(frontier))) throw new InconsistentTree(`the head of its ${size} entries has two roots`)
  if (earlier === undefined) return
  const signed = openCheckpoint(earlier.note, verifier)
  if (typeof signed === 'string' || signed.size !== earlier.size || !equal(signed.root, earlier.root)) {
    throw new InconsistentTree(`the checkpoint of ${earlier.size} entries is not as it was signed`)
  }
  if (size < earlier.size || (size === earlier.size && !equal(root, earlier.root))) throw doesNotGoOn(earlier, size)
}

/** The consistency proof that others will ask for, made and checked before anything is signed. */
async function proveGrowth({ database: { read } }: Signing, earlier: StoredCheckpoint | undefined, head: TreeHead): Promise<void> {
  if (earlier === undefined) return
  const proof: Uint8Array[] = []
  for (const node of earlier.size === 0 ? [] : consistencyNodes(earlier.size, head.size)) proof.push(await readNode(read, node))
  if (!verifyConsistency(earlier, head, proof)) throw doesNotGoOn(earlier, head.size)
}

function isGone(size: number | undefined): InconsistentTree {
  return new InconsistentTree(`its checkpoint of ${size} entries is gone`)
}

function doesNotGoOn(earlier: StoredCheckpoint, size: number): InconsistentTree {
  return new InconsistentTree(`its ${size} entries do not go on from the ${earlier.size} that were signed`)
}

// A statement of some milliseconds, under the head's lock.
const hashesPerCommit = 256

/** Stores the hashes of all full tiles of a tree of that size, level by level: 1/256 of a row for each entry. */
async function storeTreeHashes({ database: { read }, ledger }: Signing, size: number, tiles: readonly TreeHash[]): Promise<void> {
  for (let level = 1; tileWidth ** level <= size; level++) {
    const hashes = level === 1 ? tiles : await hashFullTiles(read, level, size)
    for (let at = 0; at < hashes.length; at += hashesPerCommit) {
      const some = hashes.slice(at, at + hashesPerCommit)
      await commit(
        { ledger },
        {
          async apply(tx) {
            await insertTreeHashes(tx, some)
            return { result: undefined, unrecorded: 'housekeeping' }
          },
        },
      )
    }
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
