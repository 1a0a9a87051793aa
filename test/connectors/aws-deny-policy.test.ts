import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { grantsMaxOf, markOf, packDenials, readDenyDocument, renderDenyDocument } from '../../src/connectors/aws-deny-policy.ts'
import type { Denials } from '../../src/connectors/connector.ts'
import { evaluate } from '../aws/deny-matcher.ts'

const role = 'arn:aws:iam::123456789012:role/reports'
const mark = markOf('abcd1234', role)
const max = grantsMaxOf(mark)
const grantOf = (n: number) => `grant_${String(n).padStart(26, '0')}`
const cutOff = Date.UTC(2026, 0, 15, 12, 1)
const none: Denials = { grants: [] }

describe('a deny document', () => {
  it('denies the sessions of its grants everything, and nobody else', () => {
    const document = renderDenyDocument(mark, { grants: [grantOf(1), grantOf(2)] })
    expect(JSON.parse(document)).toEqual({
      Version: '2012-10-17',
      Statement: [{ Sid: `StintDenied${mark}`, Effect: 'Deny', Action: '*', Resource: '*', Condition: { StringEquals: { 'aws:SourceIdentity': [grantOf(1), grantOf(2)] } } }],
    })
    const asked = (sourceIdentity?: string) => evaluate([document], { ...(sourceIdentity !== undefined && { sourceIdentity }), tokenIssueMs: cutOff })
    expect([asked(grantOf(1)), asked(grantOf(2)), asked(grantOf(3)), asked()]).toEqual(['denied', 'denied', 'not denied', 'not denied'])
  })

  it('denies nobody where there is nothing to deny, whatever a session is called', () => {
    const document = renderDenyDocument(mark, none)
    expect(JSON.parse(document).Statement).toHaveLength(1)
    expect(evaluate([document], { sourceIdentity: 'anybody', tokenIssueMs: 0 })).toBe('not denied')
    // No source identity has a colon: [\w+=,.@-]* (AssumeRole, SourceIdentity).
    expect(JSON.parse(document).Statement[0].Condition.StringEquals['aws:SourceIdentity']).not.toMatch(/^[\w+=,.@-]*$/)
  })

  it.each([
    ['before the cut-off', cutOff - 1_000, 'denied'],
    ['at the cut-off', cutOff, 'not denied'],
    ['after it', cutOff + 1_000, 'not denied'],
  ])('denies a session that was opened %s as it must', (_, tokenIssueMs, verdict) => {
    expect(evaluate([renderDenyDocument(mark, { grants: [], cutOffBeforeMs: cutOff })], { sourceIdentity: 'anybody', tokenIssueMs })).toBe(verdict)
  })

  it('has its full number of names and a cut-off in as many characters as a managed policy holds', () => {
    const grants = Array.from({ length: max }, (_, n) => grantOf(n))
    const length = renderDenyDocument(mark, { grants, cutOffBeforeMs: cutOff }).length
    expect(length).toBeLessThanOrEqual(6_144)
    expect(renderDenyDocument(mark, { grants: [...grants, grantOf(max)], cutOffBeforeMs: cutOff }).length).toBeGreaterThan(6_144)
    expect(max).toBeGreaterThan(155)
  })
})

