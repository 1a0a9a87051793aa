import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ownAudience } from '../../src/broker/authenticate.ts'
import { isOver, nextState, type GrantState, type GrantStep } from '../../src/grant/grant.ts'
import { allRevoked, base, bodiesOf, grantId, iso, issued, kid, minting, minute, of, operator, root, registered, revoked, seal, sign, stint, verify, type Event } from './made-log.ts'

const grant = grantId(500)
const own = grantId(501)
const bot = { kind: 'workload', id: 'bot' } as const
const lateMs = 10 * minute

/** Something about the one grant of these logs. */
const told = (type: string, more: object = {}, atMs = 0): Event => ({ type, actor: stint, workload: 'bot', grant, tool: 'tickets', ...more, atMs })
const intent = (more: Record<string, unknown> = {}) => minting({ grant, ...more })
const made = (more: object = {}, atMs = 0) => told('grant.activated', { actor: bot, ...more }, atMs)
const ended = (cause: string, more: object = {}, atMs = 0) => told('grant.ended', { cause, effect: 'immediate', ...more }, atMs)
const stuck = (atMs = 0) => told('grant.stuck', { tries: 10, detail: 'd' }, atMs)
const retried = (atMs = 0) => told('grant.retried', { actor: root, reason: 'r' }, atMs)
const writtenOff = (more: object = {}, atMs = 0) => told('grant.written_off', { actor: root, reason: 'r', ...more }, atMs)
const unknown = (untilMs: number) => told('grant.unknown', { detail: 'd', may_live_until: iso(untilMs) })
const outlives = (atMs = 0) => told('grant.outlives', { may_live_until: iso(60 * minute) }, atMs)
const renewed = (untilMs: number, more: Record<string, unknown> = {}, decision: Record<string, unknown> = {}, atMs = 0): Event => {
  const { audience: _audience, token_kid: _kid, ends: _ends, ...asked } = issued({ grant, expires_at: iso(untilMs), ...more }, decision, atMs)
  return { ...asked, type: 'grant.renewed' }
}
const denied = (): Event => {
  const { expires_at: _expires, ...asked } = renewed(lateMs, {}, { verdict: 'deny' })
  return { ...asked, type: 'grant.denied' }
}
const failed = () => told('grant.failed', { detail: 'd' })
const end = (more: object = {}, atMs = 0): Event => ({ ...revoked(grant, more), atMs })
const orphan = (id: string, atMs = 0): Event => ({ type: 'orphan.ended', actor: stint, tool: 'tickets', grant: id, reference: 'role_1', atMs })
const late = (event: Event, atMs: number): Event => ({ ...event, atMs })
/** A token with which the workload asks Stint itself. */
const ownToken = (more: Record<string, unknown> = {}) => issued({ grant: own, audience: ownAudience, ...more })
const byToken = { proof_kid: undefined, proof_grant: own }
const refused = (type: string, more: object = {}): Event => ({ type, actor: bot, workload: 'bot', proof_kid: kid, ...more })

