import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { access, realpath, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { ConnectorError, type AllowedCommand } from '../connector.ts'

/** How a program came to its end. */
export interface ProgramEnd {
  /** `null` where a signal ended it. */
  readonly code: number | null
  readonly signal: string | null
  /** Whether the caller had it killed. */
  readonly calledOff: boolean
  readonly out: string
  /** Whether it wrote more to standard output than is read. */
  readonly overfull: boolean
  /** What it wrote to standard error, cut to as much as is read. */
  readonly err: string
}

const streamBytesMax = 64 * 1024
const saidLengthMax = 4_096
const closeMsMax = 1_000

/** Neither the broker's own variables nor its folder: what is secret there is no business of the program's. */
const environment = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' }

/**
 * Why a program must not be run, as words that follow its path: whoever can write it, or put another one in its place, would
 * be handed secrets and the broker's own rights. `undefined` where it may.
 */
export async function judgeProgram(path: string): Promise<string | undefined> {
  try {
    const real = await realpath(path)
    if (real !== path) return `leads to ${real}: the configuration names that instead`
    const file = await stat(path)
    if (!file.isFile()) return 'is no file'
    await access(path, constants.X_OK)
    for (let place = path; ; place = dirname(place)) {
      const { uid, mode } = await stat(place)
      if (uid !== 0 && uid !== process.getuid?.()) return `can be replaced by the owner of ${place}, who is neither root nor the user that Stint runs as`
      // In a folder with the sticky bit nobody renames what is another's.
      if ((mode & 0o022) !== 0 && (place === path || (mode & 0o1000) === 0)) return `can be replaced by others, who may write ${place}: chmod go-w ${place}`
      if (place === '/') return undefined
    }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    return code === 'ENOENT' ? 'is not there' : code === 'EACCES' ? 'may not be run by the user that Stint runs as' : `cannot be looked at (${code})`
  }
}

/**
 * Runs a program with one more argument and that text on standard input, in a process group of its own, which is killed when
 * the signal ends it and when the program has ended. Throws `ConnectorError` `nothing_done` where it could not be started.
 */
export async function runProgram({ path, args }: AllowedCommand, last: string, input: string, signal: AbortSignal): Promise<ProgramEnd> {
  const notStarted = (why: string, cause?: unknown): ConnectorError =>
    new ConnectorError({ outcome: 'nothing_done', publicMessage: `The program could not be started (${why}).`, cause })
  if (signal.aborted) throw notStarted('there was no time left')
  const child = spawn(path, [...args, last], { cwd: '/', env: environment, stdio: ['pipe', 'pipe', 'pipe'], detached: true })
  const { promise: ended, resolve, reject } = Promise.withResolvers<{ code: number | null; signal: string | null }>()
  const { pid } = child
  let running = true
  let calledOff = false
  const killGroup = (): void => {
    try {
      if (pid !== undefined) process.kill(-pid, 'SIGKILL')
    } catch {
      // Nobody is left in it.
    }
  }
  const onAbort = (): void => {
    calledOff = running
    killGroup()
  }
  signal.addEventListener('abort', onAbort, { once: true })
  const out = collect(child.stdout)
  const err = collect(child.stderr)
  const closed = Promise.all([out.ended, err.ended])
  child.once('error', (error) => reject(notStarted('code' in error ? String(error.code) : error.name, error)))
  child.once('exit', (code, by) => {
    running = false
    killGroup()
    resolve({ code, signal: by })
  })
  // Whoever does not read it has no use for it.
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  try {
    const end = await ended
    // Who has left the group may keep the streams open for ever.
    const patience = setTimeout(() => {
      child.stdout.destroy()
      child.stderr.destroy()
    }, closeMsMax)
    await closed
    clearTimeout(patience)
    return { ...end, calledOff, out: out.text(), overfull: out.overfull(), err: err.text() }
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

function collect(stream: NodeJS.ReadableStream): { readonly ended: Promise<void>; text(): string; overfull(): boolean } {
  const chunks: Buffer[] = []
  let bytes = 0
  const { promise: ended, resolve } = Promise.withResolvers<void>()
  // Read on to its end, so that the program is not held up by what nobody wants.
  stream.on('data', (chunk: Buffer) => {
    if (bytes < streamBytesMax) chunks.push(chunk.subarray(0, streamBytesMax - bytes))
    bytes += chunk.byteLength
  })
  stream.on('error', () => undefined)
  stream.once('close', resolve)
  return { ended, text: () => Buffer.concat(chunks).toString('utf8'), overfull: () => bytes > streamBytesMax }
}

const redactedLengthMin = 4
const needlesMax = 2_000

/**
 * What a program wrote to standard error, for the operator's log: on one line, not long, and without the secrets that it was
 * handed or made, in the forms in which programs print them (invariant 7).
 */
export function redactOutput({ err }: ProgramEnd, secrets: readonly string[]): string {
  const needles = [...new Set(secrets.flatMap(listForms))].sort((a, b) => b.length - a.length)
  // To look for all of them would take too long.
  if (needles.length > needlesMax) return '[redacted]'
  let text = err
  // Cut at the end of what is read, a secret is not to be found.
  if (Buffer.byteLength(err) >= streamBytesMax) text = text.slice(0, -Math.max(0, ...needles.map((needle) => needle.length)))
  for (const needle of needles) text = text.replaceAll(needle, '[redacted]')
  return text.trim().replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ').slice(0, saidLengthMax)
}

/** A value, its lines, the texts in it where it is JSON, the password where it is a URL; each also as programs escape it. */
function listForms(value: string): readonly string[] {
  const parts = [value, value.trim(), ...value.split(/[\r\n]+/), ...listTexts(value)]
  const forms = parts.flatMap((part) => [part, JSON.stringify(part).slice(1, -1), escapeForUrl(part), Buffer.from(part).toString('base64').replace(/=+$/, '')])
  return forms.filter((form) => form.trim().length >= redactedLengthMin)
}

function listTexts(value: string): readonly string[] {
  if (URL.canParse(value)) {
    const { password } = new URL(value)
    return [password, unescapeFromUrl(password)]
  }
  const texts: string[] = []
  try {
    JSON.parse(value, (_, inner: unknown) => {
      if (typeof inner === 'string') texts.push(inner)
      return inner
    })
  } catch {
    return []
  }
  return texts
}

function escapeForUrl(text: string): string {
  return text.isWellFormed() ? encodeURIComponent(text) : ''
}

function unescapeFromUrl(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return ''
  }
}
