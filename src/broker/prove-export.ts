import { setTimeout as sleep } from 'node:timers/promises'
import { findSubtrees } from '../audit/merkle.ts'
import type { NodeRange } from '../audit/proof.ts'
import { BrokerError } from '../kernel/errors.ts'
import { readLeaves, readWindow, type EntryFilter, type IndexRange, type StoredLeaf } from '../storage/audit-windows.ts'
import { listCheckpointsAfter, listCosignatures, type StoredCheckpoint } from '../storage/checkpoints.ts'
import type { Database } from '../storage/engine.ts'
import { readHead } from '../storage/head.ts'
import { readPolicyText } from '../storage/policy-sets.ts'
import { createTileReader, type ReadRoot } from '../storage/tile-reader.ts'
import { MissingHashes } from '../storage/tree.ts'
import type { Broker, Caller } from './broker.ts'
import { reachCheckpoint, takePlace, type ExportRange } from './export-audit.ts'

/** The entries of an export: those of `first` to `last` that fit the filter. */
export interface ProvenSelection extends EntryFilter, ExportRange {}

/** What proves an export. */
export interface ExportProof {
  /** The checkpoint that it leads to, and the last line of it. */
  readonly checkpoint: StoredCheckpoint
  /** The proof, whole lines of JSON, page by page until the signal ends it. Between pages nothing is held open. */
  readPages(signal: AbortSignal): AsyncGenerator<string, void>
  /** Makes room for another export; to be called once this one is over, however it ended. */
  end(): void
}

/**
 * The smallest checkpoint that covers these indexes: the same whenever it is asked for, so that a proof can be had again.
 * While the ledger is held, the newest one that there is. Throws `invalid_input` for indexes that the log does not have, and
 * `not_found` where nothing was ever signed.
 */
export async function findProvingCheckpoint(broker: Broker, { first, last }: ExportRange): Promise<StoredCheckpoint> {
  const { read } = broker.database
  const { size } = await readHead(read)
  if (first > size || last >= size || last < first - 1) {
    const publicMessage = `No export goes from ${first} to ${last}: the log has ${size} entries, counted from 0, and what is empty ends right before it begins.`
    throw new BrokerError({ code: 'invalid_input', publicMessage })
  }
  const newest = await reachCheckpoint(broker, last + 1)
  const [smallest = newest] = await listCheckpointsAfter(read, last, 1)
  if (smallest !== undefined) return smallest
  throw new BrokerError({ code: 'not_found', publicMessage: 'There is no checkpoint to prove an export by: the log is held, and was never signed.' })
}

/**
 * Begins the proof of an export: the policy sets that were in force, the hashes of its entries, by which one that is changed
 * can be named, the hashes of what the tree has and the file has not, and the checkpoint. It shows no more than the export did, which was recorded, and is no event itself. Throws
 * `rate_limited` when too many exports are running, and as `findProvingCheckpoint` does.
 */
export async function proveExport(broker: Broker, caller: Caller, selection: ProvenSelection): Promise<ExportProof> {
  const end = takePlace(broker, caller)
  try {
    const checkpoint = await findProvingCheckpoint(broker, selection)
    return { checkpoint, end, readPages: (signal) => readPages(broker, selection, checkpoint, signal) }
  } catch (error) {
    end()
    throw error
  }
}

type Read = Database['read']
/** To be awaited after each piece of work. */
type GiveWay = () => Promise<void>

const pageCharacters = 16 * 1024

async function* readPages(
  { database: { read }, log }: Broker,
  { first, last, ...filter }: ProvenSelection,
  { size, note }: StoredCheckpoint,
  signal: AbortSignal,
): AsyncGenerator<string, void> {
  const giveWay = createGiveWay(signal)
  for await (const hash of findPolicySets(read, { first, last }, giveWay)) {
    const files = await readPolicyText(read, hash)
    if (files !== undefined) yield `{"policy_set":${JSON.stringify(hash)},"files":${files}}\n`
  }
  const entries = { first, last: Math.min(last, size - 1) }
  yield* formatLeaves(findLeaves(read, filter, entries, giveWay))
  const readRoot = createTileReader(read, size)
  let page = ''
  for await (const gap of findGaps(findHeld(read, filter, entries, giveWay), size)) {
    try {
      page += formatGap(gap, await readRoots(gap, readRoot, giveWay))
    } catch (error) {
      // Of a log that was tampered with the rest is given: whoever verifies the file will find that this is missing.
      if (!(error instanceof MissingHashes)) throw error
      log.warn('a proof goes without hashes that the tree lacks', { gap, error })
    }
    if (page.length < pageCharacters) continue
    yield page
    page = ''
  }
  const cosignatures = await listCosignatures(read, size)
  yield `${page}${JSON.stringify({ checkpoint: note + cosignatures.join('') })}\n`
}

