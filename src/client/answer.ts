import { clientError } from './errors.ts'

type Kind = 'string' | 'number' | 'boolean' | 'object' | 'array' | 'list of strings'

/** The members that an answer must have; `?` after the kind: may be absent. */
export type Shape = Readonly<Record<string, Kind | `${Kind}?`>>

/**
 * The answer as an object that has at least these members, each of its kind; throws `bad_answer` otherwise. Members
 * beyond them are kept: a newer broker may say more.
 */
export function readObject(body: unknown, shape: Shape, what: string): Readonly<Record<string, unknown>> {
  if (!isObject(body)) throw badAnswer(what, 'it is no JSON object')
  for (const [name, expected] of Object.entries(shape)) {
    const value = Object.hasOwn(body, name) ? body[name] : undefined
    const optional = expected.endsWith('?')
    if (value === undefined && optional) continue
    const kind = optional ? expected.slice(0, -1) : expected
    if (!isOfKind(value, kind)) throw badAnswer(what, `its member "${name}" is not what it should be (${kind})`)
  }
  return body
}

/** Each element of a list in an answer, checked as `readObject` does. */
export function readObjects(list: unknown, shape: Shape, what: string): readonly Readonly<Record<string, unknown>>[] {
  if (!Array.isArray(list)) throw badAnswer(what, 'it is no list')
  return list.map((element: unknown) => readObject(element, shape, what))
}

/** The index of the entry that records a change, where the answer's headers name one. */
export function readAuditIndex(headers: Headers): { readonly audit_index?: number } {
  const index = headers.get('stint-audit-index')
  return index !== null && /^\d{1,15}$/.test(index) ? { audit_index: Number(index) } : {}
}

/** Whether a parsed JSON value is an object, and neither a list nor `null`. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isOfKind(value: unknown, kind: string): boolean {
  if (kind === 'object') return isObject(value)
  if (kind === 'array') return Array.isArray(value)
  if (kind === 'list of strings') return Array.isArray(value) && value.every((element) => typeof element === 'string')
  return typeof value === kind
}

function badAnswer(what: string, why: string): Error {
  return clientError('bad_answer', `the broker's answer cannot be used as ${what}: ${why}. Is the URL a Stint broker's?`)
}
