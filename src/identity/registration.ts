import { z } from 'zod'
import { parseTime, timeForm } from '../kernel/clock.ts'
import { nearestName } from '../kernel/nearest.ts'
import { createInputError, formatPath, quoteName, type InputProblem } from './input-problem.ts'
import { jwksForm } from './jwks-form.ts'
import { isRecord } from './strict-json.ts'
import { stages, workloadNamePattern, type Owner, type Stage } from './workload.ts'

/** What an admin sends to register a workload. `jwks` is for `parsePublicKeys`; without it the workload enrols a key itself. */
export interface Registration {
  readonly name: string
  readonly environment: string
  readonly stage: Stage
  readonly owner: Owner
  readonly purpose: string
  readonly tags: readonly string[]
  readonly reviewAtMs: number
  readonly jwks?: unknown
}

/** What an admin may change about a workload. An absent member stays as it is; a present one replaces the whole. */
export type WorkloadUpdate = Partial<Pick<Registration, 'stage' | 'owner' | 'purpose' | 'tags' | 'reviewAtMs'>>

const dayMs = 86_400_000
const reviewDaysMax = 400
const tagsMax = 32

// Control characters, line breaks, lone surrogates and those that turn the direction of writing: the text stands in logs
// and on terminals and must read there as it was written.
const deceptive = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/u
const contactPattern = /^[a-z][a-z0-9+.-]*:[\x21-\x7e]+$/
// Something before an `@` and something after it. `slack:@oncall` is a reference, `pagerduty:jo@example.com` is not.
const addressPattern = /[^\s@:/]@[^\s@]/
const addressSchemes: readonly string[] = ['mailto', 'tel', 'sms']

const label = z
  .string({ error: sayRequired('must be text') })
  .regex(workloadNamePattern, { error: 'must be 1 to 63 of a-z, 0-9 and -, with no - at either end' })

