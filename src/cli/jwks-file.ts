import { closeSync, openSync, readFileSync, fstatSync } from 'node:fs'
import { refusePrivateKeys } from '../client/key.ts'
import { CommandError, type Io } from './command.ts'

const bytesMax = 256 * 1024

/**
 * Reads a set of public keys from a file, or from standard input for `-`. A single public key becomes a set of one. A
 * private key is refused here, before anything is sent.
 */
export async function readJwks(path: string, io: Io): Promise<unknown> {
  const text = path === '-' ? await io.readInput() : readText(path)
  let jwks: unknown
  try {
    jwks = JSON.parse(text)
  } catch {
    const pem = text.includes('-----BEGIN ') ? ' (it is PEM)' : ''
    const need = 'a set of public keys (JWKS) is needed, as stint key public prints it'
    throw new CommandError(`${nameOf(path)} is not JSON${pem}: ${need}`)
  }
  refusePrivateKeys(jwks)
  if (typeof jwks !== 'object' || jwks === null || Array.isArray(jwks)) {
    throw new CommandError(`${nameOf(path)} is no set of public keys (JWKS), as stint key public prints it`)
  }
  return 'keys' in jwks ? jwks : { keys: [jwks] }
}

function readText(path: string): string {
  let descriptor: number
  try {
    descriptor = openSync(path, 'r')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    throw new CommandError(code === 'ENOENT' ? `there is no file ${path}` : `cannot read ${path}: ${code}`)
  }
  try {
    const found = fstatSync(descriptor)
    if (found.isDirectory()) throw new CommandError(`${path} is a folder: the file with the public keys is needed`)
    if (found.size > bytesMax) throw new CommandError(`${path} is too large to be a set of keys`)
    return readFileSync(descriptor, 'utf8')
  } finally {
    closeSync(descriptor)
  }
}

function nameOf(path: string): string {
  return path === '-' ? 'standard input' : path
}
