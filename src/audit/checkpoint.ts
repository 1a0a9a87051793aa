import { sign, type KeyObject } from 'node:crypto'
import { findSignature, formatNote, parseNote, type NoteVerifier } from './note.ts'

/** What a checkpoint states (https://c2sp.org/tlog-checkpoint): whose tree it is, how large, and its root. */
export interface Checkpoint {
  /** Names the log: `<trust domain>/log`. */
  readonly origin: string
  readonly size: number
  /** 32 bytes. */
  readonly root: Uint8Array
}

/** Names a broker's log: by its trust domain, which never changes, where its address may. */
export function originOf(trustDomain: string): string {
  return `${trustDomain}/log`
}

/** The text that is signed: three lines. */
export function formatCheckpoint({ origin, size, root }: Checkpoint): string {
  return `${origin}\n${size}\n${Buffer.from(root).toString('base64')}\n`
}

/** Reads a checkpoint's text, with what extension lines there may be behind; `undefined` for what is none. */
export function parseCheckpoint(text: string): Checkpoint | undefined {
  const [origin, digits, encoded, ...rest] = text.split('\n')
  if (origin === undefined || origin === '' || digits === undefined || !/^(?:0|[1-9]\d{0,15})$/.test(digits)) return undefined
  const size = Number(digits)
  const root = Buffer.from(encoded ?? '', 'base64')
  if (!Number.isSafeInteger(size) || root.length !== 32 || root.toString('base64') !== encoded) return undefined
  if (rest.at(-1) !== '' || rest.slice(0, -1).includes('')) return undefined
  return { origin, size, root }
}

/** Signs a checkpoint as a note. `key` is an Ed25519 private key, `keyId` the 4 bytes of its public half under that origin. */
export function signCheckpoint(checkpoint: Checkpoint, key: KeyObject, keyId: Buffer): string {
  const text = formatCheckpoint(checkpoint)
  return formatNote({ text, signatures: [{ name: checkpoint.origin, keyId, signature: sign(null, Buffer.from(text), key) }] })
}

/** Why a text is no checkpoint that can be believed. */
export type CheckpointProblem = 'no checkpoint' | 'another log' | 'not signed by this key'

/** The checkpoint in a note that this key has signed, or why there is none. */
export function openCheckpoint(note: string, verifier: NoteVerifier): Checkpoint | CheckpointProblem {
  const signed = parseNote(note)
  const checkpoint = signed && parseCheckpoint(signed.text)
  if (signed === undefined || checkpoint === undefined) return 'no checkpoint'
  if (checkpoint.origin !== verifier.name) return 'another log'
  return findSignature(signed, verifier) === undefined ? 'not signed by this key' : checkpoint
}
