import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileSessionPolicy, findAwsTargetProblem, type AwsStatement } from '../../../src/policy/kinds/aws-session-policy.ts'

const read: AwsStatement = { actions: ['s3:GetObject'], resources: ['arn:aws:s3:::reports/{target}/*'] }
const list: AwsStatement = { actions: ['s3:ListBucket'], resources: ['arn:aws:s3:::reports'], conditions: { StringLike: { 's3:prefix': ['{target}/*'] } } }

/** What a compiled policy is made of. */
interface Compiled {
  readonly Version: string
  readonly Statement: readonly { readonly Effect: string; readonly Action: string | string[]; readonly Resource: string | string[]; readonly Condition?: Record<string, Record<string, string | string[]>> }[]
}

const parsePolicy = (text: string) => JSON.parse(text) as Compiled
const listOf = (values: string | readonly string[]) => [values].flat()

/** IAM's matching, apart from what is tested: * is any text, ? any one character, ${*} and the like are themselves. */
function matches(pattern: string, text: string): boolean {
  const tokens = pattern.match(/\$\{[*?$]\}|[\s\S]/g) ?? []
  // The ends in the text that the tokens so far can reach.
  let ends = new Set([0])
  for (const token of tokens) {
    const next = new Set<number>()
    for (const end of ends) {
      if (token === '*') for (let i = end; i <= text.length; i++) next.add(i)
      else if (token === '?' && end < text.length) next.add(end + 1)
      else if (text[end] === (token.length === 4 ? token[2] : token) && token !== '?') next.add(end + 1)
    }
    ends = next
  }
  return ends.has(text.length)
}

/** Whether a policy allows this: every Allow is asked, and any Deny ends it. */
function allows({ Statement: statements }: Compiled, action: string, resource: string, context: Readonly<Record<string, string>> = {}): boolean {
  const applies = statements.filter(
    ({ Action, Resource, Condition = {} }) =>
      listOf(Action).some((pattern) => matches(pattern.toLowerCase(), action.toLowerCase())) &&
      listOf(Resource).some((pattern) => matches(pattern, resource)) &&
      Object.values(Condition).every((keys) => Object.entries(keys).every(([key, values]) => listOf(values).some((value) => matches(value, context[key] ?? '\n')))),
  )
  return applies.some(({ Effect }) => Effect === 'Allow') && !applies.some(({ Effect }) => Effect === 'Deny')
}

describe('a session policy', () => {
  test('says what the statements say of the target, and that no other role is assumed', () => {
    expect(compileSessionPolicy([list, read], '2026/01')).toBe(
      '{"Version":"2012-10-17","Statement":[' +
        '{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::reports/2026/01/*"},' +
        '{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::reports","Condition":{"StringLike":{"s3:prefix":"2026/01/*"}}},' +
        '{"Effect":"Deny","Action":"sts:Assume*","Resource":"*"}]}',
    )
  })

  test('is the same for the same statements, in whatever order and however often', () => {
    expect(compileSessionPolicy([read, list, read], 'x')).toBe(compileSessionPolicy([list, read], 'x'))
  })

  test('takes no target as a pattern of replacement', () => {
    expect(parsePolicy(compileSessionPolicy([{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::reports/{target}'] }], '$&')).Statement[0]?.Resource).toBe('arn:aws:s3:::reports/$&')
  })

  test('is not made without the target that it needs', () => {
    expect(() => compileSessionPolicy([read], undefined)).toThrow('needs a target')
  })

  const literal = fc.string({ unit: fc.constantFrom(...'abc/*?$.:-_ '), maxLength: 8 })
  /** Anything, and often what an attacker would send. */
  const target = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 12 }),
    fc.string({ unit: fc.constantFrom(...'ab/.*?${}":\\, '), maxLength: 8 }),
    fc.string({ unit: fc.constantFrom(...'abx/.-'), minLength: 1, maxLength: 6 }),
    fc.constantFrom('*', 'a*', '?', '${*}', '${aws:username}', '..', 'a/../b', '","*', 'arn:aws:s3:::other/x', '$&', "$'", '{target}', 'a/b', 'abc'),
  )

  test('allows for no target what the catalog does not allow with that target as one literal', () => {
    let taken = 0
    fc.assert(
      fc.property(target, literal, literal, literal, fc.constantFrom('s3:GetObject', 's3:PutObject', 'sts:AssumeRole'), (value, before, after, asked, action) => {
        if (findAwsTargetProblem(value) !== undefined) return
        taken++
        const prefix = 'arn:aws:s3:::reports/'
        const pattern = `${prefix}${before.replaceAll('$', '')}{target}${after.replaceAll('$', '')}`
        const policy = parsePolicy(compileSessionPolicy([{ actions: ['s3:GetObject'], resources: [pattern], conditions: { StringLike: { 's3:prefix': [`{target}${after.replaceAll('$', '')}`] } } }], value))
        expect(policy.Statement).toHaveLength(2)
        // The catalog's own wildcards go on to work; the target stands for one character that is nowhere else.
        const mark = '\u0001'
        const expected = pattern.replace('{target}', () => mark)
        for (const text of [asked, `${before}${value}${after}`, `${before}${value}x${after}`, `${before}x${after}`, `${before}${value}`, value, 'payroll']) {
          const resource = `${prefix}${text}`
          for (const context of [value, `${value}${after}`, asked, 'x']) {
            const allowed = allows(policy, action, resource, { 's3:prefix': context })
            if (!allowed) continue
            expect(action).toBe('s3:GetObject')
            expect(occurrences(resource, value).some((marked) => matches(expected, marked))).toBe(true)
            expect(occurrences(context, value).some((marked) => matches(`${mark}${after.replaceAll('$', '')}`, marked))).toBe(true)
          }
        }
        // It is not allowed nothing, either.
        const whole = pattern.replace('{target}', () => value).replaceAll(/[*?]/g, 'x')
        expect(allows(policy, 's3:GetObject', whole, { 's3:prefix': `${value}${after.replaceAll('$', '').replaceAll(/[*?]/g, 'x')}` })).toBe(true)
      }),
      { numRuns: 2_000 },
    )
    expect(taken).toBeGreaterThan(300)
  })

  /** The text with each one occurrence of the value marked. */
  function occurrences(text: string, value: string): string[] {
    const found: string[] = []
    for (let at = text.indexOf(value); at !== -1; at = text.indexOf(value, at + 1)) found.push(`${text.slice(0, at)}\u0001${text.slice(at + value.length)}`)
    return found
  }

  test.each(['sts:AssumeRole', 'sts:AssumeRoleWithSAML', 'STS:assumerole', 'sts:AssumeRoot'])('denies %s even where a role trusts the session by name', (action) => {
    const { Statement } = parsePolicy(compileSessionPolicy([read], 'x'))
    const denied = Statement.filter(({ Effect }) => Effect === 'Deny')
    expect(denied.some(({ Action }) => listOf(Action).some((pattern) => matches(pattern.toLowerCase(), action.toLowerCase())))).toBe(true)
  })
})
