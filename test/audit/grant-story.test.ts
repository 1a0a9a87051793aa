import { describe, expect, test } from 'vitest'
import { judgeGrantStory } from '../../src/audit/grant-story.ts'
import type { StoryEntry } from '../../src/audit/story.ts'

const grant = 'grant_00000000000000000000000001'
const common = { workload: 'bot', grant, tool: 'orders-db' }
const admin = { kind: 'operator', id: 'a1' }
const decision = { verdict: 'allow', policy_set: 'abc', reasons: ['reads-orders'] }
const minute = (n: number): string => `2026-01-15T12:${String(n).padStart(2, '0')}:00.000Z`

type Said = Record<string, unknown> & { readonly type: string }
const minting = (more: object = {}): Said => ({
  type: 'grant.minting',
  ...common,
  actions: ['orders-db:read'],
  target: 'eu',
  task: 't-1',
  expires_at: minute(10),
  connector: 'postgres',
  ends: 'immediate',
  decision,
  ...more,
})
const said = (type: string, more: object = {}): Said => ({ type, ...common, ...more })
const made = (more: object = {}) => said('grant.activated', { reference: 'stint_1', ...more })
const ended = (cause: string, effect = 'immediate') => said('grant.ended', { cause, effect })
const revoked = said('grant.revoked', { actor: admin, reason: 'odd' })
const many = (selector: object, more: object = {}): Said => ({ type: 'grants.revoked', actor: admin, selector, ...more })

/** The story of these entries, a minute apart. */
function judge(entries: readonly Said[]) {
  return judgeGrantStory(grant, entries.map((entry, i): StoryEntry => ({ index: i + 1, time: minute(i), ...entry })))
}
/** What is told of it behind its beginning, and what is left open. */
function tell(...entries: readonly Said[]) {
  const { problems, proven, unproven } = judge([minting(), ...entries])
  expect(problems).toEqual([])
  return [proven.slice(1), unproven]
}
const elsewhere = 'its end may stand in an entry that is not in this receipt.'
const madeSentence = `Entry 2, ${minute(1)}: it was made, to be given out; orders-db calls it stint_1.`

