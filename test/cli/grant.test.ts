import pg from 'pg'
import { describe, expect, inject, it, vi } from 'vitest'
import { parseTime } from '../../src/kernel/clock.ts'
import { runShell } from '../program.ts'
import { startGrantsSite } from './grants-site.ts'

vi.setConfig({ testTimeout: 60_000 })

/** Whether a credential still logs in. */
async function logsIn(config: pg.ClientConfig): Promise<boolean> {
  const client = new pg.Client(config)
  client.on('error', () => undefined)
  try {
    await client.connect()
    await client.query('select 1')
    return true
  } catch {
    return false
  } finally {
    await client.end().catch(() => undefined)
  }
}

const idPattern = /grant_[0-9a-z]{26}/

describe.skipIf(inject('postgres').missing !== undefined)('stint grant', () => {
  it('prints a credential that the tool takes, and what a person has to know of it apart', async () => {
    const { asBot, asOperator } = await startGrantsSite()
    const asked = await asBot(['grant', 'ledger', 'read', '--ttl', '5m', '--task', 't-1', '--reason', 'a report'])
    expect(asked).toMatchObject({ code: 0 })
    const fields = Object.fromEntries(asked.out.trimEnd().split('\n').map((line) => line.split(/ {2,}/)))
    expect(await logsIn({ host: fields.host, port: Number(fields.port), database: fields.database, user: fields.user, password: fields.password })).toBe(true)
    const grant = idPattern.exec(asked.err)?.[0] ?? ''
    expect(asked.err).toMatch(/^ledger:read for 5m, until 20\d\d-[^.]*Z: grant_\w+, audit entry \d+\nWhen it ends: The tool is told and confirms it: .*\n/)
    expect(asked.err).toContain(`To give it back: stint grant give-back ${grant}\n`)
    expect(asked.err).not.toContain(fields.password)

    const shown = await asBot(['grant', 'show', grant])
    expect(shown).toMatchObject({ code: 0, err: '' })
    expect(shown.out).toMatch(/^state +active\n/m)
    expect(shown.out).toMatch(/^task +t-1\n/m)
    expect(shown.out).not.toContain(fields.password)
    expect((await asOperator(['audit', 'list', '--json'])).out).toContain('a report')

    const back = await asBot(['grant', 'give-back', grant])
    expect(back).toEqual({ code: 0, err: '', out: expect.stringMatching(new RegExp(`^GRANT .*\\n${grant}  ledger  bot +ended, the tool has confirmed it\\n$`)) })
    expect(await logsIn({ host: fields.host, port: Number(fields.port), database: fields.database, user: fields.user, password: fields.password })).toBe(false)
    expect((await asBot(['grant', 'give-back', grant])).out).toContain('had ended before')
    expect((await asBot(['grant', 'show', grant])).out).toMatch(/^state +revoked\n/m)
  })

  it('prints the whole answer, or lines for a shell', async () => {
    const { asBot, folder, roles } = await startGrantsSite()
    const { code, out, err } = await asBot(['grant', 'ledger:read', '--json'])
    expect([code, err]).toEqual([0, ''])
    const answer = JSON.parse(out)
    expect(answer).toMatchObject({
      grant: expect.stringMatching(idPattern),
      tool: 'ledger',
      actions: ['ledger:read'],
      issued_at: expect.stringMatching(/Z$/),
      ends: { effect: 'immediate' },
      environment: { PGUSER: answer.credential.user, PGPASSWORD: answer.credential.password },
      audit_index: expect.any(Number),
    })
    expect((parseTime(answer.expires_at) ?? 0) - (parseTime(answer.issued_at) ?? 0)).toBeCloseTo(600_000, -3)
    expect(await logsIn(answer.credential)).toBe(true)

    const lines = await asBot(['grant', 'ledger', 'read', '--env'])
    expect([lines.code, lines.err]).toEqual([0, ''])
    for (const line of lines.out.trimEnd().split('\n')) expect(line).toMatch(/^(?:export [A-Z_]+='[^']*'|unset [A-Z_]+)$/)
    const evaluated = await runShell(`${lines.out}\necho "$STINT_GRANT"; test -n "$PGPASSWORD" && echo "$PGUSER"`, { cwd: folder })
    const [grant, user] = evaluated.out.split('\n')
    expect([grant, user]).toEqual([expect.stringMatching(idPattern), grant?.replace('grant_', `${user?.slice(0, -26)}`)])
    expect(await roles()).toHaveLength(2)
    // A person who looks on is told what the shell is not.
    expect((await asBot(['grant', 'ledger', 'read', '--env'], { errColumns: 80 })).err).toContain('To give it back: stint grant give-back')
  })

  it('gives back several, goes on where one is not there, and says so by its exit code', async () => {
    const { asBot, roles, setRootPassword } = await startGrantsSite()
    const ask = async (): Promise<string> => JSON.parse((await asBot(['grant', 'ledger', 'read', '--json'])).out).grant
    const [one, two] = [await ask(), await ask()]
    const foreign = `grant_${'0'.repeat(26)}`
    const mixed = await asBot(['grant', 'give-back', one, foreign, two])
    expect(mixed).toMatchObject({ code: 1, err: `stint: This workload has no grant ${foreign}.\n` })
    expect(mixed.out.match(/ended, the tool has confirmed it/g)).toHaveLength(2)
    expect(await roles()).toEqual([])

    const three = await ask()
    await setRootPassword('another')
    const refused = await asBot(['grant', 'give-back', three])
    expect(refused).toMatchObject({ code: 1, err: '' })
    expect(refused.out).toMatch(/not ended yet, the tool is asked again: .*password/)
    expect(JSON.parse((await asBot(['grant', 'give-back', three, '--json'])).out)).toMatchObject({ grants: [{ grant: three, outcome: 'retrying' }] })
    expect(await roles()).toHaveLength(1)
  })

  it('renews the same credential where that lasts, else prints a new one', async () => {
    const { asBot } = await startGrantsSite()
    const lent = JSON.parse((await asBot(['grant', 'ledger', 'read', '--ttl', '1m', '--json'])).out)
    const renewed = await asBot(['grant', 'renew', lent.grant, '--ttl', '20m'])
    expect(renewed).toEqual({ code: 0, out: '', err: expect.stringMatching(/^The same credential goes on until .*Z, and can be renewed until .*Z\. Audit entry \d+\.\n$/) })
    const again = JSON.parse((await asBot(['grant', 'renew', lent.grant, '--ttl', '30m', '--json'])).out)
    expect(Date.parse(again.expires_at) - Date.parse(lent.issued_at)).toBeGreaterThanOrEqual(1_800_000)
    expect(Date.parse(again.renewable_until) - Date.parse(lent.issued_at)).toBe(3_600_000)

    const token = JSON.parse((await asBot(['grant', 'tickets', 'read', '--json'])).out)
    expect(token).toMatchObject({ credential: { token_type: 'Bearer' }, ends: { effect: 'introspection' } })
    const next = await asBot(['grant', 'renew', token.grant])
    expect(next.out).toMatch(/^access_token  +\S+\n/)
    expect(next.err).toContain(`It goes on from ${token.grant}, which ends at its own time.\n`)
  })

  it('ends what was granted under a task, and nothing else', async () => {
    const { asBot, roles } = await startGrantsSite()
    for (const task of ['web/4711#1', 'web/4711#1', 'other']) await asBot(['grant', 'ledger', 'read', '--task', task, '--json'])
    await asBot(['grant', 'tickets', 'read', '--task', 'web/4711#1', '--json'])
    const completed = await asBot(['task', 'complete', 'web/4711#1'])
    expect(completed).toMatchObject({ code: 0, err: '' })
    expect(completed.out.match(/ledger .*ended, the tool has confirmed it/g)).toHaveLength(2)
    expect(completed.out.match(/tickets .*ended for whoever introspects/g)).toHaveLength(1)
    expect(await roles()).toHaveLength(1)
    expect(await asBot(['task', 'complete', 'never'])).toEqual({ code: 0, out: '', err: 'Nothing that was granted under never was alive.\n' })
  })

  it('is told what it may know of a refusal, and nothing is made', async () => {
    const { asBot, roles, postgres, setRootPassword } = await startGrantsSite()
    expect(await asBot(['grant', 'ledger', 'write'])).toMatchObject({ code: 1, out: '', err: expect.stringContaining('The policy does not allow this.') })
    expect(await asBot(['grant', 'ledgr', 'read'])).toMatchObject({ code: 1, err: expect.stringContaining('There is no tool ledgr in the catalog.') })
    expect(await asBot(['grant', 'ledger', 'read', '--ttl', '2h'])).toMatchObject({ code: 1, err: expect.stringContaining('at most 3600') })
    expect(await asBot(['grant', 'show', `grant_${'0'.repeat(26)}`])).toMatchObject({ code: 1, out: '', err: expect.stringContaining('This workload has no grant') })
    await setRootPassword('another')
    const down = await asBot(['grant', 'ledger', 'read'])
    expect(down).toMatchObject({ code: 1, out: '' })
    expect(down.err).not.toContain('root-password')
    expect(down.err).toContain(postgres.root)
    expect(await roles()).toEqual([])
  })
})
