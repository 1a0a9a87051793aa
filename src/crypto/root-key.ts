import { createHmac, type KeyObject } from 'node:crypto'
import { constants } from 'node:fs'
import { open, unlink, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { decodeBase64url, encodeBase64url } from '../identity/base64url.ts'
import { BrokerError } from '../kernel/errors.ts'
import { systemRandom, type RandomBytes } from '../kernel/ids.ts'
import { readPrivateFile } from '../kernel/private-file.ts'
import { importKey, unwrapSealingKey, wrapSealingKey } from './seal.ts'

/** What wraps the sealing keys, and never seals anything else. */
export interface RootKey {
  /** Tells it from other root keys, and tells nothing of the key: it stands in the database and in the log. */
  readonly name: string
  /** The sealing key as the database keeps it. It opens as this version only. Throws as `unwrap` does. */
  wrap(sealingKey: KeyObject, version: number): Promise<string>
  /**
   * The sealing key, or `undefined` where this root key did not wrap it as this version. Throws `unavailable` while the root
   * key cannot be asked, and `config_invalid` where somebody has to do something before it can.
   */
  unwrap(wrapped: string, version: number): Promise<KeyObject | undefined>
}

/** Where the root key comes from: a file's path or an environment variable's name. */
export type RootKeySource = { readonly file: string } | { readonly env: string }

const keyBytes = 32

/** The root key of these 32 bytes, as they come from a file or from the environment. */
export function createRawRootKey(bytes: Uint8Array, random: RandomBytes = systemRandom): RootKey {
  const key = importKey(bytes)
  return {
    // Under another label than anything else that is ever made of these bytes; a part of the hash tells two of them apart.
    name: `raw:${createHmac('sha256', key).update('stint root key name').digest('hex').slice(0, 16)}`,
    wrap: async (sealingKey, version) => wrapSealingKey(key, sealingKey, version, random),
    unwrap: async (wrapped, version) => unwrapSealingKey(key, wrapped, version),
  }
}

/**
 * The root key, 32 bytes: hex, base64 or base64url text, or in a file the raw bytes. A file must be a regular one of
 * this user or of root, readable by nobody else. Throws `config_invalid`, whose message says what to do.
 */
export async function readRootKey(
  source: RootKeySource,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Uint8Array> {
  if ('file' in source) return judgeKey(readKeyFile(source.file), `The root key file ${source.file}`)
  const text = env[source.env]
  const where = `The environment variable ${source.env}`
  if (text === undefined || text.trim() === '') throw refuse(`${where} is not set; it must hold the root key`)
  return judgeKey(parseKeyText(text), where)
}

/** Makes a root key for development: a new file with mode 0600, on disk when this returns. Never replaces a file. */
export async function createRootKeyFile(path: string, random: RandomBytes = systemRandom): Promise<Uint8Array> {
  const key = random(keyBytes)
  const file = await openFile(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL)
  try {
    await file.chmod(0o600)
    await file.writeFile(`${encodeBase64url(key)}\n`)
    await file.sync()
  } catch (cause) {
    await unlink(path)
    throw refuse(`The root key file ${path} could not be written`, cause)
  } finally {
    await file.close()
  }
  // The name is in the folder, which has to be on disk as well: a key that is lost takes what it sealed with it.
  const folder = await openFile(dirname(path), constants.O_RDONLY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
  return key
}

function readKeyFile(path: string): Uint8Array | undefined {
  const bytes = readPrivateFile(path, 'the root key')
  const isRaw = bytes.length === keyBytes && !isText(bytes)
  return isRaw ? Uint8Array.from(bytes) : parseKeyText(bytes.toString('latin1'))
}

/** Whether all bytes are printable ASCII or white space: 32 such bytes are a passphrase or half a hex key, no raw key. */
function isText(bytes: Uint8Array): boolean {
  return bytes.every((byte) => (byte >= 0x20 && byte <= 0x7e) || (byte >= 0x09 && byte <= 0x0d))
}

/** The key in its text forms, a line's end or spaces around it allowed. `undefined` if the text is in none of them. */
function parseKeyText(text: string): Uint8Array | undefined {
  const trimmed = text.trim()
  if (/^[0-9a-fA-F]{64}$/.test(trimmed)) return Uint8Array.from(Buffer.from(trimmed, 'hex'))
  const unpadded = trimmed.replace(/=$/, '')
  const isUrlSafe = /[-_]/.test(unpadded)
  const bytes = decodeBase64url(isUrlSafe ? unpadded : unpadded.replaceAll('+', '-').replaceAll('/', '_'))
  return bytes?.length === keyBytes ? Uint8Array.from(bytes) : undefined
}

function judgeKey(key: Uint8Array | undefined, where: string): Uint8Array {
  if (key === undefined) {
    throw refuse(`${where} does not hold 32 random bytes in base64 or hex; make them with: openssl rand -base64 32`)
  }
  if (key.every((byte) => byte === key[0])) throw refuse(`${where} holds one byte 32 times, not a random key`)
  return key
}

async function openFile(path: string, flags: number): Promise<FileHandle> {
  try {
    return await open(path, flags, 0o600)
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error'
    if (code === 'EEXIST') throw refuse(`The root key file ${path} exists already and is not replaced`, cause)
    throw refuse(`The root key file ${path} cannot be made (${code})`, cause)
  }
}

function refuse(publicMessage: string, cause?: unknown): BrokerError {
  return new BrokerError({ code: 'config_invalid', publicMessage: `${publicMessage}.`, cause })
}
