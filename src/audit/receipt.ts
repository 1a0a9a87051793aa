import { z } from 'zod'
import { openCheckpoint, type Checkpoint, type CheckpointProblem } from './checkpoint.ts'
import { canonicalJson, leafHash, type JsonValue } from './encode.ts'
import { judgeGrantStory } from './grant-story.ts'
import type { NoteVerifier } from './note.ts'
import { verifyInclusion } from './proof.ts'
import type { StoryEntry } from './story.ts'

// 32 bytes in the one base64 that they have.
const hash = z.string().regex(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/, 'must be a hash of 32 bytes in base64')

/** One grant's events with what proves that they are in the tree of a checkpoint: one file, which verifies alone. */
export const receiptSchema = z
  .strictObject({
    receipt: z.literal(1).describe('The version of this form.'),
    grant: z.string(),
    entries: z
      .array(
        z.strictObject({
          index: z.int().min(0),
          body: z.string().describe('The very text of the entry: SHA-256 of a zero byte and its UTF-8 is the leaf (RFC 6962 §2.1).'),
          proof: z.array(hash).max(53).describe('The inclusion proof, from the leaf up (RFC 9162 §2.1.3).'),
        }),
      )
      .min(1)
      .describe('In order of index; the first one is grant.issued or grant.minting.'),
    left_out: z.int().min(1).optional().describe('How many more entries about the grant the log has, by its own word. Absent: none.'),
    checkpoint: z.string().describe('A C2SP signed note, with what witnesses have signed.'),
  })
  .meta({ id: 'Receipt' })

export type Receipt = z.output<typeof receiptSchema>

/** An entry with the hashes of its inclusion proof. */
export interface ProvenEntry {
  readonly index: number
  readonly body: string
  readonly proof: readonly Uint8Array[]
}

/** The receipt of a grant. `entries` are in order of index, `leftOut` tells how many more there are, `note` is the checkpoint. */
export function makeReceipt(grant: string, entries: readonly ProvenEntry[], leftOut: number, note: string): Receipt {
  return {
    receipt: 1,
    grant,
    entries: entries.map(({ index, body, proof }) => ({ index, body, proof: proof.map((node) => Buffer.from(node).toString('base64')) })),
    ...(leftOut > 0 && { left_out: leftOut }),
    checkpoint: note,
  }
}

/** What a receipt came to. */
export interface ReceiptVerdict {
  /** Whether all that a receipt can prove holds. */
  readonly ok: boolean
  readonly grant?: string
  /** Present once its signature was found good. */
  readonly checkpoint?: Checkpoint
  /** The entries that are in the tree of the checkpoint, as they stand in the receipt. */
  readonly indexes: readonly number[]
  readonly problems: readonly ReceiptProblem[]
  /** What holds, and what nobody can say by this receipt alone: a sentence each. Nothing where something is wrong. */
  readonly proven: readonly string[]
  readonly unproven: readonly string[]
}

/** One thing that is wrong with a receipt, and the entry that it is wrong with. */
export interface ReceiptProblem {
  readonly index?: number
  /** What the entry does wrong, to stand behind its name; without an entry a whole sentence. */
  readonly problem: string
}

/**
 * Checks a receipt by itself, against the log's public key that the auditor holds: the checkpoint's signature, that each entry
 * is in its tree as it stands there, and that these entries tell the story of this one grant. It proves that they are in the
 * log, and cannot prove that the log has no others about the grant.
 */
