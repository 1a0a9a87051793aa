import { describe, expect, it } from 'vitest'
import { startRealBroker } from '../client/real-broker.ts'
import { runRecorded } from './recorder.ts'

const credentialLine = /^stint_op_[0-9a-f]{16}_[\w-]{43}\n$/

/** A broker, and the command line as its admin or as whoever has another credential. */
async function setUp() {
  const { url, operator } = await startRealBroker()
  const as = (credential: string, ...args: string[]) =>
    runRecorded(args, { env: { STINT_URL: url, STINT_OPERATOR_TOKEN: credential.trim() } })
  return { as, asAdmin: (...args: string[]) => as(operator, ...args), operator }
}

describe('stint operator', () => {
  it('makes an operator, whose credential alone is in the output, and says who that is', async () => {
    const { as, asAdmin } = await setUp()
    const made = await asAdmin('operator', 'create', 'ada', '--role', 'auditor', '--expires-in', '90d')
    expect(made).toEqual({ code: 0, out: expect.stringMatching(credentialLine), err: expect.stringMatching(/^The credential of ada \(auditor\), good until 20.*Z, shown this once \(only its hash is kept\), audit entry \d+:\n$/) })
    expect(made.err).not.toContain(made.out.trim())
    const known = await as(made.out, 'whoami')
    expect(known).toMatchObject({ code: 0, err: '' })
    expect(known.out).toMatch(/^name +ada\nid +[0-9a-f]{16}\nrole +auditor\nexpires +20.*Z\n$/)
    const { expires_at: expiresAt } = JSON.parse((await as(made.out, 'whoami', '--json')).out)
    expect(Math.abs(Date.parse(expiresAt) - Date.now() - 90 * 86_400_000)).toBeLessThan(60_000)

    const lasting = await asAdmin('operator', 'create', 'bob', '--role', 'admin')
    expect(lasting.err).toMatch(/^The credential of bob \(admin\), which does not expire, shown this once/)
    expect((await as(lasting.out, 'whoami')).out).toMatch(/^expires +never$/m)
    const json = JSON.parse((await asAdmin('operator', 'create', 'cy', '--role', 'approver', '--expires-in', '2030-01-01', '--json')).out)
    expect(json).toMatchObject({ name: 'cy', status: 'active', expires_at: '2030-01-01T00:00:00.000Z', credential: expect.stringMatching(/^stint_op_/), audit_index: expect.any(Number) })
  })

  it('shows and lists operators, and never a credential', async () => {
    const { as, asAdmin } = await setUp()
    const auditor = (await asAdmin('operator', 'create', 'ada', '--role', 'auditor', '--expires-in', '90d')).out
    await asAdmin('operator', 'create', 'bob', '--role', 'approver')
    const shown = await as(auditor, 'operator', 'show', 'bob')
    expect(shown.out).toMatch(/^name +bob\nid +[0-9a-f]{16}\nrole +approver\nstatus +active\ncreated +20.*Z\nexpires +never\n$/)
    const listed = await as(auditor, 'operator', 'list')
    expect(listed.out.split('\n').map((line) => line.split(/ +/).slice(0, 3).join(' '))).toEqual([
      'NAME ROLE STATUS',
      'ada auditor active',
      'bob approver active',
      'root admin active',
      '',
    ])
    const page = await asAdmin('operator', 'list', '--limit', '1')
    expect([page.out.split('\n').length, page.err]).toEqual([3, 'There are more: --after ada\n'])
    const rest = JSON.parse((await asAdmin('operator', 'list', '--after', 'ada', '--role', 'admin', '--status', 'active', '--json')).out)
    expect(rest.operators.map(({ name }: { name: string }) => name)).toEqual(['root'])
    expect(await asAdmin('operator', 'list', '--status', 'revoked')).toEqual({ code: 0, out: '', err: 'No operator matches.\n' })
    for (const { out } of [shown, listed, page]) expect(out).not.toContain(auditor.trim().slice(-43))
  })

  it('replaces a credential, for others and for oneself', async () => {
    const { as, asAdmin } = await setUp()
    const first = (await asAdmin('operator', 'create', 'ada', '--role', 'auditor', '--expires-in', '3d')).out
    const second = await asAdmin('operator', 'rotate', 'ada')
    expect(second).toMatchObject({ code: 0, out: expect.stringMatching(credentialLine) })
    expect((await as(first, 'whoami')).code).toBe(1)
    // It ends as the first one would have, and soon.
    expect((await as(second.out, 'whoami')).err).toBe('It expires soon. An admin renews it: stint operator rotate ada --expires-in 90d\n')
    const third = await as(second.out, 'operator', 'rotate', '--self')
    expect([third.code, (await as(second.out, 'whoami')).code, (await as(third.out, 'whoami')).code]).toEqual([0, 1, 0])
    const renewed = await asAdmin('operator', 'rotate', 'ada', '--expires-in', '90d')
    expect(await as(renewed.out, 'whoami')).toMatchObject({ code: 0, err: '' })
  })

  it('ends an operator for good', async () => {
    const { as, asAdmin } = await setUp()
    const credential = (await asAdmin('operator', 'create', 'ada', '--role', 'auditor')).out
    const revoked = await asAdmin('operator', 'revoke', 'ada', '--reason', 'left the team')
    expect(revoked.out).toMatch(/^status +revoked$/m)
    expect(revoked.out).toMatch(/^revoked +20.*Z\naudit entry +\d+$/m)
    const line = (await asAdmin('audit', 'list', '--limit', '1')).out
    expect(line).toMatch(/operator\.revoked .*named ada reason "left the team" by operator /)
    const refused = await as(credential, 'whoami')
    expect([refused.code, refused.out]).toEqual([1, ''])
    // In the words for a credential that nobody ever had.
    expect(refused.err).toBe((await as(`stint_op_${'0'.repeat(16)}_${'A'.repeat(43)}`, 'whoami')).err)
    expect((await asAdmin('operator', 'rotate', 'ada')).err).toContain('ada was revoked, which is final: make another operator.')
  })

  it('says what is wrong, and what to do', async () => {
    const { as, asAdmin } = await setUp()
    const auditor = (await asAdmin('operator', 'create', 'ada', '--role', 'auditor')).out
    const wrong: readonly (readonly [number, string, readonly string[]])[] = [
      [2, "the operator's name is missing", ['create', '--role', 'admin']],
      [2, '--role is needed', ['create', 'bob']],
      [2, '--expires-in must be a duration from now, such as 90d', ['create', 'bob', '--role', 'admin', '--expires-in', 'soon']],
      [2, "the operator's name, or --self, is missing", ['rotate']],
      [2, 'only options are taken here', ['rotate', 'ada', '--self']],
      [2, 'your own credential lasts as long as it did', ['rotate', '--self', '--expires-in', '90d']],
      [1, 'did you mean auditor?', ['create', 'bob', '--role', 'auditer']],
      [1, 'A credential expires in the future, at most 3650 days ahead.', ['create', 'bob', '--role', 'admin', '--expires-in', '9999d']],
      [1, 'names are never used twice', ['create', 'ada', '--role', 'admin']],
      [1, 'There is no operator bob.', ['show', 'bob']],
      [1, "the operator's name is missing or malformed", ['show', '..']],
      [1, 'root is the last admin whose credential does not expire', ['revoke', 'root']],
    ]
    for (const [code, message, args] of wrong) {
      expect([args, await asAdmin('operator', ...args)]).toMatchObject([args, { code, out: '', err: expect.stringContaining(message) }])
    }
    const refused = await as(auditor, 'operator', 'create', 'bob', '--role', 'admin')
    expect(refused).toMatchObject({ code: 1, out: '', err: expect.stringContaining('This needs the role admin, and this credential has the role auditor.') })
  })
})