const good: [string, Event[]][] = [
  ['made, and ended by its time', [intent(), made(), ended('expired', {}, lateMs)]],
  ['made, and ended when the tool had ended it', [intent(), made({ dies_at: iso(minute) }), ended('expired', {}, minute)]],
  ['never made', [intent(), failed()]],
  ['revoked while it was made, and never made', [intent(), end(), failed()]],
  ['revoked with many while it was made, and never made', [intent(), allRevoked({ tool: 'tickets' }), failed()]],
  ['a mint that was undone', [intent(), ended('undone')]],
  ['a mint that was undone after a revocation of many', [intent(), allRevoked({ workload: 'bot' }), ended('undone')]],
  ['a mint that could not be undone', [intent(), stuck(), retried(), outlives(), ended('undone')]],
  ['a mint that its time overtook', [intent(), ended('expired', {}, lateMs)]],
  ['an answer that was lost, until nothing can live any more', [intent(), unknown(5 * minute), ended('expired', {}, 5 * minute)]],
  ['an answer that was lost, and revoked', [intent(), unknown(60 * minute), end(), ended('revoked')]],
  ['an answer that was lost and found', [intent(), unknown(60 * minute), ended('undone')]],
  ['revoked while it was made', [intent(), end(), ended('revoked')]],
  ['revoked', [intent(), made(), end(), ended('revoked')]],
  ['given back', [intent(), made(), end({ actor: bot }), ended('revoked')]],
  ['revoked after its time, before it had ended', [intent(), made(), end({}, lateMs), ended('revoked', {}, lateMs)]],
  ['revoked with the tool', [intent(), made(), allRevoked({ tool: 'tickets' }), ended('revoked')]],
  ['revoked with the tool and the workload', [intent(), made(), allRevoked({ tool: 'tickets', workload: 'bot' }), ended('revoked')]],
  ['revoked with the owner', [intent(), made(), allRevoked({ workload: 'bot' }, { owner: 'support' }), ended('revoked')]],
  ['revoked with the task', [intent({ task: 't' }), made({ task: 't' }), allRevoked({ task: 't', tool: 'tickets' }), ended('revoked', { task: 't' })]],
  ['revoked with all before', [intent(), made(), late(allRevoked({ before: iso(minute) }), minute), ended('revoked', {}, minute)]],
  ['of a workload that was suspended meanwhile, and then revoked', [intent(), of('workload.suspended'), made(), end({ actor: stint }), ended('revoked')]],
  ['an answer that was lost, revoked, until nothing can live any more', [intent(), unknown(5 * minute), end(), ended('expired', {}, 5 * minute)]],
  ['revoked when its end had begun', [intent(), made(), outlives(lateMs), end({}, lateMs), ended('expired', {}, 60 * minute)]],
  ['revoked when it was stuck', [intent(), made(), stuck(lateMs), end({}, lateMs), ended('revoked', {}, lateMs)]],
  ['revoked by an operator who was gone when that could be recorded', [operator('b'), intent(), made(), { type: 'operator.revoked', actor: root, operator: 'b', name: 'b' }, end({ actor: { kind: 'operator', id: 'b' } }), allRevoked({ tool: 'tickets' }, { actor: { kind: 'operator', id: 'b' } })]],
  ['that lives on', [intent({ ends: 'expiry' }), made(), end(), outlives(), outlives(), ended('revoked', { effect: 'expiry' }, 60 * minute)]],
  ['stuck, tried again, given up', [intent(), made(), end(), stuck(), retried(), stuck(), writtenOff()]],
  ['stuck, tried again, ended', [intent(), made(), stuck(lateMs), retried(lateMs), ended('expired', {}, lateMs)]],
  ['ended otherwise than was promised, by less', [intent(), made(), end(), ended('revoked', { effect: 'propagating' })]],
  ['renewed', [intent(), made(), renewed(15 * minute, {}, {}, 5 * minute), ended('expired', {}, 15 * minute)]],
  ['renewed to the end of its longest life', [intent(), made(), renewed(15 * minute + 999, {}, {}, 5 * minute)]],
  ['a renewal that was denied', [intent(), made(), denied()]],
  ['a grant that goes on from another', [intent(), made(), minting({ renews: grant })]],
  ['a token that goes on from another', [issued({ grant }), issued({ renews: grant })]],
  ['an orphan of a log that was lost', [orphan('grant_x')]],
  ['an orphan of a grant that had ended', [intent(), made(), end(), ended('revoked'), orphan(grant)]],
  ['an orphan of a grant that came to nothing', [intent(), failed(), orphan(grant)]],
  ['an orphan of a grant that was written off', [intent(), stuck(), writtenOff(), orphan(grant)]],
  ['a proof by a token', [ownToken(), intent(byToken), issued(byToken), refused('grant.refused', { ...byToken, code: 'c', detail: 'd' })]],
  ['a refusal by a token that ended meanwhile', [ownToken(), revoked(own), refused('grant.refused', { ...byToken, code: 'c', detail: 'd' }), late(refused('grant.refused', { ...byToken, code: 'c', detail: 'd' }), lateMs)]],
  ["another's grant that was refused", [registered('third', { kids: [] }), intent(), refused('access.refused', { actor: { kind: 'workload', id: 'bot' }, grant, method: 'GET', route: '/v1/grants/{id}' })]],
  ['a grant of many, revoked of another tool', [intent(), made(), allRevoked({ tool: 'payments' }), end(), ended('revoked')]],
]

