import { openCheckpoint, parseCheckpoint } from '../audit/checkpoint.ts'
import { parseNote } from '../audit/note.ts'
import { AnchorFailure, type KeepingAnchor, type Kept } from '../connectors/anchors/anchor.ts'
import { readHead } from '../storage/head.ts'
import { listRestorations, type Restoration } from '../storage/restorations.ts'
import { computeRoot, hashFullTiles, MissingHashes } from '../storage/tree.ts'
import type { Broker } from './broker.ts'

/** A checkpoint that an anchor has and that is not of this log. */
export interface Contradiction {
  readonly anchor: string
  readonly size: number
  /** Base64. */
  readonly root?: string
  /** For the operator: what it looks like. */
  readonly why: string
  /** When the anchor kept it, by its own clock, as far as it tells. */
  readonly atMs?: number
}

export type Verdict =
  | { readonly status: 'of this log'; readonly size: number }
  | { readonly status: 'contradicts'; readonly contradiction: Contradiction }
  /** An admin has accepted that the log goes on without it. */
  | { readonly status: 'accepted' }

type Judging = Pick<Broker, 'database' | 'checkpointKey'>

/**
 * Whether the newest checkpoint of an anchor is one of this log. Throws `AnchorFailure` where it is no checkpoint at all, or
 * one that this log's key has not signed at an address that others answer for, which is no evidence: they could stop all
 * issuance with it. A file is the operator's own. Throws it, too, for one that is accepted, but of a log that must not be
 * mixed with this one.
 */
export async function judgeKept(
  { database: { read }, checkpointKey }: Judging,
  { kind, name: anchor }: Pick<KeepingAnchor, 'kind' | 'name'>,
  { note, atMs }: Kept,
): Promise<Verdict> {
  const signed = parseNote(note)
  const checkpoint = signed && parseCheckpoint(signed.text)
  if (checkpoint === undefined) throw new AnchorFailure(`${anchor} does not have a checkpoint as its newest, but something else`)
  const { origin, size, root } = checkpoint
  const ownSignature = typeof openCheckpoint(note, checkpointKey.verifier) !== 'string'
  if (kind === 'http' && !ownSignature) {
    throw new AnchorFailure(
      `${anchor} has a checkpoint of ${size} entries of ${origin.slice(0, 200)} that the key of this log has not signed: correct anchors if it is of another broker, or of a database before this one; if not, ask who runs it`,
    )
  }
  const foreign = origin !== checkpointKey.origin
  // Behind the note, a head that is sound is not behind it.
  const why = foreign
    ? `${anchor} has checkpoints of another log, ${origin.slice(0, 200)}: correct anchors`
    : await findDifference(read, { size, root }, ownSignature)
  if (why === undefined) return { status: 'of this log', size }
  const contradiction = {
    anchor,
    size,
    root: Buffer.from(root).toString('base64'),
    why: foreign ? why : `${anchor} ${why}`,
    ...(atMs !== undefined && { atMs }),
  }
  if (!isAccepted(contradiction, await listRestorations(read))) return { status: 'contradicts', contradiction }
  // It may well be what another broker relies on.
  if (foreign) throw new AnchorFailure(why)
  return { status: 'accepted' }
}

/** What tells a checkpoint from this log's tree, or `undefined` for one that is of it. */
async function findDifference(
  read: Judging['database']['read'],
  { size, root }: { readonly size: number; readonly root: Uint8Array },
  ownSignature: boolean,
): Promise<string | undefined> {
  const { size: there } = await readHead(read)
  const has = `has a checkpoint of ${size} entries`
  if (size > there && ownSignature) return `${has}, and this log has ${there}: this looks like a restored backup`
  const other = `this is not the log that was anchored`
  if (size > there) return `${has} that the key of this log has not signed: ${other}`
  try {
    const own = await computeRoot(read, size, await hashFullTiles(read, 1, size))
    return Buffer.compare(own, root) === 0 ? undefined : `${has}, which this log does not go on from: ${other}`
  } catch (error) {
    if (error instanceof MissingHashes) return `${has}, with which this log cannot be compared, for ${error.message}`
    throw error
  }
}

/** Whether an admin has accepted exactly this, be it of another anchor. */
export function isAccepted({ size, root }: Pick<Contradiction, 'size' | 'root'>, restorations: readonly Restoration[]): boolean {
  return restorations.some(({ abandoned }) => abandoned.some((accepted) => accepted.size === size && accepted.root === root))
}
