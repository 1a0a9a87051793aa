import { describe, expect, it } from 'vitest'
import { describeEvent, formatEntries } from '../../src/cli/audit-line.ts'

const request = { workload: 'bot', tool: 'tickets', actions: ['tickets:read', 'tickets:comment'], ttl_seconds: 600 }
const decision = { verdict: 'allow', reasons: ['support-reads'], errors: [] }

describe('describeEvent', () => {
  it.each<[string, Record<string, unknown>, string]>([
    [
      'a grant',
      { ...request, target: 'acme', task: 't-1', grant: 'grant_1', decision, actor: { kind: 'workload', id: 'bot' } },
      'allow: tickets:read tickets:comment on acme for 10m task t-1 grant grant_1 (by support-reads)',
    ],
    ['a denial by default', { ...request, decision: { verdict: 'deny', reasons: [], errors: [] } }, 'deny: tickets:read tickets:comment for 10m (no rule permits it)'],
    [
      'a denial by an error',
      { ...request, decision: { verdict: 'deny', reasons: ['x'], errors: ['y: overflow'] } },
      'deny: tickets:read tickets:comment for 10m (by x; error: y: overflow)',
    ],
    [
      'an approval that is needed',
      { ...request, decision: { verdict: 'needs_approval', approvals_needed: 2, reasons: ['r'], errors: [] } },
      'needs 2 approvals: tickets:read tickets:comment for 10m (by r)',
    ],
    [
      'an export',
      { format: 'csv', selector: { workload: 'bot', from: '2026-01-01T00:00:00.000Z' }, first: 3, last: 99, actor: { kind: 'operator', id: '01' } },
      'entries 3 to 99 of workload bot, from 2026-01-01T00:00:00.000Z as csv by operator 01',
    ],
    ['an export of all', { format: 'jsonl', selector: {}, first: 0, last: 7 }, 'entries 0 to 7 as jsonl'],
    ['a refusal', { code: 'invalid_scope', detail: 'no such action' }, 'invalid_scope: no such action'],
    [
      'strangers',
      { realm: 'workload', reason: 'signature_invalid', count: 12, claimed: { bot: 7 } },
      'workload signature_invalid, 12 times, claiming to be bot (7)',
    ],
    ['a sign-in', { session: '01ab', issuer: 'https://id.example', subject: 'ada', role: 'admin' }, 'session 01ab of ada role admin issuer https://id.example'],
    ['one stranger', { realm: 'operator', reason: 'operator_unknown', count: 1 }, 'operator operator_unknown, 1 time'],
    [
      'a revocation of many',
      { selector: { workload: 'bot', before: '2026-11-21' }, task: 't', reason: 'odd', actor: { kind: 'operator', id: 'a1' } },
      'all grants of workload bot, before 2026-11-21 reason "odd" by operator a1',
    ],
    ['a change', { before: { stage: 'pilot', tags: [] }, after: { stage: 'production', tags: [] } }, 'stage pilot → production'],
    ['a policy set', { policy_set: 'ab'.repeat(32), policies: 12, tools: 3 }, 'set abababababab policies 12 tools 3'],
    [
      'a rotation',
      { workload: 'bot', kid: 'k2', alg: 'ES256', replaces: 'k1', until: '2026-11-21T10:00:00.000Z' },
      'key k2 ES256 in place of k1 until 2026-11-21T10:00:00.000Z',
    ],
    [
      'a log that was restored',
      { abandoned: [{ anchor: 'file /a', size: 9, root: 'AAA=' }, { anchor: 'witness w', size: 7 }], proofs_from: '2026-11-21T10:00:00.000Z', reason: 'disk' },
      'without 9 entries kept in file /a, 7 entries kept in witness w reason "disk"',
    ],
    [
      'the intent of a grant in an outside tool',
      { ...request, grant: 'grant_1', connector: 'postgres', ends: 'immediate', renews: 'grant_0', proof_grant: 'grant_2', reason: 'a look', decision, actor: { kind: 'workload', id: 'bot' } },
      'allow: tickets:read tickets:comment for 10m grant grant_1 through postgres going on from grant_0 ends immediate proven by a token of grant_2 (by support-reads) reason "a look"',
    ],
    ['one that was made', { tool: 'db', task: 't', grant: 'grant_1', reference: 'stint_1', dies_at: '2026-11-21T10:00:00.000Z' }, 'db task t grant grant_1 called stint_1 dies at 2026-11-21T10:00:00.000Z'],
    ['one that came to nothing', { tool: 'db', grant: 'grant_1', detail: 'No "role".' }, 'db grant grant_1 because "No \\"role\\"."'],
    ['one of unknown outcome', { tool: 'db', grant: 'grant_1', detail: 'cut', may_live_until: '2026-11-21T10:00:00.000Z' }, 'db grant grant_1 may live until 2026-11-21T10:00:00.000Z because "cut"'],
    ['one that has ended', { tool: 'db', grant: 'grant_1', cause: 'revoked', effect: 'immediate', actor: { kind: 'stint', id: 'sweep' } }, 'db grant grant_1 cause revoked effect immediate by stint sweep'],
    ['one that is stuck', { tool: 'db', grant: 'grant_1', tries: 10, detail: 'down' }, 'db grant grant_1 tries 10 because "down"'],
    ['one that was written off', { tool: 'db', grant: 'grant_1', reason: 'gone', actor: { kind: 'operator', id: 'a1' } }, 'db grant grant_1 reason "gone" by operator a1'],
    [
      'a cut-off',
      { tool: 'reports', before: '2026-01-15T12:01:00.000Z', bystanders: 2, reason: 'a leak', actor: { kind: 'operator', id: 'a1' } },
      'reports of what was made before 2026-01-15T12:01:00.000Z with bystanders 2 reason "a leak" by operator a1',
    ],
    ['what was left in a tool', { tool: 'db', grant: 'grant_1', reference: 'stint_1', actor: { kind: 'operator', id: 'a1' } }, 'db grant grant_1 called stint_1 by operator a1'],
    ['a tool to be connected anew', { tool: 'crm', detail: 'used up' }, 'crm because "used up"'],
    ['a secret', { secret: 'crm-token', version: 3, actor: { kind: 'operator', id: 'a1' } }, 'secret crm-token version 3 by operator a1'],
    ["another's grant", { grant: 'grant_1', method: 'GET', route: '/v1/grants/:id' }, 'grant grant_1 GET /v1/grants/:id'],
    [
      'a revocation of a team',
      { selector: { workload: 'bot', tool: 'db', task: 't' }, workload: 'bot', tool: 'db', task: 't', owner: 'support', actor: { kind: 'operator', id: 'a1' } },
      'all grants of workload bot, tool db, task t of the team support by operator a1',
    ],
    ['something unknown', { colour: 'red' }, ''],
    ['garbage', { actions: 'x', decision: [], ttl_seconds: 'x', actor: null, selector: 1, target: { a: 1 }, grant: [] }, ''],
  ])('tells of %s', (_what, event, expected) => {
    expect(describeEvent(event)).toBe(expected)
  })
})

describe('formatEntries', () => {
  const entry = {
    index: 7,
    time: '2026-11-21T10:00:00.123Z',
    type: 'grant.denied',
    leaf_hash: 'x',
    event: { ...request, target: 'x\u001b]0;owned\u0007\n8  2026-11-21T10:00:01Z  grant.issued', decision },
  }

  it('keeps hostile targets from forging lines or steering the terminal', () => {
    const text = formatEntries([entry], undefined)
    expect(text.split('\n')).toHaveLength(3)
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
    expect(text).toContain('7      2026-11-21T10:00:00Z  grant.denied  bot       allow: tickets:read')
  })

  it('cuts lines to the terminal, and the time to what is needed there', () => {
    expect(formatEntries([entry], 100)).toContain(' 2026-11-21T10:00:00Z ')
    expect(formatEntries([entry], 99)).toContain(' 11-21 10:00:00 ')
    for (const line of formatEntries([entry], 60).split('\n')) expect([...line].length).toBeLessThanOrEqual(60)
  })
})