const fields = {
  stage: z
    .enum(stages, { error: sayRequired(`must be one of ${stages.join(', ')}`) })
    .describe('How far the workload may be trusted.'),
  owner: z
    .strictObject(
      {
        team: label.describe('The team that answers for the workload: 1 to 63 of a-z, 0-9 and -.'),
        contact: z
          .string({ error: sayRequired('must be text') })
          .max(128, { error: 'must be at most 128 characters' })
          .superRefine((contact, context) => {
            const message = judgeContact(contact)
            if (message !== undefined) context.addIssue({ code: 'custom', message })
          })
          .meta({ pattern: contactPattern.source, not: { pattern: '^(?:mailto|tel|sms):|[^\\s@:/](?:@|%40)[^\\s@]' } })
          .describe('Where to reach a person, by reference, such as oncall:support. Never an address.'),
      },
      { error: sayRequired('must be an object with team and contact') },
    )
    .describe('Who is accountable for the workload.'),
  purpose: z
    .string({ error: sayRequired('must be text') })
    .min(1, { error: 'must not be empty' })
    .max(500, { error: 'must be at most 500 characters' })
    .refine((text) => !deceptive.test(text), {
      error: 'must be a single line without control characters or marks that turn the direction of writing',
    })
    .refine((text) => text === '' || text.trim() !== '', { error: 'must say something' })
    .meta({ pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069]*$', allOf: [{ pattern: '\\S' }] })
    .describe('What the workload is for, in 1 to 500 characters on one line.'),
  tags: z
    .array(
      z
        .string({ error: 'must be text' })
        .regex(/^[a-z0-9][a-z0-9._:/=-]{0,62}$/, {
          error: 'must be 1 to 63 of a-z, 0-9 and . _ : / = -, beginning with a letter or a digit',
        }),
      { error: 'must be an array of texts' },
    )
    .max(tagsMax, { error: `must be at most ${tagsMax}` })
    .refine((tags) => new Set(tags).size === tags.length, { error: 'must not hold the same tag twice' })
    .meta({ uniqueItems: true })
    .describe('Up to 32 different tags, for rules to refer to.'),
  review_at: z
    .string({ error: sayRequired('must be text') })
    .refine((text) => parseTime(text) !== undefined, {
      error: 'must be a date such as 2027-03-31 or a date-time such as 2027-03-31T12:00:00Z (RFC 3339)',
    })
    .meta({ ...timeForm })
    .describe('From then on the workload is refused until an admin has reviewed it: RFC 3339, at most 400 days ahead.'),
} as const

/** The body of a registration, as JSON. `parseRegistration` judges the date's range, `parsePublicKeys` the keys. */
export const registrationSchema = z.strictObject({
  name: label.describe('The name, never used twice: 1 to 63 of a-z, 0-9 and -.'),
  environment: label.describe('Where the workload runs, such as prod or staging: 1 to 63 of a-z, 0-9 and -.'),
  stage: fields.stage,
  owner: fields.owner,
  purpose: fields.purpose,
  tags: fields.tags.optional(),
  review_at: fields.review_at,
  jwks: z
    .unknown()
    .optional()
    .meta({ ...jwksForm })
    .describe('A JWK Set with the 1 to 8 public keys that the workload proves itself with. Without it, it enrols one by a code.'),
})

/** The body of an update, as JSON: at least one of the members. */
export const updateSchema = z.strictObject({
  stage: fields.stage.optional(),
  owner: fields.owner.optional(),
  purpose: fields.purpose.optional(),
  tags: fields.tags.optional(),
  review_at: fields.review_at.optional(),
}).meta({ minProperties: 1 })

const fixedFields: Readonly<Record<string, string>> = {
  name: 'cannot be changed: register a new workload instead',
  environment: 'cannot be changed: register a new workload instead',
  jwks: 'cannot be changed here: add and remove single keys instead',
  keys: 'cannot be changed here: add and remove single keys instead',
  status: 'cannot be changed here: suspend, resume or retire the workload instead',
}

/** Parses the body of a registration; throws `invalid_input` with every problem in `extra.problems`. */
export function parseRegistration(body: unknown, nowMs: number): Registration {
  const { review_at: reviewAt, tags, ...rest } = parseBody(registrationSchema, body, nowMs, {})
  return { ...rest, tags: tags ?? [], reviewAtMs: parseTime(reviewAt) ?? nowMs }
}

/** Parses the body of an update; throws `invalid_input` with every problem in `extra.problems`. */
export function parseUpdate(body: unknown, nowMs: number): WorkloadUpdate {
  const { stage, owner, purpose, tags, review_at: reviewAt } = parseBody(updateSchema, body, nowMs, fixedFields)
  const update: WorkloadUpdate = {
    ...(stage !== undefined && { stage }),
    ...(owner !== undefined && { owner }),
    ...(purpose !== undefined && { purpose }),
    ...(tags !== undefined && { tags }),
    ...(reviewAt !== undefined && { reviewAtMs: parseTime(reviewAt) ?? nowMs }),
  }
  if (Object.keys(update).length === 0) {
    const names = Object.keys(updateSchema.shape).join(', ')
    throw createInputError([{ path: '', message: `Nothing to change: send at least one of ${names}` }])
  }
  return update
}

function parseBody<S extends z.ZodObject>(
  schema: S,
  body: unknown,
  nowMs: number,
  fixed: Readonly<Record<string, string>>,
): z.output<S> {
  if (!isRecord(body)) throw createInputError([{ path: '', message: 'The body must be a JSON object' }])
  const result = schema.safeParse(body)
  const problems = (result.error?.issues ?? []).flatMap((issue) => describeIssue(issue, schema, fixed))
  const early = judgeReviewAt(body['review_at'], nowMs)
  if (early !== undefined) problems.push({ path: 'review_at', message: early })
  if (!result.success || problems.length > 0) throw createInputError(problems)
  return result.data
}

function describeIssue(
  issue: z.core.$ZodIssue,
  schema: z.ZodObject,
  fixed: Readonly<Record<string, string>>,
): InputProblem[] {
  if (issue.code !== 'unrecognized_keys') return [{ path: formatPath(issue.path), message: issue.message }]
  const known = Object.keys(issue.path[0] === 'owner' ? fields.owner.shape : schema.shape)
  return issue.keys.map((name) => {
    const reason = issue.path.length === 0 && Object.hasOwn(fixed, name) ? fixed[name] : undefined
    if (reason !== undefined) return { path: name, message: reason }
    const nearest = nearestName(name, known)
    const hint = nearest === undefined ? `the fields are ${known.join(', ')}` : `did you mean ${nearest}?`
    // A plain name stands in the path as it is; any other could break out of the message.
    const step = /^\w{1,64}$/.test(name) ? name : quoteName(name)
    return { path: formatPath([...issue.path, step]), message: `is not a known field: ${hint}` }
  })
}

/** Why a well-formed date is too early or too late, or `undefined`. Any other value is the schema's to refuse. */
function judgeReviewAt(value: unknown, nowMs: number): string | undefined {
  const reviewAtMs = typeof value === 'string' ? parseTime(value) : undefined
  if (reviewAtMs === undefined) return undefined
  if (reviewAtMs <= nowMs) return 'must be in the future'
  return reviewAtMs > nowMs + reviewDaysMax * dayMs ? `must be at most ${reviewDaysMax} days ahead` : undefined
}

function judgeContact(contact: string): string | undefined {
  const scheme = contact.slice(0, Math.max(0, contact.indexOf(':')))
  if (addressPattern.test(contact.replaceAll('%40', '@')) || addressSchemes.includes(scheme.toLowerCase())) {
    return 'must be a reference such as oncall:support, not an address: an address would outlive its person in the log'
  }
  return contactPattern.test(contact) ? undefined : 'must be a reference of the form scheme:value, such as oncall:support'
}

function sayRequired(otherwise: string): (issue: { readonly input?: unknown }) => string {
  return ({ input }) => (input === undefined ? 'is required' : otherwise)
}
