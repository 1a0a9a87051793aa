import { isObject, readObject, type Shape } from './answer.ts'
import { clientError } from './errors.ts'
import type { Ends, LentGrant, ProlongedGrant } from './grant-records.ts'
import type { ApiAnswer } from './http.ts'

const lentShape: Shape = {
  grant: 'string',
  tool: 'string',
  actions: 'list of strings',
  target: 'string?',
  task: 'string?',
  issued_at: 'string',
  expires_at: 'string',
  renews: 'string?',
  ends: 'object',
  credential: 'object',
  environment: 'object',
  conceals: 'list of strings?',
  audit_index: 'number',
}

/** The credential in an answer. Throws `bad_answer`, with none of its values, for one that nobody could use. */
export function readLentGrant({ body }: ApiAnswer): LentGrant {
  const lent = readObject(body, lentShape, 'a grant')
  const ends = readObject(lent['ends'], { effect: 'string', delay_seconds: 'number?', tool_ends_at: 'string?', meaning: 'string' }, "a grant's end")
  const [target, task, renews] = ['target', 'task', 'renews'].map((name) => lent[name])
  return {
    grant: readId(lent['grant']),
    tool: String(lent['tool']),
    // The shape was checked; the type states the same.
    actions: lent['actions'] as readonly string[],
    ...(typeof target === 'string' && { target }),
    ...(typeof task === 'string' && { task }),
    issuedAt: readTime(lent['issued_at']),
    expiresAt: readTime(lent['expires_at']),
    ...(typeof renews === 'string' && { renews }),
    ends: ends as unknown as Ends,
    credential: readCredential(lent['credential']),
    environment: readEnvironment(lent['environment']),
    ...(lent['conceals'] !== undefined && { conceals: readNames(lent['conceals']) }),
    auditIndex: Number(lent['audit_index']),
  }
}

/** A grant that goes on with the same credential. */
export function readProlongedGrant({ body }: ApiAnswer): ProlongedGrant {
  const shape = { grant: 'string', expires_at: 'string', renewable_until: 'string', audit_index: 'number' } as const
  const prolonged = readObject(body, shape, 'a renewal')
  return {
    grant: readId(prolonged['grant']),
    expiresAt: readTime(prolonged['expires_at']),
    renewableUntil: readTime(prolonged['renewable_until']),
    auditIndex: Number(prolonged['audit_index']),
  }
}

/** It is written out for a person to paste into a shell. */
function readId(value: unknown): string {
  if (typeof value === 'string' && /^grant_[0-9a-z]{26}$/.test(value)) return value
  throw clientError('bad_answer', "the grant's id in the answer is malformed.")
}

function readTime(value: unknown): Date {
  const time = new Date(String(value))
  if (Number.isNaN(time.getTime())) throw clientError('bad_answer', 'a time in the answer is malformed.')
  return time
}

function readCredential(value: unknown): Readonly<Record<string, string | number>> {
  const entries = Object.entries(isObject(value) ? value : {})
  const fit = (entry: [string, unknown]): entry is [string, string | number] => typeof entry[1] === 'string' || typeof entry[1] === 'number'
  if (entries.every(fit)) return Object.fromEntries(entries)
  throw clientError('bad_answer', 'the credential in the answer has a member that is neither text nor a number.')
}

const variableName = /^[A-Za-z_]\w{0,127}$/

/** The shape was checked. A shell is told of them. */
function readNames(value: unknown): readonly string[] {
  const names = value as readonly string[]
  if (names.every((name) => variableName.test(name))) return names
  throw clientError('bad_answer', 'the answer conceals a variable that no process can have.')
}

/** Names that a shell takes as such, and values that a process can be given: a NUL would cut them short. */
function readEnvironment(value: unknown): Readonly<Record<string, string>> {
  const entries = Object.entries(isObject(value) ? value : {})
  const fit = (entry: [string, unknown]): entry is [string, string] => {
    return variableName.test(entry[0]) && typeof entry[1] === 'string' && !entry[1].includes('\0')
  }
  if (entries.every(fit)) return Object.fromEntries(entries)
  throw clientError('bad_answer', 'the environment in the answer has a variable that no process can be given.')
}