const misplaced = (state: string, since: number) => `has no place in the life of the grant ${grant}, which was ${state} since entry ${since}`
const bad: [string, Event[], string][] = [
  ['made without an intent', [made()], `is about the grant ${grant}, which was not issued before`],
  ['ended without an intent', [ended('undone')], `is about the grant ${grant}, which was not issued before`],
  ['renewed without an intent', [renewed(lateMs)], `is about the grant ${grant}, which was not issued before`],
  ['an intent twice', [intent(), intent()], `issues the grant ${grant} once more`],
  ['an intent for a token', [issued({ grant }), intent()], `issues the grant ${grant} once more`],
  ['a token that lives in a tool', [issued({ grant }), made()], `has no place in the life of the grant ${grant}, a token that entry 6 issued`],
  ['a token that ended in a tool', [issued({ grant }), end(), ended('revoked')], `has no place in the life of the grant ${grant}, a token that entry 6 issued`],
  ['a token that was renewed', [issued({ grant }), renewed(lateMs)], `has no place in the life of the grant ${grant}, a token that entry 6 issued`],
  ['an intent that was denied', [intent(), { ...minting({}, { verdict: 'deny' }) }], 'has the verdict deny in its decision'],
  ['an intent without a reason', [minting({}, { reasons: [] })], 'was allowed, and names no policy that permits it'],
  ['an intent by another set', [minting({}, { policy_set: 'c'.repeat(64) })], expect.stringContaining('was decided by the policy set ccc')],
  ['an intent by a suspended workload', [of('workload.suspended'), intent()], 'is by the workload bot, which entry 6 had suspended'],
  ['an intent by an unknown key', [intent({ proof_kid: 'x' })], 'is proven by the key x, which bot did not have'],
  ['an intent for too long', [intent({ expires_at: iso(lateMs + 1) })], `expires at ${iso(lateMs + 1)}, later than its 600 s allow`],
  ['an intent without an end', [intent({ expires_at: undefined })], 'does not say when it expires'],
  ['an intent without a connector', [intent({ connector: undefined })], 'does not say which grant is to be made, through which connector'],
  ['an intent without a grant', [intent({ grant: undefined })], 'does not say which grant is to be made, through which connector'],
  ['an intent without a promise', [intent({ ends: 'somehow' })], 'does not say how the grant is to end before its time'],
  ['an intent that goes on from nothing', [intent({ renews: 'grant_x' })], 'is about the grant grant_x, which was not issued before'],
  ['a token that goes on from nothing, after one that goes on from none', [issued(), issued({ renews: 'grant_x' })], 'is about the grant grant_x, which was not issued before'],
  ["an intent that goes on from another's", [issued({ grant: own, workload: 'other' }), intent({ renews: own })], `is about the grant ${own}, which was other's`],
  ['made twice', [intent(), made(), made()], misplaced('active', 7)],
  ['made after it failed', [intent(), failed(), made()], misplaced('failed', 7)],
  ['made after it ended', [intent(), ended('undone'), made()], misplaced('ended', 7)],
  ['made after its answer was lost', [intent(), unknown(lateMs), made()], misplaced('unknown', 7)],
  ['made after it was revoked', [intent(), end(), made()], misplaced('ending', 7)],
  ['made after it was revoked with many', [intent(), allRevoked({ tool: 'tickets' }), made()], `gives out the grant ${grant}, which entry 7 had ended`],
  ['made after its time', [intent(), made({}, lateMs)], `gives out the grant ${grant}, which had expired`],
  ['failed after it was made', [intent(), made(), failed()], misplaced('active', 7)],
  ['failed after it was made and revoked', [intent(), made(), end(), failed()], `says that nothing was made for the grant ${grant}, which had been given out`],
  ['failed twice', [intent(), failed(), failed()], misplaced('failed', 7)],
  ['a lost answer after it was made', [intent(), made(), unknown(lateMs)], misplaced('active', 7)],
  ['a lost answer after it was revoked', [intent(), end(), unknown(lateMs)], misplaced('ending', 7)],
  ['ended twice', [intent(), made(), end(), ended('revoked'), ended('revoked')], misplaced('ended', 9)],
  ['ended, and nobody had revoked it', [intent(), made(), ended('revoked')], `ends the grant ${grant} as revoked, which nobody had revoked`],
  ['ended, and another was revoked', [issued({ grant: own }), intent(), made(), revoked(own), ended('revoked')], `ends the grant ${grant} as revoked, which nobody had revoked`],
  ['ended, and another tool was revoked', [intent(), made(), allRevoked({ tool: 'payments' }), ended('revoked')], `ends the grant ${grant} as revoked, which nobody had revoked`],
  ['ended, and another tool of it was revoked', [intent(), made(), allRevoked({ tool: 'payments', workload: 'bot' }), ended('revoked')], `ends the grant ${grant} as revoked, which nobody had revoked`],
  ['ended, and those before it were revoked', [allRevoked({ tool: 'tickets' }), intent(), made(), ended('revoked')], `ends the grant ${grant} as revoked, which nobody had revoked`],
  ['ended, and its workload was suspended alone', [intent(), made(), of('workload.suspended'), ended('revoked')], `ends the grant ${grant} as revoked, which nobody had revoked`],
  ['ended before its time', [intent(), made(), ended('expired', {}, lateMs - 1)], `ends the grant ${grant} as expired, before its time`],
  ['ended before its renewed time', [intent(), made(), renewed(15 * minute, {}, {}, 5 * minute), ended('expired', {}, 15 * minute - 1)], `ends the grant ${grant} as expired, before its time`],
  ['ended before the tool had ended it', [intent(), made({ dies_at: iso(minute) }), ended('expired', {}, minute - 1)], `ends the grant ${grant} as expired, before its time`],
  ['undone after it was given out', [intent(), made(), end(), ended('undone')], `undoes the grant ${grant}, which had been given out`],
  ['ended for no cause', [intent(), ended('whim')], `ends the grant ${grant} for no cause that this program knows`],
  ['ended by more than was promised', [intent({ ends: 'propagating' }), made(), end(), ended('revoked')], `claims another effect for the end of the grant ${grant} than entry 6 promised`],
  ['ended in an unknown way', [intent(), ended('undone', { effect: 'magic' })], `claims another effect for the end of the grant ${grant} than entry 6 promised`],
  ["ended with another's task", [intent(), ended('undone', { task: 't' })], `is about the grant ${grant} with another task than entry 6 issued it with`],
  ['ended with another workload', [intent(), ended('undone', { workload: 'other' })], `is about the grant ${grant} with another workload than entry 6 issued it with`],
  ['ended with another tool', [intent(), ended('undone', { tool: 'payments' })], `is about the grant ${grant} with another tool than entry 6 issued it with`],
  ['ended while nobody tried', [intent(), made(), end(), stuck(), ended('revoked')], misplaced('stuck', 9)],
  ['stuck, and nothing had ended it', [intent(), made(), stuck()], `says that the grant ${grant} could not be ended, and nothing had ended it`],
  ['living on, and nothing had ended it', [intent(), made(), outlives()], `says that the grant ${grant} could not be ended, and nothing had ended it`],
  ['stuck twice', [intent(), stuck(), stuck()], misplaced('stuck', 7)],
  ['living on while nobody tried', [intent(), stuck(), outlives()], misplaced('stuck', 7)],
  ['stuck after it ended', [intent(), ended('undone'), stuck()], misplaced('ended', 7)],
  ['tried again, and never stuck', [intent(), made(), end(), retried()], misplaced('ending', 8)],
  ['tried again after it was written off', [intent(), stuck(), writtenOff(), retried()], misplaced('written off', 8)],
  ['written off, and never stuck', [intent(), made(), end(), writtenOff()], misplaced('ending', 8)],
  ['written off by itself', [intent(), stuck(), writtenOff({ actor: stint })], `writes off the grant ${grant}, and not by the word of an operator`],
  ['renewed while it was made', [intent(), renewed(lateMs)], misplaced('minting', 6)],
  ['renewed after it ended', [intent(), made(), ended('expired', {}, lateMs), renewed(20 * minute, {}, {}, lateMs)], misplaced('ended', 8)],
  ['renewed after it was revoked', [intent(), made(), end(), renewed(lateMs)], `renews the grant ${grant}, which entry 8 had ended`],
  ['renewed after it was revoked with many', [intent(), made(), allRevoked({ workload: 'bot', tool: 'tickets' }), renewed(lateMs)], `renews the grant ${grant}, which entry 8 had ended`],
  ['renewed after its time', [intent(), made(), renewed(20 * minute, {}, {}, lateMs)], `renews the grant ${grant}, which had expired`],
  ['renewed backwards', [intent(), made(), renewed(lateMs - 1)], `renews the grant ${grant} until no later than it would have expired`],
  ['renewed in vain', [intent(), made(), renewed(lateMs)], `renews the grant ${grant} until no later than it would have expired`],
  ['renewed backwards after it was renewed', [intent(), made(), renewed(12 * minute, {}, {}, 2 * minute), renewed(11 * minute, {}, {}, 2 * minute)], `renews the grant ${grant} until no later than it would have expired`],
  ['renewed for too long', [intent(), made(), renewed(lateMs + 1000)], `expires at ${iso(lateMs + 1000)}, later than its 600 s allow`],
  ['renewed without an end', [intent(), made(), renewed(lateMs, { expires_at: undefined })], 'does not say when it expires'],
  ['renewed for another task', [intent(), made(), renewed(lateMs + 1, { task: 't' })], `renews the grant ${grant} with another task than entry 6 issued it with`],
  ['renewed without a decision', [intent(), made(), renewed(lateMs, {}, { verdict: undefined })], 'has no decision'],
  ['renewed against a decision', [intent(), made(), renewed(lateMs, {}, { verdict: 'needs_approval' })], 'has the verdict needs_approval in its decision'],
  ['renewed by another', [intent(), made(), renewed(lateMs + 1, { workload: 'other' })], `renews the grant ${grant} with another workload than entry 6 issued it with`],
  ['a renewal of nothing', [intent(), made(), renewed(lateMs, { grant: undefined })], 'does not say which grant was renewed'],
  ["a denial about another's", [issued({ grant, workload: 'other' }), denied()], `is about the grant ${grant}, which was other's`],
  ['revoked after it ended', [intent(), ended('undone'), end()], misplaced('ended', 7)],
  ['revoked after it failed', [intent(), failed(), end()], misplaced('failed', 7)],
  ['revoked twice', [intent(), made(), end(), end()], `ends the grant ${grant}, which entry 8 had ended`],
  ['revoked twice while its answer is lost', [intent(), unknown(lateMs), end(), end()], `ends the grant ${grant}, which entry 8 had ended`],
  ['revoked after it was written off', [intent(), stuck(), writtenOff(), end()], misplaced('written off', 8)],
  ['revoked after many were', [intent(), made(), allRevoked({ tool: 'tickets' }), end()], `ends the grant ${grant}, which entry 8 had ended`],
  ['revoked by another', [intent(), made(), end({ actor: { kind: 'workload', id: 'other' } })], `ends the grant ${grant} by the word of another workload`],
  ['an orphan of a grant that is alive', [intent(), made(), orphan(grant)], `ends the grant ${grant} as one that nobody looks after, which was active since entry 7`],
  ['an orphan of a grant that is made', [intent(), orphan(grant)], `ends the grant ${grant} as one that nobody looks after, which was minting since entry 6`],
  ['an orphan of a grant that is to end', [intent(), made(), end(), orphan(grant)], `ends the grant ${grant} as one that nobody looks after, which was ending since entry 8`],
  ['an orphan of a grant that is stuck', [intent(), stuck(), orphan(grant)], `ends the grant ${grant} as one that nobody looks after, which was stuck since entry 7`],
  ['a selector of another tool', [{ ...allRevoked({ tool: 'tickets' }), tool: 'payments' }], 'selects another workload, tool or task than it names'],
  ['a selector of what is not known', [allRevoked({ team: 'support' })], 'selects by team in a way that this program does not know'],
  ['a selector of a number', [{ ...allRevoked({ workload: 5 }), workload: undefined }], 'selects by workload in a way that this program does not know'],
  ['an owner without a workload', [allRevoked({ tool: 'tickets' }, { owner: 'support' })], 'names an owner, and none of its workloads'],
  ['both proofs', [ownToken(), intent({ proof_grant: own })], 'does not say which workload asked by which proof'],
  ['no proof', [intent({ proof_kid: undefined })], 'does not say which workload asked by which proof'],
  ['a token that never was', [intent(byToken)], `is proven by a token of the grant ${own}, which was not issued before`],
  ["another's token", [ownToken({ workload: 'other' }), intent(byToken)], `is proven by a token of the grant ${own}, which was other's`],
  ['a token for somebody else', [issued({ grant: own }), intent(byToken)], `is proven by a token of the grant ${own}, which was not for asking Stint`],
  ['what is no token', [minting({ grant: own }), intent(byToken)], `is proven by a token of the grant ${own}, which was not for asking Stint`],
  ['a token that was revoked', [ownToken(), revoked(own), intent(byToken)], `is proven by a token of the grant ${own}, which entry 7 had ended`],
  ['a token that was good and then revoked', [ownToken(), issued(byToken), revoked(own), issued(byToken)], `is proven by a token of the grant ${own}, which entry 8 had ended`],
  ['a token that was revoked with many', [ownToken(), allRevoked({ workload: 'bot' }), intent(byToken)], `is proven by a token of the grant ${own}, which entry 7 had ended`],
  ['a token that had expired', [ownToken(), issued({ ...byToken, expires_at: iso(20 * minute) }, {}, lateMs)], `is proven by a token of the grant ${own}, which was over`],
  ['a token of a suspended workload', [ownToken(), of('workload.suspended'), intent(byToken)], 'is by the workload bot, which entry 7 had suspended'],
  ["a refusal by another's token", [ownToken({ workload: 'other' }), refused('grant.refused', { ...byToken, code: 'c', detail: 'd' })], `is proven by a token of the grant ${own}, which was other's`],
  ['a refusal about nothing', [refused('access.refused', { grant: 'grant_x', method: 'GET', route: '/' })], 'is about the grant grant_x, which was not issued before'],
  ['a refusal that names no grant', [refused('access.refused', { method: 'GET', route: '/' })], 'names no grant'],
]

