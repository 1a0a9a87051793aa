import { setImmediate as yieldTurn } from 'node:timers/promises'
import { findSubtrees, rootOf } from '../audit/merkle.ts'
import { inclusionNodes, type NodeRange } from '../audit/proof.ts'
import { makeReceipt, verifyReceipt, type ProvenEntry, type Receipt } from '../audit/receipt.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { readWindow, type IndexRange, type StoredEntry } from '../storage/audit-windows.ts'
import { findNewestCheckpoint, listCosignatures, type StoredCheckpoint } from '../storage/checkpoints.ts'
import { findGrant, type StoredGrant } from '../storage/grants.ts'
import { readHead } from '../storage/head.ts'
import { createTileReader, type ReadRoot } from '../storage/tile-reader.ts'
import { MissingHashes } from '../storage/tree.ts'
import type { Broker } from './broker.ts'
import { requireCheckpoint } from './checkpoints.ts'

type Reading = Pick<Broker, 'database' | 'ledger' | 'checkpointKey' | 'seenCheckpoint' | 'log'>

/**
 * The receipt of a grant: its entries under a checkpoint that covers them, each with the proof that it is in that tree. Of one
 * that many have asked about it has the first and the last of those entries, and its life all the same. Where nothing can
 * be signed, as while the ledger is held, the newest checkpoint that there is must do, and what came after it is left out. It
 * shows no more than a search of the log does, and is no event either. Throws `not_found`, and `unavailable` rather than give
 * a receipt that does not verify.
 */
export async function readReceipt(broker: Reading, id: string): Promise<Receipt> {
  const { database: { read }, checkpointKey } = broker
  const grant = await findGrant(read, id)
  if (grant === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no grant ${id}.` })
  const found = await collectEntries(broker, grant)
  const { size, note } = await findCheckpoint(broker, grant, (found.entries.at(-1)?.index ?? grant.issuedIndex) + 1)
  const covered = found.entries.filter(({ index }) => index < size)
  const leftOut = found.leftOut + found.entries.length - covered.length
  const proven = await proveEntries(broker, covered, size)
  const receipt = makeReceipt(id, proven, leftOut, [note, ...(await listCosignatures(read, size))].join(''))
  const { problems: [problem] } = verifyReceipt(receipt, checkpointKey.verifier)
  if (problem !== undefined) throw doesNotFit(problem.index === undefined ? problem.problem : `entry ${problem.index} ${problem.problem}`)
  return receipt
}

// Of the entries about one grant that others, or its own workload, can bring about at will, so many are given, and as many of
// those that tell its life: half of them the first ones, half the last ones.
const givenMax = 100
const lookedMax = 256
const atWill = /^(?:grant\.(?:renewed|denied)|.+\.refused)$/
const endings = ['grant.ended', 'grant.failed', 'grant.written_off']

interface Found {
  /** In order of index. */
  readonly entries: readonly StoredEntry[]
  readonly leftOut: number
}

/** Looks through all that the log has about a grant, however much that is: piece by piece, and keeps no more than is given. */
async function collectEntries({ database: { read } }: Reading, { id, issuedIndex, expiresAtMs, revokedIndex }: StoredGrant): Promise<Found> {
  const expiresAt = formatTime(expiresAtMs)
  const life = createExcerpt(revokedIndex)
  const others = createExcerpt()
  let [isOutside, isOver] = [false, false]
  const { size } = await readHead(read)
  for (let rest: IndexRange | undefined = { after: issuedIndex - 1, before: size }; rest !== undefined; ) {
    const window: Awaited<ReturnType<typeof readWindow>> = await readWindow(read, { grant: id }, rest, 'asc', lookedMax)
    for (const entry of window.entries) {
      isOutside ||= entry.type === 'grant.minting'
      // Revocations of many go on to fit a grant that was over long ago, and end nothing of it.
      if (entry.type === 'grants.revoked' && (isOutside ? isOver : entry.time >= expiresAt)) continue
      isOver ||= endings.includes(entry.type)
      ;(atWill.test(entry.type) ? others : life).add(entry)
    }
    rest = window.rest
    await yieldTurn()
  }
  const entries = [...life.entries(), ...others.entries()].toSorted((a, b) => a.index - b.index)
  return { entries, leftOut: life.leftOut() + others.leftOut() }
}

/** The first and the last of the entries that it is given, and in between the one of that index. */
function createExcerpt(index?: number) {
  const kept: StoredEntry[] = []
  let [chosen, leftOut]: [StoredEntry | undefined, number] = [undefined, 0]
  return {
    add(entry: StoredEntry): void {
      kept.push(entry)
      if (kept.length <= givenMax) return
      const [middle] = kept.splice(givenMax / 2, 1)
      if (middle?.index === index) chosen = middle
      else leftOut++
    },
    entries: (): readonly StoredEntry[] => (chosen === undefined ? kept : [...kept, chosen]),
    leftOut: () => leftOut,
  }
}

/** A checkpoint of that many entries or more, or else the newest one, if it covers the grant's issue. */
async function findCheckpoint(broker: Reading, { id, issuedIndex }: StoredGrant, size: number): Promise<StoredCheckpoint> {
  try {
    return await requireCheckpoint(broker, size)
  } catch (error) {
    const newest = await findNewestCheckpoint(broker.database.read)
    if (newest === undefined || newest.size <= issuedIndex) {
      const publicMessage = 'No checkpoint covers this grant yet, and none can be signed at the moment: /readyz tells why.'
      throw new BrokerError({ code: 'unavailable', publicMessage, cause: error })
    }
    broker.log.warn('no checkpoint could be signed for a receipt, which goes without what the newest one does not cover', { grant: id, size: newest.size, error })
    return newest
  }
}

/** The entries with their proofs in the tree of that size, which is signed. Throws `unavailable` where it is not whole. */
async function proveEntries({ database: { read } }: Reading, entries: readonly StoredEntry[], size: number): Promise<ProvenEntry[]> {
  const readRoot = createTileReader(read, size)
  // Neighbours share most of their proofs.
  const nodes = new Map<string, Uint8Array>()
  const proven: ProvenEntry[] = []
  for (const { index, body } of entries) {
    const proof: Uint8Array[] = []
    for (const node of inclusionNodes(index, size)) {
      const name = `${node.start}-${node.end}`
      const hash = nodes.get(name) ?? (await hashNode(node, readRoot).catch(refuseMissing))
      nodes.set(name, hash)
      proof.push(hash)
    }
    proven.push({ index, body, proof })
    await yieldTurn()
  }
  return proven
}

async function hashNode({ start, end }: NodeRange, readRoot: ReadRoot): Promise<Uint8Array> {
  const roots: Uint8Array[] = []
  for (const subtree of findSubtrees(start, end)) roots.push(await readRoot(subtree))
  return rootOf(roots)
}

function refuseMissing(error: unknown): never {
  throw error instanceof MissingHashes ? doesNotFit(error.message) : error
}

function doesNotFit(detail: string): BrokerError {
  const publicMessage = 'The log does not fit its own checkpoint, and no receipt of this grant would hold: take the log away by an export, and verify that.'
  return new BrokerError({ code: 'unavailable', publicMessage, detail })
}
