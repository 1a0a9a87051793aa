import { z } from 'zod'

/** A line of an export that proves its entries. */
export type ProofLine =
  | { readonly policySet: string; readonly files: ReadonlyMap<string, string> }
  | { readonly leaves: Uint8Array }
  | { readonly gap: { readonly start: number; readonly end: number; readonly hashes: readonly Uint8Array[] } }
  | { readonly note: string }

const policySet = z.strictObject({ policy_set: z.string().regex(/^[0-9a-f]{64}$/), files: z.record(z.string(), z.string()) })
const checkpoint = z.strictObject({ checkpoint: z.string() })

/** Reads such a line, or says what is wrong with it. */
export function parseProofLine(text: string): ProofLine | string {
  if (text.startsWith(leavesBegin)) return parseLeaves(text) ?? `is no list of hashes: it has leaves, 1 to ${leavesMax} hashes of 32 bytes as base64, and nothing else`
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return 'is no JSON'
  }
  if (text.startsWith('{"gap"')) return parseGap(value) ?? 'is no gap: it has gap, with two indexes, and hashes of 32 bytes as base64, and nothing else'
  const set = policySet.safeParse(value)
  if (set.success) return { policySet: set.data.policy_set, files: new Map(Object.entries(set.data.files)) }
  const note = checkpoint.safeParse(value)
  return note.success ? { note: note.data.checkpoint } : 'is no policy set and no checkpoint: it lacks a member, or has one too many'
}

const leavesBegin = '{"leaves":"'
const leavesEnd = '"}'
const leavesMax = 256

/** By hand and to the letter, for a file has 43 bytes of them for each entry. */
function parseLeaves(text: string): ProofLine | undefined {
  if (!text.endsWith(leavesEnd)) return undefined
  const encoded = text.slice(leavesBegin.length, -leavesEnd.length)
  const leaves = Buffer.from(encoded, 'base64')
  const isList = leaves.length > 0 && leaves.length % 32 === 0 && leaves.length <= 32 * leavesMax
  return isList && leaves.toString('base64') === encoded ? { leaves } : undefined
}

/** By hand, for a file may have millions of them. */
function parseGap(value: unknown): ProofLine | undefined {
  // It was JSON, and begins as an object; its members are looked at one by one.
  const { gap, hashes, ...rest } = value as Record<string, unknown>
  if (!Array.isArray(gap) || !Array.isArray(hashes) || gap.length !== 2 || Object.keys(rest).length > 0) return undefined
  const [start, end]: unknown[] = gap
  if (!isIndex(start) || !isIndex(end) || start >= end) return undefined
  const nodes = hashes.map((hash: unknown) => (typeof hash === 'string' ? Buffer.from(hash, 'base64') : Buffer.alloc(0)))
  if (nodes.some((node, i) => node.length !== 32 || node.toString('base64') !== hashes[i])) return undefined
  return { gap: { start, end, hashes: nodes } }
}

function isIndex(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}
