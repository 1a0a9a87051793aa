import { createPublicKey, hash, verify, type KeyObject } from 'node:crypto'

// A C2SP signed note (https://c2sp.org/signed-note): a text that ends with a newline, an empty line, and signature lines.

/** Whose signature a note is to have. */
export interface NoteVerifier {
  readonly name: string
  /** 4 bytes. */
  readonly keyId: Buffer
  readonly kind: SignatureKind
  readonly publicKey: KeyObject
}

/** What a key signs: the note's text, or as a witness the text behind a line with the time (https://c2sp.org/tlog-cosignature). */
export type SignatureKind = 'note' | 'cosignature'

export interface NoteSignature {
  readonly name: string
  readonly keyId: Buffer
  readonly signature: Buffer
}

export interface SignedNote {
  /** Ends with a newline: what is signed. */
  readonly text: string
  readonly signatures: readonly NoteSignature[]
}

const kindBytes: Record<SignatureKind, number> = { note: 1, cosignature: 4 }
const namePattern = /^[^\p{White_Space}+]+$/u
const signatureLine = /^\u2014 (\S+) ([A-Za-z0-9+/]+={0,2})$/u
/** Far more than a log with many witnesses needs. */
const noteBytesMax = 64 * 1024
const signaturesMax = 64

/** A note of that text and those signatures. */
export function formatNote({ text, signatures }: SignedNote): string {
  return `${text}\n${signatures.map(formatSignature).join('')}`
}

/** One signature as a line of a note, with its newline. */
export function formatSignature({ name, keyId, signature }: NoteSignature): string {
  return `\u2014 ${name} ${Buffer.concat([keyId, signature]).toString('base64')}\n`
}

/** Reads a note, or `undefined` for what is none. Its signatures are not checked. */
export function parseNote(note: string): SignedNote | undefined {
  if (note.length > noteBytesMax || !note.isWellFormed()) return undefined
  const split = note.lastIndexOf('\n\n')
  if (split === -1 || hasControls(note)) return undefined
  const signatures = parseSignatures(note.slice(split + 2))
  return signatures !== undefined && signatures.length > 0 ? { text: note.slice(0, split + 1), signatures } : undefined
}

/** Reads signature lines, as a witness answers them; `undefined` unless all of them are. */
export function parseSignatures(lines: string): NoteSignature[] | undefined {
  if ((lines !== '' && !lines.endsWith('\n')) || hasControls(lines)) return undefined
  const signatures: NoteSignature[] = []
  for (const line of lines.split('\n').slice(0, -1)) {
    const [, name, encoded] = signatureLine.exec(line) ?? []
    const bytes = Buffer.from(encoded ?? '', 'base64')
    if (name === undefined || !isNoteName(name) || bytes.length < 5 || bytes.toString('base64') !== encoded) return undefined
    signatures.push({ name, keyId: bytes.subarray(0, 4), signature: bytes.subarray(4) })
  }
  return signatures.length <= signaturesMax ? signatures : undefined
}

/** A public key as `name+hash+key`, the form in which verifiers are given it. `publicKey` is the 32 bytes of Ed25519. */
export function formatVerifierKey(name: string, publicKey: Uint8Array, kind: SignatureKind = 'note'): string {
  const key = Buffer.concat([Buffer.of(kindBytes[kind]), publicKey])
  return `${name}+${keyIdOf(name, key).toString('hex')}+${key.toString('base64')}`
}

/** Reads such a key, or `undefined` for what is none of an Ed25519 key, or whose hash does not fit. */
export function parseVerifierKey(text: string): NoteVerifier | undefined {
  const [, name, hex, encoded] = /^([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})$/u.exec(text) ?? []
  if (name === undefined || encoded === undefined || !isNoteName(name)) return undefined
  const key = Buffer.from(encoded, 'base64')
  const kind = key[0] === kindBytes.note ? 'note' : key[0] === kindBytes.cosignature ? 'cosignature' : undefined
  const keyId = keyIdOf(name, key)
  if (kind === undefined || key.length !== 33 || key.toString('base64') !== encoded || keyId.toString('hex') !== hex) return undefined
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: key.subarray(1).toString('base64url') }
  return { name, keyId, kind, publicKey: createPublicKey({ key: jwk, format: 'jwk' }) }
}

/** The signature by this key, if the note has one and none of this key that is bad; those of others are none of its business. */
export function findSignature({ text, signatures }: SignedNote, verifier: NoteVerifier): NoteSignature | undefined {
  const own = signatures.filter(({ name, keyId }) => name === verifier.name && keyId.equals(verifier.keyId))
  return own.every(({ signature }) => isGood(text, signature, verifier)) ? own[0] : undefined
}

/** Names have no Unicode space and no plus sign, and are not empty. */
export function isNoteName(name: string): boolean {
  return namePattern.test(name) && name.isWellFormed() && !hasControls(name)
}

/** The first 4 bytes of SHA-256 over name, newline, kind and key. `key` begins with the byte of its kind. */
export function keyIdOf(name: string, key: Uint8Array): Buffer {
  return hash('sha256', Buffer.concat([Buffer.from(`${name}\n`), key]), 'buffer').subarray(0, 4)
}

/** Whether there is a control character but the newline, which no note may hold. */
function hasControls(text: string): boolean {
  return [...text].some((character) => character < ' ' && character !== '\n')
}

function isGood(text: string, signature: Buffer, { kind, publicKey }: NoteVerifier): boolean {
  if (kind === 'note') return signature.length === 64 && verify(null, Buffer.from(text), publicKey, signature)
  if (signature.length !== 72 || signature.readBigInt64BE(0) < 0n) return false
  const signed = `cosignature/v1\ntime ${signature.readBigUInt64BE(0)}\n${text}`
  return verify(null, Buffer.from(signed), publicKey, signature.subarray(8))
}
