import type { Context } from 'hono'
import { z } from 'zod'
import { parseTime, timeForm } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { nearestName } from '../kernel/nearest.ts'

/** A whole number in a query, within limits. */
export function wholeNumber(min: number, max: number) {
  return z
    .string()
    .regex(/^\d{1,16}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`)
    .meta({ type: 'integer', minimum: min, maximum: max, pattern: undefined })
}

/** An RFC 3339 date or date-time, as milliseconds since the epoch. */
export const instant = z
  .string()
  .transform((text, context) => {
    const ms = parseTime(text)
    if (ms !== undefined) return ms
    context.addIssue({ code: 'custom', message: 'must be a time such as 2026-11-21 or 2026-11-21T10:00:00Z' })
    return z.NEVER
  })
  .meta({ ...timeForm })

/** Text to look something up by: no control characters, of which PostgreSQL takes not all, and which no name has. */
export function searchText(max: number) {
  return shortText(max).regex(/^[^\p{Cc}]*$/u, 'must not hold control characters').meta({ pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]*$' })
}

/** Text of 1 to that many characters. */
export function shortText(max: number) {
  const message = `must be text of 1 to ${max} characters`
  return z.string({ error: message }).min(1, message).max(max, message)
}

/** One of the names of a closed set; another one is refused with the nearest, or with all of them. */
export function oneOf<const N extends string>(names: readonly N[]) {
  return z.enum(names, {
    error: ({ input }) => {
      const nearest = typeof input === 'string' ? nearestName(input, names) : undefined
      return nearest === undefined ? `must be one of ${names.join(', ')}` : `is not known; did you mean ${nearest}?`
    },
  })
}

/** Refuses a query where none is read: what is sent and ignored may be what the sender relies on (invariant 6). */
export function refuseQuery(c: Context): void {
  const [pair] = splitQuery(c)
  if (pair === undefined) return
  const [name = ''] = pair.split('=', 1)
  throw refuse(`This address takes no parameters in the URL, and ${show(name)} was sent.`)
}

/** Parses the query string. Throws `invalid_input` for what is unknown, sent twice or malformed (invariant 6). */
export function readQuery<S extends z.ZodObject>(c: Context, schema: S): z.output<S> {
  // Without a prototype, so that no name means anything by itself.
  const given = Object.create(null) as Record<string, string>
  for (const pair of splitQuery(c)) {
    const [name, value] = decodePair(pair) ?? []
    if (name === undefined || value === undefined) throw refuse('A parameter in the URL is not percent-encoded UTF-8 of the form name=value.')
    if (name in given) throw refuse(`The parameter ${show(name)} was sent twice.`)
    given[name] = value
  }
  return parseInput(schema, given)
}

function splitQuery(c: Context): string[] {
  const at = c.req.url.indexOf('?')
  const text = at === -1 ? '' : c.req.url.slice(at + 1)
  return text === '' ? [] : text.split('&')
}

/** Name and value of `name=value` in a query or a form; `undefined` where it has not that form, or is not UTF-8. */
export function decodePair(pair: string): readonly [string, string] | undefined {
  const at = pair.indexOf('=')
  if (at < 1) return undefined
  try {
    const [name, value] = [pair.slice(0, at), pair.slice(at + 1)].map((part) => decodeURIComponent(part.replaceAll('+', ' ')))
    return name === undefined || value === undefined ? undefined : [name, value]
  } catch {
    return undefined
  }
}

/** Parses a body or a query by its schema. Throws `invalid_input` that names every problem in `extra.problems`. */
export function parseInput<S extends z.ZodObject>(schema: S, value: unknown, code: InputErrorCode = 'invalid_input'): z.output<S> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map((issue) => {
    const path = issue.path.map(String).join('.')
    if (issue.code !== 'unrecognized_keys') return { path, message: issue.message }
    const [name = ''] = issue.keys
    const known = Object.keys(schema.shape)
    return { path: show(name), message: `is not known here; did you mean ${nearestName(name, known) ?? known.join(', ')}?` }
  })
  const [first] = problems
  throw refuse(first === undefined ? 'The request is not valid.' : `${first.path === '' ? 'The request' : first.path} ${first.message}`, { problems, code })
}

function show(name: string): string {
  return name.slice(0, 64).replaceAll(/[^\w.-]/g, '?')
}

type InputErrorCode = 'invalid_input' | 'invalid_request'

interface Refused {
  readonly code?: InputErrorCode
  readonly problems?: readonly { path: string; message: string }[]
}

function refuse(publicMessage: string, { code = 'invalid_input', problems }: Refused = {}): BrokerError {
  return new BrokerError({ code, publicMessage, ...(problems !== undefined && { extra: { problems } }) })
}
