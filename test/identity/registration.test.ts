import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { parseRegistration, parseUpdate, registrationSchema, updateSchema } from '../../src/identity/registration.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { BrokerError } from '../../src/kernel/errors.ts'

const nowMs = Date.parse('2026-11-21T12:00:00Z')
const dayMs = 86_400_000

const good = {
  name: 'triage-bot',
  environment: 'prod',
  stage: 'pilot',
  owner: { team: 'support', contact: 'oncall:support' },
  purpose: 'Labels incoming tickets',
  tags: ['llm', 'cost-center:42', 'repo=acme/web'],
  review_at: '2027-03-31',
  jwks: { keys: [] },
}

function problemsOf(parse: () => unknown): string[] {
  try {
    parse()
  } catch (error) {
    if (!(error instanceof BrokerError) || error.code !== 'invalid_input') throw error
    const problems = z.array(z.strictObject({ path: z.string(), message: z.string() })).parse(error.extra?.['problems'])
    const [first] = problems
    expect(error.publicMessage).toContain(first?.message)
    expect(error.publicMessage).toContain(first?.path)
    return problems.map(({ path, message }) => `${path} ${message}`.trim())
  }
  return []
}

const registrationProblems = (body: unknown) => problemsOf(() => parseRegistration(body, nowMs))
const updateProblems = (body: unknown) => problemsOf(() => parseUpdate(body, nowMs))

test('a good registration becomes what the broker works with', () => {
  const { review_at: _, ...rest } = good
  expect(parseRegistration(good, nowMs)).toEqual({ ...rest, reviewAtMs: Date.parse('2027-03-31T00:00:00Z') })
})

test('keys may be left out: they are enrolled later', () => {
  const { jwks: _, ...rest } = good
  expect(parseRegistration(rest, nowMs)).not.toHaveProperty('jwks')
})

test('tags may be left out', () => {
  const { tags: _, ...rest } = good
  expect(parseRegistration(rest, nowMs).tags).toEqual([])
})

const accepted: [string, object][] = [
  ['a reference with an @ that is no address', { owner: { team: 'support', contact: 'slack:@oncall' } }],
  ['a reference that is a link', { owner: { team: 'support', contact: 'https://wiki.example.com/teams/support' } }],
  ['a contact of 128 characters', { owner: { team: 'support', contact: `ref:${'x'.repeat(124)}` } }],
  ['a purpose of 500 characters', { purpose: 'x'.repeat(500) }],
  ['a purpose in another script', { purpose: 'チケットを分類する 👩‍💻' }],
  ['32 tags', { tags: Array.from({ length: 32 }, (_, i) => `t${i}`) }],
  ['a review in 400 days', { review_at: new Date(nowMs + 400 * dayMs).toISOString() }],
  ['a review with an offset', { review_at: '2026-11-21T13:00:01+01:00' }],
  ['the longest name', { name: 'a'.repeat(63) }],
]
test.each(accepted)('accepts %s', (_name, change) => {
  expect(registrationProblems({ ...good, ...change })).toEqual([])
})