describe('what is found in a policy', () => {
  it.each<[string, Denials]>([
    ['nobody', none],
    ['one grant', { grants: [grantOf(1)] }],
    ['many and a cut-off', { grants: [grantOf(1), grantOf(2)], cutOffBeforeMs: cutOff }],
    ['a cut-off alone', { grants: [], cutOffBeforeMs: cutOff }],
  ])('is read as it was written: %s', (_, says) => {
    expect(readDenyDocument(mark, renderDenyDocument(mark, says))).toEqual({ owner: 'ours', says, exact: true })
  })

  it('is the same in another order, in other white space, and with one value in place of a list of one', () => {
    const text = JSON.stringify(
      { Statement: { Condition: { StringEquals: { 'aws:SourceIdentity': grantOf(1) } }, Resource: ['*'], Action: '*', Effect: 'Deny', Sid: `StintDenied${mark}` }, Version: '2012-10-17' },
      undefined,
      4,
    )
    expect(readDenyDocument(mark, text)).toEqual({ owner: 'ours', says: { grants: [grantOf(1)] }, exact: true })
    const both = JSON.parse(renderDenyDocument(mark, { grants: [grantOf(1), grantOf(2)], cutOffBeforeMs: cutOff })) as { Statement: unknown[] }
    both.Statement.reverse()
    expect(readDenyDocument(mark, JSON.stringify(both))).toMatchObject({ exact: true })
  })

  it.each<[string, (statement: Record<string, unknown>) => void]>([
    ['the effect', (statement) => (statement['Effect'] = 'Allow')],
    ['the actions', (statement) => (statement['Action'] = 's3:GetObject')],
    ['the resources', (statement) => (statement['Resource'] = 'arn:aws:s3:::else')],
    ['the operator', (statement) => (statement['Condition'] = { StringNotEquals: { 'aws:SourceIdentity': [grantOf(1)] } })],
    ['the conditions', (statement) => (statement['Condition'] = { StringEquals: { 'aws:SourceIdentity': [grantOf(1)] }, Bool: { 'aws:SecureTransport': 'false' } })],
  ])('is not right where somebody has changed %s', (_, change) => {
    const document = JSON.parse(renderDenyDocument(mark, { grants: [grantOf(1)] })) as { Statement: [Record<string, unknown>] }
    change(document.Statement[0])
    expect(readDenyDocument(mark, JSON.stringify(document))).toMatchObject({ owner: 'ours', exact: false })
  })

  it.each([
    ['is no JSON', 'not json'],
    ['is empty', '{}'],
    ['has a statement without a name', JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Deny', Action: '*', Resource: '*' }] })],
    ['has one more statement', JSON.stringify({ Version: '2012-10-17', Statement: [JSON.parse(renderDenyDocument(mark, none)).Statement[0], { Sid: 'Mine', Effect: 'Allow', Action: '*', Resource: '*' }] })],
    ['only begins like it', JSON.stringify({ Version: '2012-10-17', Statement: [{ Sid: 'StintUnusedByMe', Effect: 'Allow', Action: 's3:*', Resource: '*' }] })],
    ['is of another broker', renderDenyDocument(markOf('zzzz9999', role), { grants: [grantOf(1)] })],
    ['is of another role', renderDenyDocument(markOf('abcd1234', `${role}-2`), { grants: [], cutOffBeforeMs: cutOff })],
  ])("is somebody else's where it %s", (_, text) => {
    expect(readDenyDocument(mark, text)).toEqual({ owner: 'foreign', why: expect.stringMatching(/not of Stint|another/) })
  })

  it('is free for any role where it denies nobody', () => {
    expect(readDenyDocument(mark, renderDenyDocument(markOf('zzzz9999', 'other'), none))).toEqual({ owner: 'ours', says: none, exact: true })
  })
})

describe('packing', () => {
  const numbers = fc.uniqueArray(fc.integer({ min: 0, max: 2_000 }), { maxLength: 600 })
  const arrangement = fc.record({
    grants: numbers.map((list) => list.map(grantOf).toSorted()),
    found: fc.array(numbers.map((list): Denials => ({ grants: list.slice(0, 170).map(grantOf) })), { minLength: 1, maxLength: 10 }),
    cutOffBeforeMs: fc.option(fc.constant(cutOff), { nil: undefined }),
  })

  it('puts each grant into one policy, drops all others, keeps to the size, and comes to rest', () => {
    fc.assert(
      fc.property(arrangement, ({ grants, found, cutOffBeforeMs }) => {
        const denials = { grants, ...(cutOffBeforeMs !== undefined && { cutOffBeforeMs }) }
        const { documents, left } = packDenials(denials, found, max)
        expect(documents).toHaveLength(found.length)
        expect([...documents.flatMap((one) => one.grants), ...left].toSorted()).toEqual(grants)
        for (const one of documents) {
          expect(renderDenyDocument(mark, one).length).toBeLessThanOrEqual(6_144)
          expect(one.cutOffBeforeMs).toBe(cutOffBeforeMs)
        }
        // Nothing waits while there is room.
        expect(left.length).toBe(Math.max(0, grants.length - found.length * max))
        expect(packDenials(denials, found, max)).toEqual({ documents, left })
        expect(packDenials({ ...denials, grants: documents.flatMap((one) => one.grants).toSorted() }, documents, max)).toEqual({ documents, left: [] })
      }),
      { numRuns: 200 },
    )
  })

  it('changes one policy for one more denial, and only those that lose a name for fewer', () => {
    fc.assert(
      fc.property(arrangement, fc.integer({ min: 3_000, max: 4_000 }), ({ grants, found }, more) => {
        const before = packDenials({ grants }, found, max)
        fc.pre(before.left.length === 0 && grants.length < found.length * max)
        const after = packDenials({ grants: [...grants, grantOf(more)].toSorted() }, before.documents, max)
        expect(after.documents.filter((one, i) => JSON.stringify(one) !== JSON.stringify(before.documents[i]))).toHaveLength(1)
        const [gone] = grants
        const fewer = packDenials({ grants: grants.slice(1) }, before.documents, max)
        const changed = fewer.documents.flatMap((one, i) => (JSON.stringify(one) === JSON.stringify(before.documents[i]) ? [] : [i]))
        expect(changed).toEqual(before.documents.flatMap((one, i) => (gone !== undefined && one.grants.includes(gone) ? [i] : [])))
      }),
      { numRuns: 100 },
    )
  })

  it('gives up a name only for one that needs its place, and only where the cut-off denies it too', () => {
    const there = Array.from({ length: max }, (_, n) => grantOf(1_000 + n))
    const [covered = ''] = there
    const full = packDenials({ grants: [grantOf(1), ...there], covered: [covered], cutOffBeforeMs: cutOff }, [{ grants: there }], max)
    expect(full.documents[0]?.grants).toEqual([grantOf(1), ...there.slice(1)])
    expect(full.left).toEqual([])
    const roomy = packDenials({ grants: there.slice(0, 5), covered: there.slice(0, 5), cutOffBeforeMs: cutOff }, [{ grants: [] }], max)
    expect(roomy.documents[0]?.grants).toEqual(there.slice(0, 5))
  })

  it('never takes a place from what stands there', () => {
    const there = Array.from({ length: max }, (_, n) => grantOf(1_000 + n))
    const { documents, left } = packDenials({ grants: [grantOf(1), ...there] }, [{ grants: there }], max)
    expect(documents[0]?.grants).toEqual(there)
    expect(left).toEqual([grantOf(1)])
  })
})
