import { closeSync, existsSync, fsyncSync, openSync, unlinkSync, writeFileSync } from 'node:fs'
import { importAgentKey, generatePrivateJwk, type AgentKey, type KeyAlgorithm } from '../client/key.ts'
import { readPrivateFile } from '../kernel/private-file.ts'
import { CommandError } from './command.ts'

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

/** Writes a new private key to a file that did not exist, readable by its owner alone. */
export async function createKeyFile(path: string, alg: KeyAlgorithm): Promise<AgentKey> {
  const jwk = await generatePrivateJwk(alg)
  const key = await importAgentKey(jwk)
  let descriptor: number
  try {
    // 'wx' is O_CREAT|O_EXCL: neither overwrites a key nor follows a link that somebody has put there.
    descriptor = openSync(path, 'wx', 0o600)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    if (code === 'EEXIST') throw new CommandError(`${path} exists already and is left as it is: choose another name`)
    throw new CommandError(`cannot make the key file ${path}: ${code === 'ENOENT' ? 'its folder does not exist' : code}`)
  }
  try {
    writeFileSync(descriptor, `${JSON.stringify(jwk, undefined, 2)}\n`)
    fsyncSync(descriptor)
  } catch (error) {
    unlinkSync(path)
    throw error
  } finally {
    closeSync(descriptor)
  }
  return key
}
