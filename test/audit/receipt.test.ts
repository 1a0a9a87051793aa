import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { signCheckpoint } from '../../src/audit/checkpoint.ts'
import { makeEntry, type Entry } from '../../src/audit/entry.ts'
import type { AuditEvent } from '../../src/audit/event.ts'
import { formatVerifierKey, parseVerifierKey, type NoteVerifier } from '../../src/audit/note.ts'
import { inclusionNodes } from '../../src/audit/proof.ts'
import { makeReceipt, verifyReceipt, type Receipt } from '../../src/audit/receipt.ts'
import { systemRandom } from '../../src/kernel/ids.ts'
import { grantChange, note, startMs } from '../storage/changes.ts'
import { naiveLeaf, naiveRoot } from './naive-tree.ts'

const origin = 'stint.test/log'
const grant = 'grant_00000000000000000000000001'

function makeKey(name = origin) {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const verifierKey = formatVerifierKey(name, Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url'))
  const verifier = parseVerifierKey(verifierKey)
  if (verifier === undefined) throw new Error('no verifier')
  return { privateKey, verifier }
}
const key = makeKey()

const admin = { kind: 'operator', id: '0123456789abcdef' } as const
const revoked: AuditEvent = { type: 'grant.revoked', actor: admin, workload: 'triage-bot', grant, tool: 'github', task: 't-1', reason: 'odd' }
const asked: AuditEvent = { type: 'introspection.refused', actor: { kind: 'workload', id: 'spy' }, workload: 'spy', grant, proof_kid: 'k9' }
const revokedMany = (selector: { workload?: string; task?: string; before?: string }): AuditEvent => ({ type: 'grants.revoked', actor: admin, selector })
const [issued] = grantChange(grant, { task: 't-1' }).events

/** A log of these events, a second apart, with one before them and one behind. */
function makeLog(events: readonly AuditEvent[]): Entry[] {
  return [note(), ...events, note()].map((event, i) => makeEntry(event, i, startMs + i * 1000, systemRandom))
}

/** The receipt that a broker would give of these entries of the log. */
function receiptOf(log: readonly Entry[], indexes: readonly number[], { leftOut = 0, signer = key, name = origin } = {}): Receipt {
  const leaves = log.map(({ leafHash }) => leafHash)
  const root = naiveRoot(leaves)
  const entries = indexes.map((index) => ({
    index,
    body: log[index]?.body ?? '',
    proof: inclusionNodes(index, log.length).map(({ start, end }) => naiveRoot(leaves.slice(start, end))),
  }))
  const signed = signCheckpoint({ origin: name, size: log.length, root }, signer.privateKey, signer.verifier.keyId)
  // As it comes out of a file.
  return JSON.parse(JSON.stringify(makeReceipt(grant, entries, leftOut, signed))) as Receipt
}

/** The receipt of all of these events. */
const receiptFor = (...events: AuditEvent[]) => receiptOf(makeLog(events), events.map((_, i) => i + 1))

const problemsOf = (receipt: unknown, verifier: NoteVerifier = key.verifier) => verifyReceipt(receipt, verifier).problems.map(({ problem }) => problem)

describe('A receipt that is as the broker gave it', () => {
  test('of a live grant proves that it was issued, and claims nothing of its end', () => {
    const verdict = verifyReceipt(receiptFor(issued), key.verifier)
    expect(verdict).toMatchObject({ ok: true, grant, indexes: [1], problems: [], checkpoint: { origin, size: 3 } })
    expect(verdict.proven).toEqual([
      'Entry 1 is in the tree of 3 entries that stint.test/log has signed, word for word.',
      `Entry 1, 2026-01-15T12:00:01.000Z: triage-bot was given issues.read for github until 2026-01-15T12:10:00.000Z, for the task t-1, by triage-reads-issues of the policy set ${'a'.repeat(64)}.`,
    ])
    expect(verdict.unproven).toEqual([
      'That the grant lived until 2026-01-15T12:10:00.000Z: its end may stand in an entry that is not in this receipt.',
      'That the log has nothing else about this grant, be it among its 3 entries or after them: an export of the whole log shows that.',
    ])
  })

  test('of one that was revoked proves that, too', () => {
    const verdict = verifyReceipt(receiptFor(issued, asked, revoked, asked), key.verifier)
    expect(verdict).toMatchObject({ ok: true, indexes: [1, 2, 3, 4], problems: [] })
    expect(verdict.proven.slice(2)).toEqual([
      'Entry 3, 2026-01-15T12:00:03.000Z: it was revoked by operator 0123456789abcdef: odd.',
      '2 times another workload asked about it, or wanted to end it, and was refused.',
    ])
    expect(verdict.unproven).toEqual([expect.stringContaining('nothing else about this grant')])
  })

  test.each([
    [{ workload: 'triage-bot' }, 'of triage-bot'],
    [{ task: 't-1' }, 'of the task t-1'],
    [{ before: '2026-01-15T12:00:01.001Z' }, 'issued before 2026-01-15T12:00:01.001Z'],
    [{ workload: 'triage-bot', task: 't-1', before: '2026-01-15T12:00:02.000Z' }, 'of triage-bot, of the task t-1, issued before 2026-01-15T12:00:02.000Z'],
  ])('of one that ended by a revocation of many, %o', (selector, told) => {
    const verdict = verifyReceipt(receiptFor(issued, revokedMany(selector)), key.verifier)
    expect(verdict).toMatchObject({ ok: true, problems: [] })
    expect(verdict.proven[2]).toBe(`Entry 2, 2026-01-15T12:00:02.000Z: all grants ${told} were revoked, and this one among them by operator 0123456789abcdef.`)
  })

  test('says what the broker has left out', () => {
    const log = makeLog([issued, asked, asked])
    expect(verifyReceipt(receiptOf(log, [1], { leftOut: 2 }), key.verifier).unproven[1]).toBe('What 2 more entries about this grant say, which the broker has left out.')
    expect(receiptOf(log, [1, 2, 3])).not.toHaveProperty('left_out')
  })

  test('calls no end what came when the grant had run out', () => {
    const log = [...makeLog([issued]), makeEntry(revokedMany({ workload: 'triage-bot' }), 3, startMs + 600_000, systemRandom)]
    const verdict = verifyReceipt(receiptOf(log, [1, 3]), key.verifier)
    expect(verdict).toMatchObject({ ok: true, indexes: [1, 3] })
    expect(verdict.proven).toHaveLength(2)
    expect(verdict.unproven[0]).toContain('its end may stand in an entry that is not in this receipt')
  })

  test('verifies with what witnesses have signed behind it, and at every place in trees of all sizes', () => {
    const receipt = receiptFor(issued)
    const cosigned = `${receipt.checkpoint}\u2014 witness.test ${Buffer.alloc(76, 7).toString('base64')}\n`
    expect(problemsOf({ ...receipt, checkpoint: cosigned })).toEqual([])
    for (let size = 3; size <= 34; size++) {
      const events = Array.from({ length: size - 2 }, (_, i) => (i === 0 ? issued : asked))
      expect(problemsOf(receiptFor(...events))).toEqual([])
    }
  })
})

describe('A receipt is not believed', () => {
  const log = makeLog([issued, asked, revoked])
  const good = receiptOf(log, [1, 2, 3])
  const [first, second, third] = good.entries
  const changed = (over: object) => ({ ...good, ...over })
  const other = { proof: [Buffer.alloc(32, 1).toString('base64')] }
  const edited = (body = '') => body.replace('issues.read', 'issues.writ')
  const note2 = receiptOf(makeLog([issued]), [1]).checkpoint
  const notInTree = ['is not in the tree of 5 entries that was signed: its text, its place or its proof was changed']
  const outOfOrder = (before: number) => [`stands behind entry ${before}: out of order, or a second time`]
  const form = (what: string) => [expect.stringMatching(`^This is no receipt that this program knows: ${what}`)]

  test.each<[string, unknown, unknown]>([
    ['text', 'receipt', form('it ')],
    ['null', null, form('it ')],
    ['a list', [good], form('it ')],
    ['an object without anything', {}, form('receipt ')],
    ['another version', changed({ receipt: 2 }), form('receipt ')],
    ['a version as text', changed({ receipt: '1' }), form('receipt ')],
    ['a member too many', changed({ note: 'x' }), form('it has a member "note"')],
    ['a member too many of an entry', changed({ entries: [{ ...first, leaf: 'x' }] }), form('entries.0 has a member "leaf"')],
    ['no entries', changed({ entries: [] }), form('entries ')],
    ['an index that is none', changed({ entries: [{ ...first, index: 1.5 }] }), form('entries.0.index ')],
    ['an index below none', changed({ entries: [{ ...first, index: -1 }] }), form('entries.0.index ')],
    ['nothing left out, in words', changed({ left_out: 0 }), form('left_out ')],
    ['a hash that is none', changed({ entries: [{ ...first, proof: ['x'] }] }), form('entries.0.proof.0 ')],
    ['a hash in another base64', changed({ entries: [{ ...first, proof: [`${'A'.repeat(42)}B=`] }] }), form('entries.0.proof.0 ')],
    ['a grant of another name', changed({ grant: 'grant_00000000000000000000000002' }), ['issued another grant than grant_00000000000000000000000002']],
    ['a changed text', changed({ entries: [{ ...first, body: edited(first?.body) }, second, third] }), notInTree],
    ['a text with a space more', changed({ entries: [{ ...first, body: `${first?.body} ` }, second, third] }), notInTree],
    ['another place', changed({ entries: [{ ...first, index: 0 }, second, third] }), notInTree],
    ['a place beyond the tree', changed({ entries: [first, second, { ...third, index: 5 }] }), ['is not in the tree that was signed, which has only 5 entries, counted from 0']],
    ['a proof of another', changed({ entries: [{ ...first, proof: second?.proof }, second, third] }), notInTree],
    ['a proof that is cut', changed({ entries: [{ ...first, proof: first?.proof.slice(1) }, second, third] }), notInTree],
    ['a proof that is longer', changed({ entries: [{ ...first, proof: [...(first?.proof ?? []), ...other.proof] }, second, third] }), notInTree],
    ['no proof', changed({ entries: [first, { ...second, proof: [] }, third] }), notInTree],
    ['one entry twice', changed({ entries: [first, second, second, third] }), outOfOrder(2)],
    ['another order', changed({ entries: [first, third, second] }), outOfOrder(3)],
    ['a checkpoint that is none', changed({ checkpoint: 'x' }), ['The checkpoint of this receipt is none.']],
    ['a checkpoint without a signature', changed({ checkpoint: good.checkpoint.replace(/\u2014.*\n/, '') }), ['The checkpoint of this receipt is none.']],
    ['a checkpoint of another size', changed({ checkpoint: good.checkpoint.replace('\n5\n', '\n6\n') }), ['The checkpoint of this receipt was not signed by the key that was given.']],
    ['a checkpoint of another tree', changed({ checkpoint: note2 }), [...notInTree.map((text) => text.replace('of 5', 'of 3')), expect.any(String), expect.any(String)]],
    ['a checkpoint of another log', changed({ checkpoint: good.checkpoint.replace('stint.test', 'stint.best') }), ['The checkpoint of this receipt is of another log than stint.test/log, which the key is for.']],
  ])('with %s', (_, receipt, problems) => {
    const verdict = verifyReceipt(receipt, key.verifier)
    expect(verdict.problems.map(({ problem }) => problem)).toEqual(problems)
    expect(verdict).toMatchObject({ ok: false, proven: [], unproven: [] })
    expect(problemsOf(good)).toEqual([])
  })

  test('when another key has signed it, also under the same name', () => {
    const mallory = makeKey()
    expect(problemsOf(receiptOf(log, [1, 2, 3], { signer: mallory }))).toEqual(['The checkpoint of this receipt was not signed by the key that was given.'])
    expect(problemsOf(good, mallory.verifier)).toEqual(['The checkpoint of this receipt was not signed by the key that was given.'])
    expect(problemsOf(good, makeKey('other.test/log').verifier)).toEqual([expect.stringContaining('of another log than other.test/log')])
  })

  test('names each entry that is wrong', () => {
    const entries = [first, { ...second, body: '{}' }, { ...third, proof: [] }]
    const verdict = verifyReceipt(changed({ entries }), key.verifier)
    expect(verdict).toMatchObject({ ok: false, indexes: [1], problems: [{ index: 2 }, { index: 3 }] })
  })

  test('when half a surrogate pair stands for what has no bytes', () => {
    const odd = makeLog([{ ...issued, workload: '\ufffd' } as AuditEvent])
    const receipt = receiptOf(odd, [1])
    expect(problemsOf(receipt)).toEqual([])
    const [entry] = receipt.entries
    const body = entry?.body.replaceAll('\ufffd', '\ud800') ?? ''
    // The very bytes that were hashed.
    expect(Buffer.from(body)).toEqual(Buffer.from(entry?.body ?? ''))
    expect(problemsOf({ ...receipt, entries: [{ ...entry, body }] })).toEqual([expect.stringContaining('is not in the tree')])
  })
})

describe('A receipt whose entries are in the log is still none', () => {
  const otherGrant = 'grant_00000000000000000000000002'
  const notAbout = (type: string) => [`is ${type} and not about this grant`]

  test.each<[string, readonly AuditEvent[], readonly string[]]>([
    ['without the entry that issued the grant', [revoked], ['is grant.revoked: a receipt begins with the entry that issued the grant']],
    ['of a denial', [{ ...issued, type: 'grant.issued', decision: { ...('decision' in issued ? issued.decision : {}), verdict: 'deny' } } as AuditEvent], ['issued a grant, but not by a decision to allow it']],
    ['of another grant', grantChange(otherGrant).events, [`issued another grant than ${grant}`]],
    ['that was issued twice', [issued, issued], ['issues a grant a second time']],
    ['that was revoked twice', [issued, revoked, revoked], ['revokes the grant a second time']],
    ['with the end of another', [issued, { ...revoked, grant: otherGrant } as AuditEvent], notAbout('grant.revoked')],
    ['with the end of one of another workload', [issued, { ...revoked, workload: 'other' } as AuditEvent], notAbout('grant.revoked')],
    ['with the end of one for another tool', [issued, { ...revoked, tool: 'other' } as AuditEvent], notAbout('grant.revoked')],
    ['with a question about another', [issued, { ...asked, grant: otherGrant } as AuditEvent], notAbout('introspection.refused')],
    ['with something else', [issued, note()], notAbout('grant.refused')],
    ['with a revocation of nothing', [issued, revokedMany({})], notAbout('grants.revoked')],
    ['with a revocation of other workloads', [issued, revokedMany({ workload: 'other' })], notAbout('grants.revoked')],
    ['with a revocation of other tasks', [issued, revokedMany({ task: 't-2' })], notAbout('grants.revoked')],
    ['with a revocation of what was issued before it', [issued, revokedMany({ before: '2026-01-15T12:00:01.000Z' })], notAbout('grants.revoked')],
    ['with a revocation that only half fits', [issued, revokedMany({ workload: 'triage-bot', task: 't-2' })], notAbout('grants.revoked')],
    ['with a revocation by what is not known here', [issued, revokedMany({ workload: 'triage-bot', team: 'web' } as object)], notAbout('grants.revoked')],
  ])('%s', (_, events, problems) => {
    const verdict = verifyReceipt(receiptFor(...events), key.verifier)
    // The last of the events is what is wrong with it, and its entry is named.
    expect(verdict.problems).toEqual(problems.map((problem) => ({ index: events.length, problem })))
    expect(verdict.ok).toBe(false)
  })

  test('with a revocation of a task of which the grant knows nothing', () => {
    const [plain] = grantChange(grant).events
    expect(problemsOf(receiptFor(plain, revokedMany({ task: 't-1' })))).toEqual(notAbout('grants.revoked'))
  })

  test('in which time runs backwards', () => {
    const log = makeLog([issued])
    log.push(makeEntry(revoked, 3, startMs, systemRandom))
    expect(problemsOf(receiptOf(log, [1, 3]))).toEqual(['has an earlier time than the entry before it'])
  })

  test.each<[string, string]>([
    ['that is no JSON', '{'],
    ['that is no object', '[]'],
    ['with a space', '{"index": 1}'],
    ['in another order', '{"v":1,"type":"grant.issued","time":"","index":1}'],
    ['with a member twice', '{"index":1,"index":1,"time":"","type":"grant.issued","v":1}'],
    ['of another version', '{"index":1,"time":"","type":"grant.issued","v":2}'],
    ['of a depth beyond sense', '['.repeat(50_000)],
  ])('with an entry %s', (_, body) => {
    const entry = { ...makeLog([issued])[1], body } as Entry
    const leaf = Buffer.from(naiveLeaf(body))
    const log = makeLog([issued]).with(1, { ...entry, leafHash: leaf })
    expect(problemsOf(receiptOf(log, [1]))).toEqual(['is in the tree, and is no entry that Stint has written'])
  })

  test('with an entry that calls itself another', () => {
    const log = makeLog([issued])
    const twin = makeEntry(issued, 7, startMs, systemRandom)
    expect(problemsOf(receiptOf(log.with(1, twin), [1]))).toEqual(['calls itself entry 7'])
  })
})
