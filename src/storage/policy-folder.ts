import { constants } from 'node:fs'
import { open, readdir, stat } from 'node:fs/promises'
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

  async function readFolder(path: string, depth: number): Promise<void> {
    const entries = await readdir(join(folder, path), { withFileTypes: true })
    for (const entry of entries.sort((a, b) => compareText(a.name, b.name))) {
      const inner = path === '' ? entry.name : `${path}/${entry.name}`
      if (entry.name.startsWith('.')) continue
      if (entry.isSymbolicLink()) refuse(inner, 'is a symbolic link: put the file itself here')
      else if (entry.isDirectory()) {
        if (depth >= depthMax) refuse(inner, `is nested deeper than ${depthMax} folders`)
        else await readFolder(inner, depth + 1)
      } else if (entry.name === 'README.md') continue
      else if (!entry.isFile()) refuse(inner, 'is not a regular file')
      else if (kindOfFile(inner) === undefined) refuse(inner, describeMisplaced(inner))
      else if (texts.size >= filesMax || bytes > totalBytesMax) return refuse('.', 'the folder holds too many or too large files')
      else {
        const content = await readBounded(join(folder, inner))
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

  await requireFolder(folder)
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

/** The file's bytes, or why it is refused. Its size is what was read: what `stat` says may change until then. */
async function readBounded(path: string): Promise<Buffer | string> {
  // Between listing and opening, the name may have become a link or a pipe: neither is followed nor waited for.
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch((error: unknown) => {
    return error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
  })
  if (typeof file === 'string') return file === 'ELOOP' ? 'is a symbolic link: put the file itself here' : `cannot be read (${file})`
  try {
    if (!(await file.stat()).isFile()) return 'is not a regular file'
    const buffer = Buffer.alloc(fileBytesMax + 1)
    let length = 0
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length)
      if (bytesRead === 0) return Buffer.from(buffer.subarray(0, length))
      length += bytesRead
    }
    return `is larger than ${fileBytesMax} bytes: split it`
  } finally {
    await file.close()
  }
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
