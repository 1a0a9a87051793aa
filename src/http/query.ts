import type { Context } from 'hono'
import { z } from 'zod'
import { parseTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { nearestName } from '../kernel/nearest.ts'

/** A whole number in a query, within limits. */
export function wholeNumber(min: number, max: number) {
  return z
    .string()
    .regex(/^\d{1,15}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`)
}

/** An RFC 3339 date or date-time, as milliseconds since the epoch. */
export const instant = z.string().transform((text, context) => {
  const ms = parseTime(text)
  if (ms !== undefined) return ms
  context.addIssue({ code: 'custom', message: 'must be a time such as 2026-11-21 or 2026-11-21T10:00:00Z' })
  return z.NEVER
})

/** Text to look something up by: no control characters, of which PostgreSQL takes not all, and which no name has. */
export function searchText(max: number) {
  return shortText(max).regex(/^[^\p{Cc}]*$/u, 'must not hold control characters')
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
  const [name] = Object.keys(c.req.queries())
  if (name !== undefined) throw refuse(`This address takes no parameters in the URL, and ${show(name)} was sent.`)
}

/** Parses the query string. Throws `invalid_input` for what is unknown, sent twice or malformed (invariant 6). */
export function readQuery<S extends z.ZodObject>(c: Context, schema: S): z.output<S> {
  const given = c.req.queries()
  const twice = Object.entries(given).find(([, values]) => values.length > 1)
  if (twice !== undefined) throw refuse(`The parameter ${show(twice[0])} was sent twice.`)
  return parseInput(schema, Object.fromEntries(Object.entries(given).map(([name, values]) => [name, values[0]])))
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