/** Of the export only the entries: a checkpoint that was kept proves as much. */
const judgeBodies = (bodies: readonly string[]) => verify(bodies, { kept: sign(bodies) })

describe('The life of a grant in an outside tool', () => {
  test.each(good)('may be: %s', (_, events) => {
    expect(verify(seal(bodiesOf([...base, ...events]))).problems).toEqual([])
  })

  test.each(bad)('cannot be: %s', (_, events, what) => {
    const lines = seal(bodiesOf([...base, ...events]))
    const at = base.length + events.length - 1
    const expected = { line: at + 1, index: at, what }
    const { problems } = verify(lines)
    // Whatever else the file is wrong with follows from the last entry.
    expect(problems.filter(({ line }) => line !== undefined)).toEqual([expected])
    expect(verify(lines, { piece: 1 }).problems).toEqual(problems)
  })

  test('is counted by what became of it', () => {
    const of = (n: number, ...events: Event[]) => events.map((event) => ({ ...event, grant: grantId(n) }))
    const log = [
      ...of(1, intent(), failed()),
      ...of(2, intent(), made(), end(), ended('revoked'), ended('revoked')),
      ...of(3, intent(), ended('undone')),
      ...of(4, intent(), stuck(), retried(), stuck()),
      ...of(5, intent(), stuck(), writtenOff()),
      ...of(6, intent(), unknown(60 * minute)),
      ...of(7, intent(), made()),
      ...of(8, intent(), made(), renewed(19 * minute, {}, {}, lateMs - 1)),
      ...of(9, issued()),
      late(issued({ expires_at: iso(20 * minute) }, {}, lateMs), lateMs),
    ].toSorted((a, b) => (a.atMs ?? 0) - (b.atMs ?? 0))
    const { life } = verify(seal(bodiesOf([...base, ...log])))
    expect(life).toMatchObject({ issued: 10, revoked: 1, outside: { issued: 8, failed: 1, ended: 2, open: 3, overdue: 2, stuck: 1, writtenOff: 1 } })
    expect(verify(seal(bodiesOf(base))).life.outside).toEqual({ issued: 0, failed: 0, ended: 0, open: 0, overdue: 0, stuck: 0, writtenOff: 0 })
  })

  test('is known for as long as it lasts, however many tokens come and go meanwhile', () => {
    const [first, second] = [grantId(1), grantId(2)]
    const tokens = (count: number, atMs: number) => Array.from({ length: count }, () => issued({ expires_at: iso(atMs + lateMs) }, {}, atMs))
    const over = 60 * minute
    const log = bodiesOf([
      ...base,
      ownToken(),
      intent({ grant: first }),
      made({ grant: first }),
      intent({ grant: second }),
      made({ grant: second }),
      { ...end(), grant: second },
      { ...ended('revoked'), grant: second },
      // The 10,000th one has what is over forgotten.
      ...tokens(9_990, 0),
      ...tokens(20, over),
    ])
    const judge = (last: Event) => judgeBodies([...log, ...bodiesOf([last], log.length)])
    const known = judge(ended('expired', { grant: first }, over))
    expect(known).toMatchObject({ problems: [], life: { outside: { issued: 2, ended: 2, open: 0 } } })
    expect(judge(ended('revoked', { grant: first }, over)).problems).toMatchObject([{ what: `ends the grant ${first} as revoked, which nobody had revoked` }])
    expect(judge(issued({ ...byToken, expires_at: iso(over + lateMs) }, {}, over)).problems).toMatchObject([{ what: `is proven by a token of the grant ${own}, which was over` }])
    expect(judge(refused('grant.refused', { ...byToken, code: 'c', detail: 'd', atMs: over })).problems).toEqual([])
    // One that is over has not to be known any more.
    expect(judge(ended('revoked', { grant: second }, over)).problems).toMatchObject([{ what: `is about the grant ${second}, which was over` }])
    expect(judge(late({ ...end(), grant: second }, over)).problems).toMatchObject([{ what: `ends the grant ${second}, which was over` }])
  }, 60_000)
})

