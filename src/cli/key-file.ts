import { randomUUID } from 'node:crypto'
import { closeSync, existsSync, fsyncSync, linkSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { generatePrivateJwk, importAgentKey, keyAlgorithms, type AgentKey, type KeyAlgorithm } from '../client/key.ts'
import { readPrivateFile } from '../kernel/private-file.ts'
import { CommandError, UsageError } from './command.ts'

/** The key in a file; `undefined` when there is no such file. Refuses a file that others can use, or without a key. */
export async function readKeyFile(path: string): Promise<AgentKey | undefined> {
  if (!existsSync(path)) return undefined
  const bytes = readPrivateFile(path, 'the private key')
  let jwk: unknown
  try {
    jwk = JSON.parse(bytes.toString('utf8'))
  } catch {
    // What JSON.parse says quotes the text, which may be most of a key.
    const need = 'it must hold one private JWK, as stint key create writes it'
    throw new CommandError(`the key file ${path} is not JSON: ${need}`)
  }
  return importAgentKey(jwk)
}

/** The algorithm of the option `--alg`, ES256 where it is not given. */
export function readAlgorithm(text: string | undefined): KeyAlgorithm {
  const alg = keyAlgorithms.find((candidate) => candidate === (text ?? 'ES256'))
  if (alg === undefined) throw new UsageError(`--alg must be ${keyAlgorithms.join(' or ')}.`)
  return alg
}

/**
 * Writes a new private key to a file that did not exist, readable by its owner alone. The file appears as a whole and is
 * on the disk before this returns: whoever finds it, whenever this was interrupted, finds a key.
 */
export async function createKeyFile(path: string, alg: KeyAlgorithm): Promise<AgentKey> {
  const jwk = await generatePrivateJwk(alg)
  const key = await importAgentKey(jwk)
  const unfinished = `${path}.${randomUUID()}`
  try {
    // 'wx' is O_CREAT|O_EXCL: follows no link that somebody has put there.
    const descriptor = openSync(unfinished, 'wx', 0o600)
    try {
      writeFileSync(descriptor, `${JSON.stringify(jwk, undefined, 2)}\n`)
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    // Unlike a rename, a link neither overwrites a key nor follows a link.
    linkSync(unfinished, path)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'EEXIST') throw new CommandError(`${path} exists already and is left as it is: choose another name`)
    throw new CommandError(`cannot make the key file ${path}: ${code === 'ENOENT' ? 'its folder does not exist' : code}`)
  } finally {
    rmSync(unfinished, { force: true })
  }
  syncFolder(path)
  return key
}

/** Puts the file with the key of that id in the place of another, of which nothing is left. Another run may have done so. */
export async function replaceKeyFile(from: string, to: string, kid: string): Promise<void> {
  try {
    renameSync(from, to)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT' || (await readKeyFile(to))?.kid !== kid) {
      const place = `the new key is registered and in ${from}, but could not be put in the place of ${to}`
      throw new CommandError(`${place} (${codeOf(error)}): run this again`)
    }
  }
  syncFolder(to)
}

/** So that the name of a file survives a power cut, like its content. */
function syncFolder(path: string): void {
  // There a folder cannot be opened.
  if (process.platform === 'win32') return
  const descriptor = openSync(dirname(path), 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error)
}
