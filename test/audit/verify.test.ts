import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { formatCsvLine, csvHeader } from '../../src/audit/csv.ts'
import { leafHash } from '../../src/audit/encode.ts'
import { makeEntry } from '../../src/audit/entry.ts'
import { appendSubtree, findSubtrees, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import { createLogKey, generateLog } from './generated-log.ts'
import { allRevoked, base, bodiesOf, grantId, iso, issued, kid, minute, of, opened, operator, otherKid, proof, registered, revoked, root, seal, set, sign, startMs, stint, tokenKid, treeOf, verify, type Event } from './made-log.ts'

const bodies = [...generateLog(120)]

const replaced = (texts: readonly string[], at: number, text: string): string[] => texts.with(at, text)

describe('An export of the whole log', () => {
  test('is complete, and its tail is proven by a checkpoint that was kept', () => {
    const whole = { entries: 120, first: 0, last: 119, proof: 'complete', provenSize: 120, unproven: 0, problems: [], policySets: 1, life: { entries: 120 } }
    expect(verify(seal(bodies))).toMatchObject(whole)
    expect(verify(seal(bodies)).kept).toBeUndefined()
    for (const size of [0, 1, 64, 77, 119, 120]) {
      for (const piece of [1, 7, 200]) {
        expect(verify(seal(bodies), { kept: sign(bodies.slice(0, size)), piece }), `${size} in pieces of ${piece}`).toMatchObject({ ...whole, kept: { size, status: 'proven' } })
      }
    }
  })

  test('does not prove a checkpoint that states more entries', () => {
    const later = sign(bodies)
    expect(verify(seal(bodies.slice(0, 100)), { kept: later })).toMatchObject({ proof: 'complete', kept: { size: 120, status: 'not covered' }, problems: [] })
  })

  test('without its proof proves nothing but by a checkpoint that was kept', () => {
    expect(verify(bodies)).toMatchObject({ proof: 'nothing', provenSize: 0, unproven: 120, problems: [] })
    expect(verify(bodies, { kept: sign(bodies.slice(0, 50)) })).toMatchObject({ proof: 'complete', provenSize: 50, unproven: 70, kept: { status: 'proven' } })
    expect(verify(bodies.slice(10), { kept: sign(bodies.slice(0, 50)) })).toMatchObject({ proof: 'nothing', kept: { status: 'not covered' } })
  })

  test('is not proven by a key that stands in it, nor by that of another log', () => {
    const other = createLogKey()
    const file = [...bodies, ...proof(other.sign(treeOf(bodies)))]
    expect(verify(file)).toMatchObject({ proof: 'nothing', problems: [{ line: 122, what: 'is a checkpoint that is not signed by the key that you gave' }] })
    const elsewhere = createLogKey('elsewhere.test/log')
    expect(verify([...bodies, ...proof(elsewhere.sign(treeOf(bodies)))]).problems).toMatchObject([{ what: 'is a checkpoint that is of another log than the key' }])
    expect(verify(seal(bodies), { kept: elsewhere.sign(treeOf(bodies)) })).toMatchObject({ kept: { status: 'another log' }, problems: [{ what: /kept is of another log/ }].map(() => expect.anything()) })
  })

  test('that goes on beyond its checkpoint says so', () => {
    const [first = '', ...rest] = proof(sign(bodies.slice(0, 100)))
    expect(verify([...bodies, first, ...rest])).toMatchObject({ proof: 'complete', provenSize: 100, unproven: 20, problems: [] })
  })
})

describe('A file that was changed', () => {
  const cases: [string, (lines: string[]) => string[], object][] = [
    ['a text that no other entry knows of', (l) => replaced(l, 60, (l[60] ?? '').replace('"request_id":"', '"request_id":"x')), { what: expect.stringContaining('The entries are not those that were signed') }],
    ['the workload of a grant', (l) => replaced(l, 60, (l[60] ?? '').replace(/"workload":"[^"]+"}$/, '"workload":"support-agent-0"}')), { line: 61, index: 60, what: 'has another actor than its workload' }],
    ['a verdict', (l) => replaced(l, 63, (l[63] ?? '').replace('"verdict":"deny"', '"verdict":"allow"')), { line: 64, index: 63, what: 'has the verdict allow in its decision' }],
    ['a space', (l) => replaced(l, 60, (l[60] ?? '').replace(',', ', ')), { line: 61, what: 'is no entry: it is not one object of canonical JSON (RFC 8785)' }],
    ['bytes that are no text', (l) => replaced(l, 60, '\ud800'), { line: 61, what: expect.stringContaining('no entry') }],
    ['an index', (l) => replaced(l, 60, (l[60] ?? '').replace('"index":60', '"index":61')), { line: 61, index: 61, what: 'stands where entry 60 should: nothing stands for what is missing' }],
    ['an entry removed', (l) => l.toSpliced(60, 1), { line: 61, index: 61, what: 'stands where entry 60 should: nothing stands for what is missing' }],
    ['ten entries removed', (l) => l.toSpliced(60, 10), { line: 61, index: 70, what: 'stands where the entries 60 to 69 should: nothing stands for what is missing' }],
    ['an entry twice', (l) => l.toSpliced(60, 0, l[60] ?? ''), { line: 62, index: 60, what: 'stands behind entry 60: out of order, or a second time' }],
    ['two entries swapped', (l) => l.with(60, l[61] ?? '').with(61, l[60] ?? ''), { line: 62, index: 60, what: 'stands behind entry 61: out of order, or a second time' }],
    ['the end removed', (l) => [...l.slice(0, 100), ...l.slice(120)], { what: 'The file ends with entry 99, and the checkpoint in it states 120 entries: nothing stands for the entries 100 to 119.' }],
    ['an entry behind the proof', (l) => [...l, l[5] ?? ''], { line: 123, what: 'stands behind the proof, where no entry belongs' }],
    ['a rule', (l) => replaced(l, 120, (l[120] ?? '').replace('30m', '90m')), { line: 121, what: expect.stringMatching(/^calls a policy set d9ef\w+ whose files are \w{64}$/) }],
    ['no policy set', (l) => l.toSpliced(120, 1), { index: 54, what: expect.stringMatching(/^was decided by the policy set d9ef\w+, which is not in the file$/) }],
    ['a member too many', (l) => replaced(l, 120, (l[120] ?? '').replace('{', '{"x":1,')), expect.anything()],
    ['a size in the checkpoint', (l) => replaced(l, 121, (l[121] ?? '').replace('\\n120\\n', '\\n121\\n')), { what: 'is a checkpoint that is not signed by the key that you gave' }],
  ]
  test.each(cases)('is found out: %s', (_, change, problem) => {
    const changed = change(seal(bodies))
    const verdict = verify(changed)
    expect(verdict.problems).toContainEqual(typeof problem === 'object' && 'what' in problem ? expect.objectContaining(problem) : problem)
    for (const piece of [1, 13]) expect(verify(changed, { piece }).problems, `in pieces of ${piece}`).toEqual(verdict.problems)
  })

  test('and that something else is kept for is told of up to where it is good', () => {
    const changed = replaced(seal(bodies), 90, (bodies[90] ?? '').replace('"request_id":"', '"request_id":"x'))
    const early = verify(changed, { kept: sign(bodies.slice(0, 80)) })
    expect(early).toMatchObject({ proof: 'complete', provenSize: 80, kept: { status: 'proven' } })
    expect(early.problems).toMatchObject([{ what: expect.stringContaining('one or more of the entries 80 to 119') }])
    expect(verify(changed, { kept: sign(bodies.slice(0, 100)) })).toMatchObject({ kept: { status: 'contradicted' }, proof: 'nothing' })
  })

  test('in many places is told of in so many, and the rest counted', () => {
    const verdict = verify(seal(bodies).map((line) => line.replace('"kind":"workload"', '"kind":"stranger"')))
    // 61 by themselves; the ends of grants that were not issued; and the tree.
    expect(verdict.problems.length).toBeGreaterThan(60)
    const many = verify(Array.from({ length: 500 }, () => 'x'))
    expect([many.problems.length, many.problemsMore]).toEqual([100, 400])
  })
})

describe('An export of a part', () => {
  const held = (index: number): boolean => index % 10 === 3 || (index > 70 && index < 90)
  const part = (texts: readonly string[]): string[] => {
    const lines = texts.filter((_, i) => held(i))
    const gaps: string[] = []
    for (let start = 0; start < texts.length; ) {
      if (held(start)) {
        start++
        continue
      }
      let end = start
      while (end < texts.length && !held(end)) end++
      const hashes = findSubtrees(start, end).map(({ level, index }) => {
        let frontier: Frontier = []
        for (let i = 0; i < 2 ** level; i++) frontier = appendSubtree(frontier, i, { level: 0, index: i }, leafHash(Buffer.from(texts[index * 2 ** level + i] ?? '')))
        return Buffer.from(rootOf(frontier)).toString('base64')
      })
      gaps.push(JSON.stringify({ gap: [start, end], hashes }))
      start = end
    }
    const [set = '', checkpoint = ''] = proof(sign(texts))
    return [...lines, set, ...gaps, checkpoint]
  }
  const file = part(bodies)

  test('proves that what it holds is in the log, and no more', () => {
    for (const piece of [1, 5, 500]) {
      expect(verify(file, { piece }), `in pieces of ${piece}`).toMatchObject({ entries: 29, first: 3, last: 113, proof: 'inclusion', provenSize: 120, unproven: 0, problems: [], life: { entries: 0 } })
    }
  })

  test('proves a kept checkpoint only where it has the hashes for it', () => {
    expect(verify(file, { kept: sign(bodies.slice(0, 80)) }).kept).toEqual({ size: 80, status: 'proven' })
    expect(verify(file, { kept: sign(bodies) }).kept).toEqual({ size: 120, status: 'proven' })
    expect(verify(file, { kept: sign(bodies.slice(0, 67)) }).kept).toEqual({ size: 67, status: 'not covered' })
    const forked = [...bodies.slice(0, 79), (bodies[79] ?? '').replace('t', 'u')]
    expect(verify(file, { kept: sign(forked) })).toMatchObject({ kept: { size: 80, status: 'contradicted' } })
  })

  test('that was changed is found out', () => {
    const gapAt = file.findIndex((line) => line.startsWith('{"gap"'))
    const changed: [string, string[], object][] = [
      ['an entry removed', file.toSpliced(4, 1), { what: expect.stringContaining('has hashes for the entries from 44 on') }],
      ['a gap removed', file.toSpliced(gapAt + 1, 1), { what: expect.stringContaining('has hashes for the entries from') }],
      ['a hash changed', file.with(gapAt, (file[gapAt] ?? '').replace(/"hashes":\["[^"]+/, `"hashes":["${Buffer.alloc(32, 7).toString('base64')}`)), { what: expect.stringContaining('not those that were signed') }],
      ['a hash too many', file.with(gapAt, (file[gapAt] ?? '').replace('"hashes":[', `"hashes":["${Buffer.alloc(32).toString('base64')}",`)), { what: 'has 3 hashes for the entries 0 to 2, which is not their number' }],
      ['no base64', file.with(gapAt, (file[gapAt] ?? '').replace('"hashes":["', '"hashes":["*')), { what: expect.stringContaining('is no gap') }],
      ['a gap backwards', file.with(gapAt, (file[gapAt] ?? '').replace('[0,3]', '[3,0]')), { what: expect.stringContaining('is no gap') }],
    ]
    for (const [name, lines, problem] of changed) {
      const verdict = verify(lines)
      expect(verdict.problems, name).toContainEqual(expect.objectContaining(problem))
      expect(verdict.proof, name).toBe('nothing')
    }
  })
})

describe('An export as CSV', () => {
  const csv = (texts: readonly string[]): string[] => [csvHeader.slice(0, -1), ...texts.map((text) => formatCsvLine(text).slice(0, -1))]

  test('is good also without the columns of grants in outside tools, as it was written before there were any', () => {
    const before = csv(bodies).map((line, i) => (i === 0 ? line.replace(/(?<=request_id),.*(?=,event)/, '') : line.replace(',,,,,,,"{', ',"{')))
    expect(before[0]).toBe('index,time,type,actor,workload,tool,actions,target,task,grant,expires_at,verdict,reasons,policy_set,code,detail,reason,request_id,event\r')
    expect(verify(before, { kept: sign(bodies) })).toMatchObject({ form: 'csv', problems: [], entries: 120, proof: 'complete', kept: { status: 'proven' } })
    expect(verify(before.with(61, (before[61] ?? '').replace(',"{', ',,"{'))).problems).toEqual([{ line: 62, what: 'is no entry as the log writes it to CSV' }])
  })

  test('may hold what looks like another cell', () => {
    const reason = '{"a":","{""x"","=1"}'
    const event = { type: 'operator.revoked', actor: { kind: 'stint', id: 'test' }, operator: 'x', name: 'x', reason } as const
    const body = makeEntry(event, 0, startMs, randomBytes).body
    const verdict = verify(csv([body]), { kept: sign([body]) })
    expect(verdict).toMatchObject({ proof: 'complete', provenSize: 1, kept: { status: 'proven' } })
  })

  test('proves what a kept checkpoint states, if all of it is there', () => {
    expect(verify(csv(bodies))).toMatchObject({ form: 'csv', entries: 120, proof: 'nothing', problems: [] })
    expect(verify(csv(bodies), { kept: sign(bodies.slice(0, 90)), piece: 50 })).toMatchObject({ proof: 'complete', provenSize: 90, unproven: 30, kept: { status: 'proven' } })
    expect(verify(csv(bodies.slice(1)), { kept: sign(bodies) })).toMatchObject({ proof: 'nothing', kept: { status: 'not covered' } })
  })

  test('is found out where a cell and its event do not agree', () => {
    const lines = csv(bodies)
    const changed = lines.with(61, (lines[61] ?? '').replace('grant.issued', 'grant.denied'))
    expect(verify(changed).problems).toEqual([{ line: 62, what: 'is no entry as the log writes it to CSV' }])
    for (const wrong of ['', 'x', ',"{""\r', `${lines[61]}x`, (lines[61] ?? '').replace('\r', ''), `,"${',""'.repeat(300_000)}`]) {
      expect(verify(lines.with(61, wrong)).problems, wrong.slice(0, 20)).toContainEqual({ line: 62, what: 'is no entry as the log writes it to CSV' })
    }
    const both = lines.with(61, (lines[61] ?? '').replaceAll('ticket-60', 'ticket-61'))
    expect(verify(both, { kept: sign(bodies) })).toMatchObject({ kept: { status: 'contradicted' } })
  })
})

// Whoever has the key can sign any tree: what one who runs the broker may try is found by what the entries say of each other.
describe('A log that does not fit together', () => {
  const session = (id: string, more: object = {}): Event => ({
    type: 'operator.signed_in',
    actor: { kind: 'operator', id: 'oidc:ada', session: id },
    session: id,
    issuer: 'https://id.test',
    subject: 'ada',
    role: 'admin',
    expires_at: iso(60 * minute),
    ...more,
  })
  const byAda = { actor: { kind: 'operator', id: 'oidc:ada', session: 's1' } }
  const code = (enrolment: string, more: object = {}): Event => of('enrolment.created', { enrolment, expires_at: iso(15 * minute), ...more })
  const redeemed = (enrolment: string, newKid: string, more: object = {}): Event =>
    of('enrolment.redeemed', { actor: { kind: 'workload', id: 'bot' }, enrolment, kid: newKid, alg: 'ES256', ...more })
  const rotated = (newKid: string, until: number, more: object = {}): Event =>
    of('workload.key_rotated', { actor: { kind: 'workload', id: 'bot' }, kid: newKid, alg: 'ES256', replaces: kid, until: iso(until), ...more })


  const good: [string, () => Event[]][] = [
    ['grants, one ended, one by many', () => [issued({ grant: grantId(900) }), revoked(grantId(900)), issued({ task: 't' }), allRevoked({ task: 't' })]],
    ['a target', () => [issued({ target: 'acct-1' }, { input: { principal: { type: 'Workload', id: 'bot' }, actions: [{ type: 'Action', id: 'tickets:read' }], resource: { type: 'Target', id: 'tickets/acct-1' }, context: { ttl: { __extn: { fn: 'duration', arg: '600s' } } } } })]],
    ['a revocation of what was before, and a grant since', () => [issued({}, {}, 0), { ...allRevoked({ workload: 'bot', before: iso(minute) }), atMs: 2 * minute }, issued({ grant: grantId(902) }, {}, 2 * minute), { ...revoked(grantId(902)), atMs: 2 * minute }]],
    ['a workload suspended and resumed', () => [of('workload.suspended'), of('workload.resumed'), issued()]],
    ['a key that overlaps', () => [rotated('m'.repeat(43), 10 * minute), issued({}, {}, 9 * minute), issued({ proof_kid: 'm'.repeat(43) }, {}, 9 * minute)]],
    ['a code redeemed', () => [code('e1'), redeemed('e1', 'm'.repeat(43)), issued({ proof_kid: 'm'.repeat(43) })]],
    ['codes cancelled with their workload', () => [code('e1'), of('workload.retired'), of('enrolment.cancelled', { enrolment: 'e1' })]],
    ['a session that ends itself and others', () => [session('s1'), session('s2'), { type: 'operator.signed_out', ...byAda, request_id: 'r1', session: 's1', subject: 'ada' }, { type: 'operator.signed_out', ...byAda, request_id: 'r1', session: 's2', subject: 'ada' }]],
    ['an operator that revokes itself, and its last refusal', () => [operator('b'), { type: 'operator.revoked', actor: { kind: 'operator', id: 'b' }, operator: 'b', name: 'b' }, { type: 'change.refused', actor: { kind: 'operator', id: 'b' }, method: 'POST', route: '/', code: 'c', detail: 'd' }]],
    ['another policy set', () => [{ type: 'policy.applied', actor: root, policy_set: 'b'.repeat(64), previous: set, policies: 1, tools: 1, cedar_version: '4.13.0' }, { type: 'policy.applied', actor: root, policy_set: set, previous: 'b'.repeat(64), policies: 4, tools: 2, cedar_version: '4.13.0' }, issued()]],
    ['a clock that was set back while it was decided', () => [issued({ expires_at: iso(20 * minute) }, { input: { ...(issued().decision as { input: object }).input, context: { ttl: { __extn: { fn: 'duration', arg: '600s' } }, now: { __extn: { fn: 'datetime', arg: iso(10 * minute) } } } } })]],
  ]
  test.each(good)('is not: %s', (_, events) => {
    expect(verify(seal(bodiesOf([...base, ...events()]))).problems).toEqual([])
  })

  const bad: [string, () => Event[], string][] = [
    ['unknown workload', () => [issued({ workload: 'nobody' })], 'is by the workload nobody, which was not registered before'],
    ['suspended', () => [of('workload.suspended'), issued()], 'is by the workload bot, which entry 6 had suspended'],
    ['retired', () => [of('workload.retired'), issued()], 'is by the workload bot, which entry 6 had retired'],
    ['a refusal of a suspended one', () => [of('workload.suspended'), { type: 'grant.refused', actor: { kind: 'workload', id: 'bot' }, workload: 'bot', proof_kid: kid, code: 'c', detail: 'd' }], 'is by the workload bot, which entry 6 had suspended'],
    ['review passed', () => [registered('late', { review_at: iso(minute), kids: [] }), of('workload.key_added', { workload: 'late', kid: 'n'.repeat(43), alg: 'ES256' }), issued({ workload: 'late', proof_kid: 'n'.repeat(43) }, {}, 10 * minute)], 'is by the workload late, whose review date had passed'],
    ['unknown key', () => [issued({ proof_kid: 'x' })], 'is proven by the key x, which bot did not have'],
    ["another's key", () => [issued({ proof_kid: otherKid })], `is proven by the key ${otherKid}, which bot did not have`],
    ['removed key', () => [of('workload.key_removed', { kid, alg: 'ES256' }), issued()], `is proven by the key ${kid}, which entry 6 had ended`],
    ['rotated key, too late', () => [rotated('m'.repeat(43), minute), issued({}, {}, minute)], `is proven by the key ${kid}, which entry 6 had ended`],
    ['rotated key, in time and then too late', () => [rotated('m'.repeat(43), minute), issued(), issued({}, {}, minute)], `is proven by the key ${kid}, which entry 6 had ended`],
    ['no decision', () => [issued({}, { verdict: undefined })], 'has no decision'],
    ['denied and issued', () => [issued({}, { verdict: 'deny' })], 'has the verdict deny in its decision'],
    ['no reason', () => [issued({}, { reasons: [] })], 'was allowed, and names no policy that permits it'],
    ['errors', () => [issued({}, { errors: ['x'] })], 'was allowed in spite of errors in evaluation'],
    ['a decision about somebody else', () => [issued({}, { input: (issued({ workload: 'other' }).decision as { input: object }).input })], 'has a decision about another workload'],
    ['a decision about another task', () => [issued({ task: 'a' }, { input: (issued({ task: 'b' }).decision as { input: object }).input })], 'has a decision about another task'],
    ['a decision about other actions', () => [issued({ actions: ['tickets:read', 'tickets:comment'] })], 'has a decision about another set of actions'],
    ['a decision about another target', () => [issued({ target: 'x' })], 'has a decision about another tool or target'],
    ['a decision about less time', () => [issued({ ttl_seconds: 6000 })], 'has a decision about another time to live'],
    ['alive for too long', () => [issued({ expires_at: iso(11 * minute) })], `expires at ${iso(11 * minute)}, later than its 600 s allow`],
    ['a policy set that never was', () => [issued({}, { policy_set: 'c'.repeat(64) })], `was decided by the policy set ${'c'.repeat(64)}, where ${set}, of entry 3, was in force`],
    ['a policy set that was over', () => [{ type: 'policy.applied', actor: root, policy_set: 'b'.repeat(64), previous: set, policies: 1, tools: 1, cedar_version: '4' }, issued()], `was decided by the policy set ${set}, where ${'b'.repeat(64)}, of entry 6, was in force`],
    ['a policy set in place of another', () => [{ type: 'policy.applied', actor: root, policy_set: 'b'.repeat(64), previous: 'c'.repeat(64), policies: 1, tools: 1, cedar_version: '4' }], `replaces the policy set ${'c'.repeat(64)}, where ${set}, of entry 3, was in force`],
    ['a token key that never was', () => [issued({ token_kid: 'x' })], 'is signed by the token key x, which was not made before'],
    ['a token key that was over', () => [{ type: 'key.replaced', actor: stint, use: 'token', kid: tokenKid, successor: 'x', verify_until: iso(0) }, issued()], `is signed by the token key ${tokenKid}, which entry 6 had replaced`],
    ['a grant twice', () => [issued({ grant: grantId(903) }), issued({ grant: grantId(903) })], `issues the grant ${grantId(903)} once more`],
    ['the end of what never was', () => [revoked('grant_x')], 'ends the grant grant_x, which was not issued before'],
    ['the end of what comes later', () => [revoked(grantId(904)), issued({ grant: grantId(904) })], `ends the grant ${grantId(904)}, which was not issued before`],
    ['two ends', () => [issued({ grant: grantId(905) }), revoked(grantId(905)), revoked(grantId(905))], `ends the grant ${grantId(905)}, which entry 7 had ended`],
    ['an end after that of many', () => [issued({ grant: grantId(906), task: 't' }), allRevoked({ task: 't', workload: 'bot' }), revoked(grantId(906), { task: 't' })], `ends the grant ${grantId(906)}, which entry 7 had ended`],
    ['an end after its time', () => [issued({ grant: grantId(907) }), { ...revoked(grantId(907)), atMs: 10 * minute }], `ends the grant ${grantId(907)}, which was over`],
    ["another's end", () => [issued({ grant: grantId(908) }), revoked(grantId(908), { workload: 'other' })], `ends the grant ${grantId(908)} with another workload than entry 6 issued it with`],
    ["another tool's end", () => [issued({ grant: grantId(909) }), revoked(grantId(909), { tool: 'payments' })], `ends the grant ${grantId(909)} with another tool than entry 6 issued it with`],
    ['an end by somebody else', () => [issued({ grant: grantId(910) }), revoked(grantId(910), { actor: { kind: 'workload', id: 'other' } })], `ends the grant ${grantId(910)} by the word of another workload`],
    ['a selector of nothing', () => [allRevoked({})], 'selects nothing'],
    ['a selector of what is to come', () => [allRevoked({ before: iso(minute) })], 'covers grants of a time to come'],
    ['a selector that names another', () => [{ ...allRevoked({ workload: 'bot' }), workload: 'other' }], 'selects another workload, tool or task than it names'],
    ['introspection of nothing', () => [{ type: 'introspection.refused', actor: { kind: 'workload', id: 'bot' }, workload: 'bot', grant: 'grant_x', proof_kid: kid }], 'is about the grant grant_x, which was not issued before'],
    ['a count of nobody', () => [{ type: 'requests.limited', actor: { kind: 'workload', id: 'nobody' }, workload: 'nobody', count: 1, since: iso(0), until: iso(0) }], 'is by the workload nobody, which was not registered before'],
    ['a name twice', () => [registered('bot', { kids: [] })], 'registers the workload bot once more'],
    ['a key twice', () => [of('workload.key_added', { kid: otherKid, alg: 'ES256' })], `registers the key ${otherKid} once more, which was other's`],
    ['a change of nobody', () => [of('workload.updated', { workload: 'nobody', before: {}, after: {} })], 'is about the workload nobody, which was not registered before'],
    ['resumed and never suspended', () => [of('workload.resumed')], 'says that bot is active, which it was since entry 4'],
    ['resumed after retirement', () => [of('workload.retired'), of('workload.resumed')], 'is about the workload bot, which entry 6 had retired'],
    ["another's key removed", () => [of('workload.key_removed', { kid: otherKid, alg: 'ES256' })], `ends the key ${otherKid}, which bot did not have`],
    ['a code that never was', () => [redeemed('e9', 'm')], 'is about the enrolment e9, which bot did not have'],
    ['a code twice', () => [code('e1'), redeemed('e1', 'm'), redeemed('e1', 'n')], 'is about the enrolment e1, which entry 7 had ended'],
    ['a code after its time', () => [code('e1'), { ...redeemed('e1', 'm'), atMs: 15 * minute }], 'redeems the enrolment e1 after its time'],
    ["another's code", () => [code('e1', { workload: 'other' }), redeemed('e1', 'm')], 'is about the enrolment e1, which bot did not have'],
    ['an operator that never was', () => [of('workload.suspended', { actor: { kind: 'operator', id: 'x' } })], 'is by the operator x, which was not there before'],
    ['an operator that was revoked', () => [operator('b'), { type: 'operator.revoked', actor: root, operator: 'b', name: 'b' }, of('workload.suspended', { actor: { kind: 'operator', id: 'b' } })], 'is by the operator b, which entry 7 had ended'],
    ['an operator that had expired', () => [operator('b', { expires_at: iso(minute) }), { ...of('workload.suspended', { actor: { kind: 'operator', id: 'b' } }), atMs: minute }], 'is by the operator b, which had expired'],
    ['a session that never began', () => [of('workload.suspended', byAda)], 'is by the oidc:ada in the session s1, which was not there before'],
    ["another's session", () => [session('s1', { subject: 'eve' }), of('workload.suspended', byAda)], 'is by the oidc:ada in the session s1, which was not there before'],
    ['a session that was over', () => [session('s1'), { type: 'operator.signed_out', actor: root, session: 's1', subject: 'ada' }, of('workload.suspended', byAda)], 'is by the oidc:ada in the session s1, which entry 7 had ended'],
    ['a log opened twice', () => [opened], 'opens the log once more'],
    ['time that runs backwards', () => [issued({}, {}, minute), issued({ expires_at: iso(10 * minute) }, {}, 0)], 'has an earlier time than the entry before it'],
  ]
  test.each(bad)('is found out: %s', (_, events, what) => {
    const all = [...base, ...events()]
    const verdict = verify(seal(bodiesOf(all)))
    const at = all.length - 1
    const expected = { line: expect.any(Number), index: expect.any(Number), what }
    expect(verdict.problems).toContainEqual(expected)
    // All but one of these cases are about the last entry.
    const placed = verdict.problems.filter(({ line }) => line !== undefined)
    if (!what.includes(grantId(904))) expect(placed).toEqual([{ ...expected, line: at + 1, index: at }])
    expect(verify(seal(bodiesOf(all)), { piece: 1 }).problems).toHaveLength(verdict.problems.length)
  })

  test('does not begin with another entry, nor with that of another log', () => {
    expect(verify(seal(bodiesOf(base.slice(1)))).problems).toContainEqual({ line: 1, index: 0, what: 'is of type operator.created, and the first entry of a log is log.opened' })
    const other = [{ ...opened, trust_domain: 'other.test' }, ...base.slice(1)]
    expect(verify(seal(bodiesOf(other))).problems).toEqual([{ line: 1, index: 0, what: 'opens the log other.test/log, and the key is that of stint.test/log' }])
  })

  test('explains a checkpoint that was given up, and never calls it proven', () => {
    const lost = bodiesOf([...base, issued(), issued()])
    const abandoned = treeOf(lost)
    const restored = [
      ...lost.slice(0, 6),
      makeEntry(
        { type: 'log.restored', actor: root, reason: 'disk', proofs_from: iso(0), abandoned: [{ anchor: 'file', size: abandoned.size, root: Buffer.from(abandoned.root).toString('base64') }] },
        6,
        startMs,
        randomBytes,
      ).body,
    ]
    expect(verify(seal(restored), { kept: sign(lost) })).toMatchObject({ kept: { size: 8, status: 'not covered', abandonedBy: 6 }, problems: [] })
    const longer = [...restored, ...Array.from({ length: 3 }, (_, i) => makeEntry({ type: 'policy.rejected', actor: root, problems: 1, first_problem: 'x' }, 7 + i, startMs, randomBytes).body)]
    expect(verify(seal(longer), { kept: sign(lost) })).toMatchObject({ kept: { size: 8, status: 'contradicted', abandonedBy: 6 }, problems: [{ what: expect.stringContaining('rewritten or forked') }] })
    // A checkpoint of the same size that nobody gave up is not explained by it.
    const forged = sign([...lost.slice(0, 7), 'x'])
    expect(verify(seal(longer), { kept: forged }).kept).toEqual({ size: 8, status: 'contradicted' })
  })
})