// What the log may tell is what the broker's own states allow.
test('An entry has its place exactly where the states of a grant have one for it', () => {
  /** The steps that an entry may stand for; to order the end needs no entry. */
  const stepsOf: Record<string, readonly (readonly GrantStep[])[]> = {
    'grant.activated': [['minted']],
    'grant.failed': [['mint_failed'], ['end_revoked']],
    'grant.unknown': [['mint_lost']],
    'grant.revoked': [['end_ordered'], ['retried'], []],
    'grant.outlives': [['end_ordered'], []],
    'grant.stuck': [['given_up'], ['end_ordered', 'given_up']],
    'grant.retried': [['retried']],
    'grant.written_off': [['written_off']],
    'grant.ended': [['end_revoked'], ['end_ordered', 'end_revoked']],
  }
  const endings = ['grant.failed', 'grant.written_off', 'grant.ended']
  const walk = (state: GrantState | undefined, steps: readonly GrantStep[]) => steps.reduce((at: GrantState | undefined, step) => at && nextState(at, step), state)
  const entries: Record<string, () => Event> = {
    'grant.activated': () => made(),
    'grant.failed': failed,
    'grant.unknown': () => unknown(lateMs),
    'grant.revoked': () => end(),
    'grant.outlives': () => outlives(),
    'grant.stuck': () => stuck(),
    'grant.retried': () => retried(),
    'grant.written_off': () => writtenOff(),
    'grant.ended': () => ended('undone'),
  }
  const seen = { accepted: 0, refused: 0 }
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...Object.keys(entries)), { minLength: 1, maxLength: 6 }), (types) => {
      let state: GrantState = 'minting'
      let isRevoked = false
      const expected: number[] = []
      types.forEach((type, i) => {
        const outcomes: (GrantState | undefined)[] = (stepsOf[type] ?? []).map((steps) => walk(state, steps))
        // That it lives on is told of one that is to end; it is revoked once, unless it is over, and what cannot be found lives on.
        if (type === 'grant.revoked' && isRevoked && !isOver(state)) return
        const next = type === 'grant.revoked' && state === 'unknown' ? state : outcomes.find((outcome) => outcome !== undefined && !isOver(outcome) === !endings.includes(type) && (type !== 'grant.outlives' || outcome === 'ending'))
        if (next === undefined) expected.push(base.length + 1 + i)
        else state = next
        isRevoked ||= type === 'grant.revoked' && next !== undefined
        seen[next === undefined ? 'refused' : 'accepted']++
      })
      const events = types.map((type) => entries[type]?.() ?? made())
      const { problems } = judgeBodies(bodiesOf([...base, intent(), ...events]))
      expect(problems.filter(({ what }) => what.startsWith('has no place')).map(({ index }) => index)).toEqual(expected)
    }),
    { numRuns: 150 },
  )
  expect(Math.min(seen.accepted, seen.refused)).toBeGreaterThan(50)
}, 60_000)
