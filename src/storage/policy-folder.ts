import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { lstat, open, readdir, readlink, realpath, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { BrokerError } from '../kernel/errors.ts'
import { compareText, formatProblem, quote, type PolicyProblem } from '../policy/problem.ts'
import { fileBytesMax, kindOfFile, totalBytesMax, type PolicyFiles } from '../policy/policy-set.ts'

const filesMax = 10_000
const depthMax = 16

/**
 * Reads a policy folder: `*.cedar` at any depth, `tools/*.yaml`, `tests/*.yaml`, in the order of their paths. README.md
 * and names that begin with a dot are left aside; anything else that would silently not count is refused, and so are
 * symbolic links, which could lead out of the folder. Throws `config_invalid` where there is no such folder, and
 * `policy_invalid` with all problems in `extra.problems`.
 */
export async function readPolicyFolder(folder: string): Promise<PolicyFiles> {
  const problems: PolicyProblem[] = []
  const refuse = (file: string, message: string): void => void problems.push({ file, line: 1, column: 1, message })
  const texts = new Map<string, string>()
  let bytes = 0
  await requireFolder(folder)
  // Resolved once: where the folder is a link that moves on, all files are of one place.
  const root = await realpath(folder).catch((cause: unknown) => {
    throw unreadable(folder, cause)
  })

  async function readFolder(path: string, depth: number): Promise<void> {
    const entries = await readdir(join(root, path), { withFileTypes: true })
    for (const entry of entries.sort((a, b) => compareText(a.name, b.name))) {
      const inner = path === '' ? entry.name : `${path}/${entry.name}`
      if (entry.name.startsWith('.')) continue
      if (entry.isSymbolicLink()) refuse(inner, await describeLink(join(root, inner)))
      else if (entry.isDirectory()) {
        if (depth >= depthMax) refuse(inner, `is nested deeper than ${depthMax} folders`)
        else await readFolder(inner, depth + 1)
      } else if (entry.name === 'README.md') continue
      else if (!entry.isFile()) refuse(inner, 'is not a regular file')
      else if (kindOfFile(inner) === undefined) refuse(inner, describeMisplaced(inner))
      else if (texts.size >= filesMax || bytes > totalBytesMax) return refuse('.', 'the folder holds too many or too large files')
      else {
        const content = await readBounded(join(root, inner))
        if (typeof content === 'string') refuse(inner, content)
        else {
          bytes += content.length
          const text = decodeUtf8(content)
          if (text === undefined) refuse(inner, 'is not valid UTF-8 text')
          else texts.set(inner, text)
        }
      }
    }
  }

  try {
    await readFolder('', 0)
  } catch (cause) {
    throw unreadable(folder, cause)
  }
  if (problems.length > 0) {
    const [first] = problems
    throw new BrokerError({
      code: 'policy_invalid',
      publicMessage: `The policy folder ${quote(folder)} cannot be used. First problem: ${first === undefined ? '' : formatProblem(first)}`,
      extra: { problems },
    })
  }
  return new Map([...texts].sort(([a], [b]) => compareText(a, b)))
}

async function requireFolder(folder: string): Promise<void> {
  // A link to the folder itself is the operator's own choice (a mounted volume): only links within it are refused.
  const stats = await stat(folder).catch((cause: unknown) => {
    throw unreadable(folder, cause)
  })
  if (stats.isDirectory()) return
  throw new BrokerError({ code: 'config_invalid', publicMessage: `The policy folder ${quote(folder)} is not a folder.` })
}

function unreadable(folder: string, cause: unknown): BrokerError {
  if (cause instanceof BrokerError) return cause
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error'
  const publicMessage =
    code === 'ENOENT'
      ? `There is no policy folder ${quote(folder)}: name the folder that holds tools/*.yaml and *.cedar.`
      : `The policy folder ${quote(folder)} cannot be read (${code}).`
  return new BrokerError({ code: 'config_invalid', publicMessage, cause })
}

/** The file's bytes, or why it is refused. No part of its path was a link when it was listed. */
async function readBounded(path: string): Promise<Buffer | string> {
  // Between listing and opening, the name may have become a link or a pipe: neither is followed nor waited for.
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch((error: unknown) => {
    return error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
  })
  if (typeof file === 'string') return file === 'ELOOP' ? 'is a symbolic link: put the file itself here' : `cannot be read (${file})`
  try {
    const opened = await file.stat({ bigint: true })
    if (!opened.isFile()) return 'is not a regular file'
    // O_NOFOLLOW minds the last part of the path alone: a folder before it may have become a link out of the folder.
    const named = (await realpath(path).catch(() => undefined)) === path ? await lstat(path, { bigint: true }).catch(() => undefined) : undefined
    if (named?.ino !== opened.ino || named.dev !== opened.dev) return 'was moved while it was read: read the folder again once nothing moves in it'
    if (opened.size > fileBytesMax) return `is larger than ${fileBytesMax} bytes: split it`
    // One byte more than there should be: a file that grows meanwhile is found out, and read no further.
    const buffer = Buffer.alloc(Number(opened.size) + 1)
    let length = 0
    for (let bytesRead = -1; bytesRead !== 0 && length < buffer.length; length += bytesRead) {
      bytesRead = (await file.read(buffer, length, buffer.length - length)).bytesRead
    }
    return length === buffer.length - 1 ? buffer.subarray(0, length) : 'was written to while it was read: read the folder again once that is done'
  } finally {
    await file.close()
  }
}

/** What to do instead of linking. Kubernetes mounts each file of a ConfigMap as a link through one that is called `..data`. */
async function describeLink(path: string): Promise<string> {
  const target = await readlink(path).catch(() => '')
  if (!target.startsWith('..data/')) return 'is a symbolic link: put the file itself here'
  return 'is a link into a mounted volume, such as a ConfigMap: copy the files into a folder of their own, or use `stint policy apply`'
}

/**
 * A text that is another one whenever a file of the folder was changed, added, moved or taken away: made of names, sizes
 * and times, without reading a file. Never throws: what cannot be looked at is part of the text.
 */
export async function markPolicyFolder(folder: string): Promise<string> {
  const hash = createHash('sha256')
  let left = filesMax
  async function mark(path: string, depth: number): Promise<void> {
    const entries = await readdir(path, { withFileTypes: true })
    const named = entries.filter(({ name }) => !name.startsWith('.')).sort((a, b) => compareText(a.name, b.name))
    for (const entry of named) {
      const inner = join(path, entry.name)
      const { ino, size, mtimeNs, ctimeNs } = await lstat(inner, { bigint: true })
      hash.update(JSON.stringify([inner, `${ino} ${size} ${mtimeNs} ${ctimeNs}`]))
      if (--left < 0) return
      if (entry.isDirectory() && depth < depthMax) await mark(inner, depth + 1)
    }
  }
  await mark(folder, 0).catch((error: unknown) => hash.update(error instanceof Error && 'code' in error ? String(error.code) : String(error)))
  return hash.digest('hex')
}

function decodeUtf8(content: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content)
  } catch {
    return undefined
  }
}

function describeMisplaced(path: string): string {
  const name = path.split('/').at(-1) ?? path
  const stem = /^(.+?)\.(?:cedar|ya?ml)(?:\..*)?$/i.exec(name)?.[1]
  if (stem !== undefined && /\.cedar/i.test(name)) return `would not be read: rename it to ${quote(`${stem}.cedar`)}, or remove it`
  if (stem === undefined) return 'would not be read: rules are *.cedar, tools tools/*.yaml, tests tests/*.yaml, notes README.md'
  const place = /^(?:tools|tests)\/[^/]+$/.exec(path) === null ? undefined : path.split('/', 1)[0]
  const better = place === undefined ? `move it to tools/ or tests/ as ${quote(`${stem}.yaml`)}` : `rename it to ${quote(`${place}/${stem}.yaml`)}`
  return `would not be read: ${better}`
}