const leavesPerLine = 256

/** Lines as long as they may be, and the same whenever they are asked for. */
async function* formatLeaves(windows: AsyncIterable<readonly StoredLeaf[]>): AsyncGenerator<string, void> {
  let held: Uint8Array[] = []
  for await (const leaves of windows) {
    for (const { leafHash } of leaves) {
      // What somebody has made of it is no hash. That one is missing then says so.
      if (leafHash.length === 32) held.push(leafHash)
      if (held.length < leavesPerLine) continue
      yield formatList(held)
      held = []
    }
  }
  if (held.length > 0) yield formatList(held)
}

function formatList(leaves: readonly Uint8Array[]): string {
  return `${JSON.stringify({ leaves: Buffer.concat(leaves).toString('base64') })}\n`
}

function formatGap({ start, end }: NodeRange, roots: readonly Uint8Array[]): string {
  return `${JSON.stringify({ gap: [start, end], hashes: roots.map((root) => Buffer.from(root).toString('base64')) })}\n`
}

async function readRoots({ start, end }: NodeRange, readRoot: ReadRoot, giveWay: GiveWay): Promise<Uint8Array[]> {
  const roots: Uint8Array[] = []
  for (const subtree of findSubtrees(start, end)) {
    roots.push(await readRoot(subtree))
    await giveWay()
  }
  return roots
}

const workMsMax = 5

/** However fast the reader is, a proof takes no more than half of the thread that issues tokens. */
function createGiveWay(signal: AbortSignal): GiveWay {
  let begunAt = performance.now()
  return async () => {
    signal.throwIfAborted()
    const workedMs = performance.now() - begunAt
    if (workedMs < workMsMax) return
    await sleep(workMsMax)
    begunAt = performance.now()
  }
}

const lookedMax = 512

/** The leaves of the entries that the file has, in order. */
async function* findLeaves(read: Read, filter: EntryFilter, { first, last }: ExportRange, giveWay: GiveWay): AsyncGenerator<readonly StoredLeaf[], void> {
  for (let rest: IndexRange | undefined = { after: first - 1, before: last + 1 }; rest !== undefined; ) {
    const window: Awaited<ReturnType<typeof readLeaves>> = await readLeaves(read, filter, rest, lookedMax)
    yield window.leaves
    rest = window.rest
    await giveWay()
  }
}

/** The runs of indexes that the file has, in order. An export without a filter leaves nothing out. */
async function* findHeld(read: Read, filter: EntryFilter, range: ExportRange, giveWay: GiveWay): AsyncGenerator<NodeRange, void> {
  if (Object.keys(filter).length === 0) {
    if (range.first <= range.last) yield { start: range.first, end: range.last + 1 }
    return
  }
  for await (const leaves of findLeaves(read, filter, range, giveWay)) {
    for (const { index } of leaves) yield { start: index, end: index + 1 }
  }
}

/** The runs between those, up to `size`. */
async function* findGaps(held: AsyncIterable<NodeRange>, size: number): AsyncGenerator<NodeRange, void> {
  let next = 0
  for await (const { start, end } of held) {
    if (next < Math.min(start, size)) yield { start: next, end: Math.min(start, size) }
    next = end
  }
  if (next < size) yield { start: next, end: size }
}

const setsLookedMax = 64

/** The hashes of the policy sets that were in force at some time in the range, each once, in the order in which they came. */
async function* findPolicySets(read: Read, { first, last }: ExportRange, giveWay: GiveWay): AsyncGenerator<string, void> {
  if (last < first) return
  const applied = { type: 'policy.applied' } as const
  const given = new Set<string>()
  const { entries: before } = await readWindow(read, applied, { after: -1, before: first + 1 }, 'desc', 1)
  let found = before
  for (let rest: IndexRange | undefined = { after: first, before: last + 1 }; ; ) {
    for (const { body } of found) {
      const hash = readPolicySet(body)
      if (hash === undefined || given.has(hash)) continue
      given.add(hash)
      yield hash
    }
    await giveWay()
    if (rest === undefined) return
    const window: Awaited<ReturnType<typeof readWindow>> = await readWindow(read, applied, rest, 'asc', setsLookedMax)
    found = window.entries
    rest = window.rest
  }
}

/** The hash in such an entry; `undefined` where somebody has changed it into something else. */
function readPolicySet(body: string): string | undefined {
  try {
    // Whatever it is, it is only looked up.
    const { policy_set: hash } = JSON.parse(body) as { policy_set?: unknown }
    return typeof hash === 'string' && /^[0-9a-f]{64}$/.test(hash) ? hash : undefined
  } catch {
    return undefined
  }
}