describe('The story of a grant in an outside tool', () => {
  test('begins with what was to be given, and how it could be ended', () => {
    const first = `Entry 1, ${minute(0)}: bot was to be given orders-db:read on eu for orders-db until ${minute(10)}, for the task t-1, by reads-orders of the policy set abc; postgres was to make it.`
    expect(judge([minting()])).toEqual({ problems: [], proven: [`${first} Before its time it could be ended at once.`], unproven: [`That it has ended: ${elsewhere}`] })
    const promised = (ends: string) => judge([minting({ ends })]).proven[0]?.replace(first, '')
    expect(['propagating', 'introspection', 'expiry', 'magic'].map(promised)).toEqual([
      ' Before its time it could be ended, with the delay that the tool takes.',
      ' Before its time it could be ended for whoever asks Stint.',
      ' Before its time it could not be ended.',
      '',
    ])
    expect(judge([minting({ renews: 'grant_0' })]).proven[0]).toContain('for the task t-1, going on from grant_0, by reads-orders')
  })

  test.each<[string, readonly Said[], readonly string[], readonly string[]]>([
    ['was made', [made()], [madeSentence], [`That it has ended: ${elsewhere}`]],
    ['was made, and dies by itself', [made({ reference: undefined, dies_at: minute(30) })], [`Entry 2, ${minute(1)}: it was made, to be given out; it dies there by itself at ${minute(30)}.`], [`That it has ended, or that it lived until ${minute(30)}: ${elsewhere}`]],
    ['was never made', [said('grant.failed', { detail: 'There is no role.' })], [`Entry 2, ${minute(1)}: nothing was made: There is no role.`], []],
    [
      'may have been made',
      [said('grant.unknown', { detail: 'The answer was lost', may_live_until: minute(3) }), ended('expired')],
      [
        `Entry 2, ${minute(1)}: whether anything was made is not known, and until ${minute(3)} it may live: The answer was lost.`,
        `Entry 3, ${minute(2)}: its time was over, and it opens nothing any more: the tool has confirmed it.`,
      ],
      [],
    ],
    [
      'may have been made, and has died by now',
      [said('grant.unknown', { detail: 'The answer was lost.', may_live_until: minute(2) }), ended('expired')],
      [
        `Entry 2, ${minute(1)}: whether anything was made is not known, and until ${minute(2)} it may live: The answer was lost.`,
        `Entry 3, ${minute(2)}: its time was over, and it opens nothing any more: the tool was told, or it has died there by itself.`,
      ],
      [],
    ],
    ['was revoked and ended', [made(), revoked, ended('revoked')], [madeSentence, `Entry 3, ${minute(2)}: it was revoked by operator a1: odd.`, `Entry 4, ${minute(3)}: it was revoked, and it opens nothing any more: the tool has confirmed it.`], []],
    [
      'was revoked with many, more than once',
      [made(), many({ workload: 'bot', tool: 'orders-db' }, { owner: 'support' }), many({ task: 't-1' }), revoked],
      [madeSentence, `Entry 3, ${minute(2)}: all grants of the team support, of bot, for orders-db were revoked, and this one among them by operator a1.`],
      [`That it has ended: ${elsewhere}`],
    ],
    ['ended by its time', [made(), ended('expired')], [madeSentence, `Entry 3, ${minute(2)}: its time was over, and it opens nothing any more: the tool has confirmed it.`], []],
    ['was undone', [ended('undone')], [`Entry 2, ${minute(1)}: it was undone, for nobody was given it, and it opens nothing any more: the tool has confirmed it.`], []],
    ['ends with a delay', [made(), ended('revoked', 'propagating')], [madeSentence, `Entry 3, ${minute(2)}: it was revoked, and the tool has confirmed that, and takes a delay of its own until it opens nothing.`], ['That it opened nothing from that moment on: the tool takes a delay of its own.']],
    [
      'ends with a delay that is known',
      [made(), said('grant.ended', { cause: 'revoked', effect: 'propagating', effective_by: minute(9) })],
      [madeSentence, `Entry 3, ${minute(2)}: it was revoked, and the tool has confirmed that, and takes a delay of its own until it opens nothing: at ${minute(9)} at the latest.`],
      ['That it opened nothing from that moment on: the tool takes a delay of its own.'],
    ],
    ['ends for who asks', [made(), ended('revoked', 'introspection')], [madeSentence, `Entry 3, ${minute(2)}: it was revoked, and whoever asks Stint is told.`], ['That it opens nothing where nobody asks Stint.']],
    ['ends by its time alone', [made(), ended('expired', 'expiry')], [madeSentence, `Entry 3, ${minute(2)}: its time was over, and it opens nothing any more.`], []],
    ['lives on', [made(), revoked, said('grant.outlives', { may_live_until: minute(40) })], [madeSentence, expect.stringContaining('it was revoked by'), `Entry 4, ${minute(3)}: it cannot be ended before ${minute(40)}, whatever is done.`], [`That it has ended, or that it lived until ${minute(40)}: ${elsewhere}`]],
    ['is stuck', [made(), said('grant.stuck', { tries: 10, detail: 'It is down.' })], [madeSentence, `Entry 3, ${minute(2)}: orders-db would not end it, in 10 tries: It is down.`], [`That it has ended: entry 3 says that the tool would not end it, and ${elsewhere}`]],
    [
      'was tried again and written off',
      [said('grant.stuck', { tries: 1, detail: 'x' }), said('grant.retried', { actor: admin, reason: 'up' }), said('grant.stuck', { tries: 10, detail: 'y' }), said('grant.written_off', { actor: admin, reason: 'gone' })],
      [
        `Entry 2, ${minute(1)}: orders-db would not end it, in 1 try: x.`,
        `Entry 3, ${minute(2)}: another try to end it was ordered by operator a1: up.`,
        `Entry 4, ${minute(3)}: orders-db would not end it, in 10 tries: y.`,
        `Entry 5, ${minute(4)}: it was written off, whether or not it lives, by operator a1: gone.`,
      ],
      ['That it opens nothing any more: entry 5 only says that nobody looks after it.'],
    ],
    [
      'was renewed',
      [made(), said('grant.renewed', { expires_at: minute(15), decision }), said('grant.denied'), said('grant.renewed', { expires_at: minute(20), decision }), ended('expired')],
      [
        madeSentence,
        `Entry 5, ${minute(4)}: it was renewed, 2 times by then, until ${minute(20)}, by reads-orders of the policy set abc.`,
        `Entry 6, ${minute(5)}: its time was over, and it opens nothing any more: the tool has confirmed it.`,
        'Once the policy denied that it be renewed.',
      ],
      [],
    ],
    [
      'left something behind',
      [ended('undone'), { type: 'orphan.ended', actor: admin, tool: 'orders-db', grant, reference: 'stint_1' }, { type: 'access.refused', workload: 'spy', grant }, many({ tool: 'orders-db' })],
      [
        expect.stringContaining('it was undone'),
        `Entry 3, ${minute(2)}: what was left of it in orders-db, stint_1, was found and ended by operator a1.`,
        'Once another workload asked about it, or wanted to end it, and was refused.',
      ],
      [],
    ],
  ])('that %s', (_, entries, proven, unproven) => {
    expect(tell(...entries)).toEqual([proven, unproven])
  })

  const over = (index: number) => `comes after entry ${index}, by which the grant was over`
  const foreign = (type: string) => `is ${type} and not about this grant`
  test.each<[string, readonly Said[], string]>([
    ['a second beginning', [minting()], 'issues a grant a second time'],
    ['a token, too', [minting({ type: 'grant.issued' })], 'issues a grant a second time'],
    ['made twice', [made(), made()], 'is grant.activated a second time'],
    ['lost twice', [said('grant.unknown', { detail: 'd', may_live_until: 'x' }), said('grant.unknown', { detail: 'd', may_live_until: 'x' })], 'is grant.unknown a second time'],
    ['made after it failed', [said('grant.failed', { detail: 'd' }), made()], over(2)],
    ['ended twice', [ended('undone'), ended('undone')], over(2)],
    ['revoked after it was over', [ended('undone'), revoked], over(2)],
    ['tried again after it was written off', [said('grant.written_off', { actor: admin, reason: 'r' }), said('grant.retried', { actor: admin, reason: 'r' })], over(2)],
    ['revoked twice', [revoked, revoked], 'revokes the grant a second time'],
    ["another's end", [{ ...ended('undone'), grant: 'grant_2' }], foreign('grant.ended')],
    ['the end of one of another workload', [{ ...ended('undone'), workload: 'other' }], foreign('grant.ended')],
    ['the end of one of another tool', [{ ...ended('undone'), tool: 'other' }], foreign('grant.ended')],
    ['an end for no cause', [ended('whim')], foreign('grant.ended')],
    ['an end by magic', [ended('undone', 'magic')], foreign('grant.ended')],
    ['a renewal that was denied', [made(), said('grant.renewed', { expires_at: 'x', decision: { ...decision, verdict: 'deny' } })], foreign('grant.renewed')],
    ["a denial of another's", [{ ...said('grant.denied'), workload: 'other' }], foreign('grant.denied')],
    ["another's orphan", [{ type: 'orphan.ended', actor: admin, tool: 'other', grant, reference: 'x' }], foreign('orphan.ended')],
    ['something else', [said('grant.forgotten')], foreign('grant.forgotten')],
    ['a revocation for another tool', [many({ tool: 'other' })], foreign('grants.revoked')],
    ['a revocation for another tool of its workload', [many({ workload: 'bot', tool: 'other' })], foreign('grants.revoked')],
    ['time that runs backwards', [{ ...made(), time: '2026-01-15T11:00:00.000Z' }], 'has an earlier time than the entry before it'],
  ])('is none: %s', (_, entries, problem) => {
    expect(judge([minting(), ...entries]).problems).toEqual([{ index: entries.length + 1, problem }])
  })

  test('is none without a decision that allowed it', () => {
    expect(judge([minting({ decision: { ...decision, verdict: 'deny' } })]).problems).toEqual([{ index: 1, problem: 'issued a grant, but not by a decision to allow it' }])
    expect(judge([made()]).problems).toEqual([{ index: 1, problem: 'is grant.activated: a receipt begins with the entry that issued the grant' }])
  })
})

describe('The story of a token', () => {
  const token = minting({ type: 'grant.issued', connector: undefined })
  test('has nothing of an outside tool in it', () => {
    expect(judge([token, made()]).problems).toEqual([{ index: 2, problem: 'is grant.activated, and a token that Stint has signed has no such life' }])
    expect(judge([token, ended('revoked')]).problems).toHaveLength(1)
  })

  test('ends also with its tool', () => {
    const { problems, proven, unproven } = judge([token, many({ tool: 'orders-db' })])
    expect([problems, unproven]).toEqual([[], []])
    expect(proven[1]).toBe(`Entry 2, ${minute(1)}: all grants for orders-db were revoked, and this one among them by operator a1.`)
    expect(judge([minting({ type: 'grant.issued', renews: 'grant_0' })]).proven[0]).toContain(', going on from grant_0, by reads-orders')
  })
})
