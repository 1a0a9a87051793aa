import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'
import { isObject } from '../client/answer.ts'
import type { BegunSession } from '../client/records.ts'
import { parseTime } from '../kernel/clock.ts'
import { readPrivateFile } from '../kernel/private-file.ts'
import { CommandError, type Io } from './command.ts'
import { replaceFile } from './replace-file.ts'

/** A session as `stint login` keeps it, for one broker. */
export interface SavedSession {
  readonly origin: string
  readonly credential: string
  readonly subject: string
  readonly role: string
  readonly expiresAtMs: number
}

/**
 * Where the session at a broker is kept: one file for each origin, below `$XDG_STATE_HOME` or the home folder. `undefined`
 * where the environment names neither.
 */
export function sessionPath(origin: string, { env }: Pick<Io, 'env'>): string | undefined {
  // The XDG specification has a path that is not absolute ignored.
  const state = [env['XDG_STATE_HOME']].find((path) => path !== undefined && isAbsolute(path))
  const home = env['HOME'] ?? env['USERPROFILE']
  const folder = state ?? (home === undefined || home === '' ? undefined : join(home, '.local', 'state'))
  // Encoded, two origins never share a file.
  return folder === undefined ? undefined : join(folder, 'stint', `${encodeURIComponent(origin)}.json`)
}

/** The path, where one is needed. */
export function requireSessionPath(origin: string, io: Pick<Io, 'env'>): string {
  const path = sessionPath(origin, io)
  if (path === undefined) throw new CommandError('there is no place to keep a session: set XDG_STATE_HOME, or HOME, to a folder of your own')
  return path
}

/** The session at a broker; `undefined` where there is no file. Refuses one that others can use, or of another form. */
export function readSession(origin: string, io: Pick<Io, 'env'>): SavedSession | undefined {
  const path = sessionPath(origin, io)
  if (path === undefined || !existsSync(path)) return undefined
  const text = readPrivateFile(path, "a session's credential").toString('utf8')
  const saved = parseSession(text)
  if (saved?.origin === origin) return saved
  throw new CommandError(`${path} holds no session at ${origin}: delete it, and run stint login`)
}

function parseSession(text: string): SavedSession | undefined {
  try {
    const saved: unknown = JSON.parse(text)
    if (!isObject(saved)) return undefined
    const { origin, credential, subject, role, expires_at: expiresAt } = saved
    const expiresAtMs = typeof expiresAt === 'string' ? parseTime(expiresAt) : undefined
    const texts = [origin, credential, subject, role]
    if (expiresAtMs === undefined || !texts.every((value) => typeof value === 'string')) return undefined
    return { origin: String(origin), credential: String(credential), subject: String(subject), role: String(role), expiresAtMs }
  } catch {
    // What JSON.parse says quotes the text, which may be most of a credential.
    return undefined
  }
}

/** Keeps a session, readable by its owner alone, in place of the one before. */
export function writeSession(origin: string, begun: BegunSession, io: Pick<Io, 'env'>): void {
  const path = requireSessionPath(origin, io)
  const { credential, session, subject, role, expires_at: expiresAt } = begun
  const text = `${JSON.stringify({ origin, credential, session, subject, role, expires_at: expiresAt }, undefined, 2)}\n`
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    replaceFile(path, text, 0o600)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    throw new CommandError(`you are signed in, but the session cannot be kept in ${path} (${code})`)
  }
}

/** Removes what is kept of a session. */
export function removeSession(origin: string, io: Pick<Io, 'env'>): void {
  rmSync(requireSessionPath(origin, io), { force: true })
}