const label = /^(\S+) must be 1 to 63 of a-z, 0-9 and -/
const address = /^owner\.contact must be a reference such as oncall:support, not an address/
const reference = /^owner\.contact must be a reference of the form scheme:value/
const control = /^purpose must be a single line without control characters/
const contactOf = (contact: unknown) => ({ owner: { team: 'support', contact } })
const refused: [string, object, RegExp][] = [
  ['no name', { name: undefined }, /^name is required$/],
  ['a name that is a number', { name: 7 }, /^name must be text$/],
  ['an empty name', { name: '' }, label],
  ['a name in upper case', { name: 'Triage' }, label],
  ['a name with a dot', { name: 'a.b' }, label],
  ['a name with - at the end', { name: 'a-' }, label],
  ['a name of 64 characters', { name: 'a'.repeat(64) }, label],
  ['a name with a line break', { name: 'a\n' }, label],
  ['a name with a slash', { name: '../a' }, label],
  ['no environment', { environment: undefined }, /^environment is required$/],
  ['an environment that is no label', { environment: 'Prod EU' }, label],
  ['no stage', { stage: undefined }, /^stage is required$/],
  ['another stage', { stage: 'prod' }, /^stage must be one of sandbox, pilot, production$/],
  ['stage as an array', { stage: ['pilot'] }, /^stage must be one of/],
  ['no owner', { owner: undefined }, /^owner is required$/],
  ['an owner that is text', { owner: 'support' }, /^owner must be an object with team and contact$/],
  ['no team', { owner: { contact: 'oncall:a' } }, /^owner\.team is required$/],
  ['a team that is no label', { owner: { team: 'Support!', contact: 'oncall:a' } }, label],
  ['no contact', { owner: { team: 'support' } }, /^owner\.contact is required$/],
  ['a contact without scheme', contactOf('support'), reference],
  ['a contact without value', contactOf('oncall:'), reference],
  ['a contact with white space', contactOf('oncall: support'), reference],
  ['a contact with an escape sequence', contactOf('oncall:\u001b[2J'), reference],
  ['a contact that is too long', contactOf(`ref:${'x'.repeat(125)}`), /^owner\.contact must be at most 128/],
  ['a bare e-mail address', contactOf('jo@example.com'), address],
  ['an e-mail address with a scheme', contactOf('pagerduty:jo@example.com'), address],
  ['an e-mail address in percent-encoding', contactOf('ref:jo%40example.com'), address],
  ['a mailto link', contactOf('mailto:jo'), address],
  ['a MAILTO link', contactOf('MAILTO:jo'), address],
  ['a telephone number', contactOf('tel:+15550100'), address],
  ['an empty purpose', { purpose: '' }, /^purpose must not be empty$/],
  ['a purpose of spaces', { purpose: '   ' }, /^purpose must say something$/],
  ['a purpose of 501 characters', { purpose: 'x'.repeat(501) }, /^purpose must be at most 500/],
  ['a purpose of two lines', { purpose: 'a\nb' }, control],
  ['a purpose with NUL', { purpose: 'a\u0000' }, control],
  ['a purpose with a terminal escape', { purpose: '\u001b[31mred' }, control],
  ['a purpose with a C1 control', { purpose: '\u009b31m' }, control],
  ['a purpose that turns the direction', { purpose: 'a\u202eb' }, control],
  ['a purpose with a line separator', { purpose: 'a\u2028b' }, control],
  ['a purpose with a lone surrogate', { purpose: 'a\ud800' }, control],
  ['tags as text', { tags: 'llm' }, /^tags must be an array of texts$/],
  ['tags null', { tags: null }, /^tags must be an array of texts$/],
  ['33 tags', { tags: Array.from({ length: 33 }, (_, i) => `t${i}`) }, /^tags must be at most 32$/],
  ['a tag twice', { tags: ['a', 'b', 'a'] }, /^tags must not hold the same tag twice$/],
  ['a tag in upper case', { tags: ['ok', 'Ok'] }, /^tags\[1\] must be 1 to 63 of/],
  ['a tag that begins with a dot', { tags: ['.a'] }, /^tags\[0\] must be/],
  ['a tag of 64 characters', { tags: ['a'.repeat(64)] }, /^tags\[0\] must be/],
  ['an empty tag', { tags: [''] }, /^tags\[0\] must be/],
  ['a tag that is a number', { tags: [1] }, /^tags\[0\] must be text$/],
  ['no review', { review_at: undefined }, /^review_at is required$/],
  ['a review that is a number', { review_at: nowMs + dayMs }, /^review_at must be text$/],
  ['a review in words', { review_at: 'next year' }, /^review_at must be a date such as/],
  ['a day that does not exist', { review_at: '2027-02-30' }, /^review_at must be a date such as/],
  ['a date-time without offset', { review_at: '2027-03-31T12:00:00' }, /^review_at must be a date such as/],
  ['a review today', { review_at: '2026-11-21' }, /^review_at must be in the future$/],
  ['a review now', { review_at: '2026-11-21T12:00:00Z' }, /^review_at must be in the future$/],
  ['a review in 401 days', { review_at: formatTime(nowMs + 400 * dayMs + 1) }, /^review_at must be at most 400 days/],
  ['a misspelt field', { review_date: 'x' }, /^review_date is not a known field: did you mean review_at\?$/],
  ['an unknown field', { password: 'x' }, /^password is not a known field: the fields are name, environment,/],
  ['a field of a workload', { status: 'active' }, /^status is not a known field/],
  ['an unknown field of the owner', { owner: { ...good.owner, tem: 'x' } }, /^owner\.tem is not .* did you mean team\?$/],
  ['a field with a line break', { 'a\nb': 1 }, /^"a\\nb" is not a known field/],
  ['a field called __proto__', JSON.parse('{"__proto__":{"stage":"production"}}'), /^__proto__ is not a known field/],
]
test.each(refused)('refuses %s', (_name, change, message) => {
  // Joined as JSON text, so that __proto__ is a member as it is for the server's parser.
  const rest = Object.entries(good).filter(([name]) => !Object.hasOwn(change, name))
  const members = [...rest, ...Object.entries(change)]
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`)
  const problems = registrationProblems(JSON.parse(`{${members.join(',')}}`))
  expect(problems).toEqual([expect.stringMatching(message)])
})

test.each([[null], ['text'], [[good]], [1], [undefined]])('refuses the body %j', (body) => {
  expect(registrationProblems(body)).toEqual(['The body must be a JSON object'])
  expect(updateProblems(body)).toEqual(['The body must be a JSON object'])
})

test('reports all problems at once, and names the first ones for people', () => {
  const body = { ...good, name: '', stage: 'x', purpose: '', tags: ['A'], review_at: '2020-01-01' }
  expect(registrationProblems(body).map((problem) => problem.split(' ')[0])).toEqual(
    ['name', 'stage', 'purpose', 'tags[0]', 'review_at'],
  )
  expect(() => parseRegistration(body, nowMs)).toThrow(/; and 2 more\.$/)
})

test('every field says what it is', () => {
  for (const schema of [registrationSchema, updateSchema]) {
    const { properties } = z.toJSONSchema(schema, { io: 'input' })
    for (const [name, property] of Object.entries(properties ?? {})) {
      expect(property, name).toHaveProperty('description')
    }
  }
})

describe('an update', () => {
  const updates: [object, object][] = [
    [{ stage: 'production' }, { stage: 'production' }],
    [{ owner: good.owner }, { owner: good.owner }],
    [{ purpose: 'p' }, { purpose: 'p' }],
    [{ tags: [] }, { tags: [] }],
    [{ review_at: '2027-01-01' }, { reviewAtMs: Date.parse('2027-01-01T00:00:00Z') }],
    [{ stage: 'pilot', tags: ['a'] }, { stage: 'pilot', tags: ['a'] }],
  ]
  test.each(updates)('%j', (body, expected) => {
    expect(parseUpdate(body, nowMs)).toStrictEqual(expected)
  })

  const names = 'stage, owner, purpose, tags, review_at'
  const cases: [string, unknown, string][] = [
    ['nothing', {}, `Nothing to change: send at least one of ${names}`],
    ['the name', { name: 'x' }, 'name cannot be changed: register a new workload instead'],
    ['the environment', { environment: 'x' }, 'environment cannot be changed: register a new workload instead'],
    ['the keys', { jwks: {} }, 'jwks cannot be changed here: add and remove single keys instead'],
    ['the status', { status: 'active' }, 'status cannot be changed here: suspend, resume or retire the workload instead'],
    ['half an owner', { owner: { team: 'finance' } }, 'owner.contact is required'],
    ['a date that has passed', { review_at: '2026-11-20' }, 'review_at must be in the future'],
    ['a null', { purpose: null }, 'purpose must be text'],
    ['a misspelt field', { stag: 'pilot' }, 'stag is not a known field: did you mean stage?'],
    ['constructor', { constructor: 1 }, `constructor is not a known field: the fields are ${names}`],
  ]
  test.each(cases)('refuses %s', (_name, body, problem) => {
    expect(updateProblems(body)).toEqual([problem])
  })
})