export function verifyReceipt(receipt: unknown, verifier: NoteVerifier): ReceiptVerdict {
  const parsed = receiptSchema.safeParse(receipt)
  if (!parsed.success) return refuse(describeForm(parsed.error))
  const { grant, entries, left_out: leftOut = 0, checkpoint: note } = parsed.data
  const checkpoint = openCheckpoint(note, verifier)
  if (typeof checkpoint === 'string') return { ...refuse(describeCheckpoint(checkpoint, verifier)), grant }
  const read = entries.map((entry, i) => readEntry(entry, checkpoint, entries[i - 1]?.index))
  const problems: ReceiptProblem[] = read.flatMap((entry, i) => {
    return typeof entry === 'string' ? [{ index: entries[i]?.index ?? i, problem: entry }] : []
  })
  const indexes = entries.map(({ index }) => index).filter((_, i) => typeof read[i] === 'object')
  // What is not in the log tells nothing, and without it the rest makes no story.
  const story = problems.length === 0 ? judgeGrantStory(grant, read.filter((entry) => typeof entry === 'object')) : undefined
  problems.push(...(story?.problems ?? []))
  const verdict = { ok: problems.length === 0, grant, checkpoint, indexes, problems }
  if (!verdict.ok || story === undefined) return { ...verdict, proven: [], unproven: [] }
  return { ...verdict, proven: [describeProof(indexes, checkpoint), ...story.proven], unproven: [...story.unproven, ...describeLimits(leftOut, checkpoint)] }
}

/** The entry as what it says, or what is wrong with it. */
function readEntry({ index, body, proof }: Receipt['entries'][0], { size, root }: Checkpoint, before: number | undefined): StoryEntry | string {
  if (before !== undefined && index <= before) return `stands behind entry ${before}: out of order, or a second time`
  if (index >= size) return `is not in the tree that was signed, which has only ${size} entries, counted from 0`
  const hashes = proof.map((text) => Buffer.from(text, 'base64'))
  // Half a surrogate pair has no bytes: as UTF-8 it would pass for the character that stands for all that is unreadable.
  if (!body.isWellFormed() || !verifyInclusion(leafHash(Buffer.from(body)), index, size, hashes, root)) {
    return `is not in the tree of ${size} entries that was signed: its text, its place or its proof was changed`
  }
  const event = parseBody(body)
  if (event === undefined) return 'is in the tree, and is no entry that Stint has written'
  if (event.index !== index) return `calls itself entry ${event.index}`
  return event
}

const commonMembers = z.looseObject({ v: z.literal(1), index: z.int(), time: z.string(), type: z.string() })

/** What a body says; `undefined` unless it is an event in canonical JSON, which means the same to every reader. */
function parseBody(body: string): StoryEntry | undefined {
  try {
    // What JSON.parse makes is JSON.
    const value = JSON.parse(body) as JsonValue
    return canonicalJson(value) === body ? commonMembers.safeParse(value).data : undefined
  } catch {
    return undefined
  }
}

function refuse(problem: string): ReceiptVerdict {
  return { ok: false, indexes: [], problems: [{ problem }], proven: [], unproven: [] }
}

function describeForm({ issues: [issue] }: z.ZodError): string {
  const place = issue?.path.join('.') ?? ''
  const [member] = issue?.code === 'unrecognized_keys' ? issue.keys : []
  const message = member === undefined ? (issue?.message ?? '') : `has a member ${JSON.stringify(member.slice(0, 64))}, which a receipt has not`
  return `This is no receipt that this program knows: ${place === '' ? 'it' : place} ${message}.`
}

function describeCheckpoint(problem: CheckpointProblem, { name }: NoteVerifier): string {
  switch (problem) {
    case 'no checkpoint':
      return 'The checkpoint of this receipt is none.'
    case 'another log':
      return `The checkpoint of this receipt is of another log than ${name}, which the key is for.`
    case 'not signed by this key':
      return 'The checkpoint of this receipt was not signed by the key that was given.'
  }
}

function describeProof(indexes: readonly number[], { origin, size }: Checkpoint): string {
  const entries = indexes.length === 1 ? `Entry ${indexes[0]} is` : `The ${indexes.length} entries of this receipt are`
  return `${entries} in the tree of ${size} entries that ${origin} has signed, word for word.`
}

function describeLimits(leftOut: number, { size }: Checkpoint): string[] {
  const more = `That the log has nothing else about this grant, be it among its ${size} entries or after them: an export of the whole log shows that.`
  if (leftOut === 0) return [more]
  return [`What ${leftOut} more ${leftOut === 1 ? 'entry' : 'entries'} about this grant ${leftOut === 1 ? 'says' : 'say'}, which the broker has left out.`, more]
}
