import { describe, expect, inject, it, vi } from 'vitest'
import { makeStuck, startGrantsSite, type GrantsSite } from './grants-site.ts'
import { runRecorded } from './recorder.ts'

vi.setConfig({ testTimeout: 60_000 })

async function lend({ asBot }: GrantsSite, ...more: readonly string[]): Promise<string> {
  return JSON.parse((await asBot(['grant', 'ledger', 'read', '--json', ...more])).out).grant
}

describe.skipIf(inject('postgres').missing !== undefined)('an admin', () => {
  it('lists and shows the grants that live in tools', async () => {
    const site = await startGrantsSite()
    const { asOperator, asBot } = site
    expect(await asOperator(['grants'])).toEqual({ code: 0, out: '', err: 'No grant matches.\n' })
    const [one, two] = [await lend(site, '--task', 't-1'), await lend(site)]
    await asBot(['grant', 'give-back', two])
    const all = await asOperator(['grants', 'list', '--tool', 'ledger', '--workload', 'bot'])
    expect(all).toMatchObject({ code: 0, err: '' })
    expect(all.out.split('\n')).toEqual([
      expect.stringMatching(/^GRANT +TOOL +WORKLOAD +STATE +UNTIL +PROBLEM$/),
      expect.stringMatching(new RegExp(`^${one}  ledger  bot       active   20\\S+Z$`)),
      expect.stringMatching(new RegExp(`^${two}  ledger  bot       revoked  20\\S+Z$`)),
      '',
    ])
    const active = JSON.parse((await asOperator(['grants', '--state', 'active', '--json'])).out)
    expect(active).toEqual({ grants: [expect.objectContaining({ grant: one, task: 't-1', state: 'active' })] })
    const first = await asOperator(['grants', '--limit', '1'])
    expect(first.err).toBe(`There are more: --after ${one}\n`)
    expect((await asOperator(['grants', '--after', one])).out).toContain(two)
    const shown = await asOperator(['grants', 'show', one])
    expect(shown.out).toMatch(/^ends +immediate: The tool is told and confirms it/m)
    expect(shown.out).toMatch(new RegExp(`^in the tool +stint_\\w+${one.slice(-26)}$`, 'm'))
    expect(JSON.parse((await asOperator(['grants', 'show', two, '--json'])).out)).toMatchObject({ grant: two, state: 'revoked', ended_at: expect.any(String) })
    expect(await asOperator(['grants', 'show', `grant_${'0'.repeat(26)}`])).toMatchObject({ code: 1, err: expect.stringContaining('There is no grant') })
  })

  it('revokes by tool, team and workload, and is told of each grant what became of it', async () => {
    const site = await startGrantsSite()
    const { asOperator, asBot, roles } = site
    const one = await lend(site)
    await asBot(['grant', 'tickets', 'read', '--json'])
    const byTool = await asOperator(['revoke', '--tool', 'ledger'])
    expect(byTool).toEqual({ code: 0, err: '', out: expect.stringMatching(new RegExp(`^Ended 1 grant\\. Audit entry \\d+\\.\\nGRANT .*\\n${one}  ledger  bot       ended, the tool has confirmed it\\n$`)) })
    expect(await roles()).toEqual([])

    await lend(site)
    const byOwner = await asOperator(['revoke', '--owner', 'support'])
    expect(byOwner.out).toMatch(/^Ended 2 grants \(1 had ended already\)\. Audit entry \d+\.\n/)
    expect(byOwner.out.match(/tickets .*ended for whoever introspects/g)).toHaveLength(1)
    expect(await roles()).toEqual([])
    expect(await asOperator(['revoke', '--owner', 'nobody'])).toMatchObject({ code: 1, out: '', err: 'stint: There is no workload of the team nobody.\n' })

    await lend(site)
    const suspended = await asOperator(['revoke', '--workload', 'bot', '--suspend', '--reason', 'odd'])
    expect(suspended.out).toMatch(/^Ended 1 grant \(3 had ended already\)\. The workload is suspended\. Audit entry \d+\.\n/)
    expect((await asOperator(['workload', 'show', 'bot'])).out).toMatch(/^status +suspended$/m)
    expect(await roles()).toEqual([])
  })

  it('sees what a tool refuses to end, first and by its exit code, tries it again and writes it off', async () => {
    const site = await startGrantsSite()
    const { asOperator, roles, setRootPassword } = site
    const ids = [await lend(site), await lend(site), await lend(site)]
    const [one = '', two = '', three = ''] = ids
    await asOperator(['revoke', '--grant', one])
    await setRootPassword('another')
    const refused = await asOperator(['revoke', '--tool', 'ledger'])
    expect(refused).toMatchObject({ code: 1, err: '' })
    const lines = refused.out.trimEnd().split('\n')
    expect(lines[0]).toMatch(/^Ended 0 grants \(1 had ended already\)\. 2 have not ended yet\. Audit entry \d+\.$/)
    for (const line of lines.slice(2, 4)) expect(line).toMatch(new RegExp(`^(?:${two}|${three}) .* not ended yet, the tool is asked again: .*password`))
    expect(lines[4]).toContain(`${one}  ledger  bot       had ended before`)
    expect(refused.out).not.toContain('root-password')
    // Nothing is stuck yet.
    expect(await asOperator(['grants', 'retry', '--tool', 'ledger', '--reason', 'r'])).toEqual({ code: 0, out: '', err: 'Nothing is stuck in ledger.\n' })
    expect(await asOperator(['grants', 'write-off', two, '--reason', 'r'])).toMatchObject({ code: 1, err: expect.stringContaining('is not stuck, but ending') })

    await makeStuck(site)
    expect((await asOperator(['grants', '--state', 'stuck'])).out.match(/ stuck /g)).toHaveLength(2)
    expect((await asOperator(['grants', 'show', two])).out).toMatch(/^state +stuck: the tool has refused to end it, and nobody tries any more$/m)
    const again = await asOperator(['grants', 'retry', two, '--reason', 'try'])
    expect(again).toMatchObject({ code: 1, err: '', out: expect.stringMatching(/not ended yet, the tool is asked again: /) })
    await makeStuck(site)
    const written = await asOperator(['grants', 'write-off', three, '--reason', 'dropped by hand'])
    expect(written).toEqual({ code: 0, err: '', out: expect.stringMatching(new RegExp(`^${three} is written off: it may live in ledger, and nobody looks after it any more\\. Audit entry \\d+\\.\\n$`)) })

    await setRootPassword('root-password')
    const retried = await asOperator(['grants', 'retry', '--tool', 'ledger', '--reason', 'the password is right again'])
    expect(retried).toEqual({ code: 0, err: '', out: expect.stringMatching(new RegExp(`^GRANT .*\\n${two} .* ended, the tool has confirmed it\\n$`)) })
    expect(await roles()).toEqual([expect.stringContaining(three.slice(-26))])
    expect((await asOperator(['revoke', '--grant', three])).out).toContain('written off: it may live, as an admin has decided')
    const mixed = await asOperator(['grants', 'retry', two, three, '--reason', 'r', '--json'])
    expect([mixed.code, JSON.parse(mixed.out), mixed.err.match(/is not stuck/g)?.length]).toEqual([1, { grants: [] }, 2])
  })

  it('lists tools, and checks one in words', async () => {
    const site = await startGrantsSite()
    const { asOperator, setRootPassword } = site
    expect((await asOperator(['tool', 'list'])).out).toMatch(/^TOOL +CONNECTOR +LONGEST +TARGET +ACTIONS\nledger +postgres +1h +- +read write\ntickets +jwt +1h +queue +read comment delete\n$/)
    const good = await asOperator(['tool', 'check', 'ledger'])
    expect(good).toMatchObject({ code: 0, err: '' })
    for (const line of good.out.trimEnd().split('\n')) expect(line).toMatch(/^✓ \S/)
    await setRootPassword('another')
    const bad = await asOperator(['tool', 'check', 'ledger'])
    expect(bad).toMatchObject({ code: 1, err: '', out: expect.stringMatching(/^✗ .*password/m) })
    expect(JSON.parse((await asOperator(['tool', 'check', 'ledger', '--json'])).out)).toMatchObject({ tool: 'ledger', ok: false })
    expect(await asOperator(['tool', 'check', 'nothing'])).toMatchObject({ code: 1, out: '', err: expect.stringContaining('There is no tool nothing in the catalog in force.') })
  })

  it('sweeps for what no live grant stands for', async () => {
    const site = await startGrantsSite()
    const { asOperator, roles, broker, postgres } = site
    expect(await asOperator(['sweep', '--orphans'])).toMatchObject({ code: 0, err: '', out: 'ledger: 0 found, each with a live grant\n' })
    const live = await lend(site)
    const [role = ''] = await roles()
    const lost = `grant_${'0'.repeat(25)}1`
    const orphan = `${role.slice(0, -26)}${lost.slice(-26)}`
    // As it would be after the loss of a database: the role is there, and no grant.
    await postgres.admin(`create role ${orphan} login`)
    await postgres.admin(`grant ${orphan} to ${postgres.root} with admin true, inherit true`)
    const looked = await asOperator(['sweep', '--orphans', '--dry-run'])
    expect(looked).toMatchObject({ code: 0, err: '' })
    expect(looked.out).toMatch(new RegExp(`^ledger: 2 found, 1 without a live grant; nothing was ended\\nIN THE TOOL .*\\n${orphan}  ${lost}  no live grant\\n$`))
    const swept = await asOperator(['sweep', '--orphans', '--tool', 'ledger'])
    expect(swept).toMatchObject({ code: 0, out: expect.stringContaining('1 without a live grant; 1 ended\n') })
    expect(await broker.lastEvent('orphan.ended')).toMatchObject({ tool: 'ledger', grant: lost, reference: orphan })
    expect(await roles()).toEqual([expect.stringContaining(live.slice(-26))])
    expect(JSON.parse((await asOperator(['sweep', '--orphans', '--json'])).out)).toEqual({ tools: [{ tool: 'ledger', listed: true, found: 1, orphans: [] }] })

    // Many are told of in a few lines, and in all detail to a program.
    const [names, admins] = [[] as string[], [] as string[]]
    for (let i = 0; i < 25; i++) names.push(`${role.slice(0, -26)}${String(i).padStart(26, '0')}`)
    for (const name of names) admins.push(`create role ${name} login; grant ${name} to ${postgres.root} with admin true, inherit true`)
    await postgres.admin(admins.join(';'))
    const many = await asOperator(['sweep', '--orphans', '--dry-run'])
    expect(many.out).toMatch(/^ledger: 26 found, 25 without a live grant; nothing was ended\n/)
    expect(many.out.trimEnd().split('\n')).toHaveLength(23)
    expect(many.out).toContain('… and 5 more: --json lists them\n')
    expect(JSON.parse((await asOperator(['sweep', '--orphans', '--json'])).out).tools[0].orphans.filter(({ ended }: { ended: boolean }) => ended)).toHaveLength(25)
    expect(await roles()).toHaveLength(1)

    expect(await asOperator(['sweep', '--orphans', '--tool', 'tickets'])).toMatchObject({ code: 1, out: expect.stringContaining('tickets: Stint signs the tokens of tickets itself') })
    await site.setRootPassword('another')
    const failed = await asOperator(['sweep', '--orphans'], { errColumns: 80 })
    expect(failed).toMatchObject({ code: 1, out: expect.stringMatching(/^ledger: .*password/), err: expect.stringContaining('looking through ledger, 1 of 1') })
  })

  it('alone may do any of this', async () => {
    const site = await startGrantsSite()
    const grant = await lend(site)
    const { credential: auditor } = await site.admin.createOperator({ name: 'ada', role: 'auditor' })
    const asAuditor = (...args: string[]) => runRecorded(args, { env: { STINT_URL: site.url, STINT_OPERATOR_TOKEN: auditor } })
    for (const args of [
      ['revoke', '--tool', 'ledger'],
      ['grants', 'retry', grant, '--reason', 'r'],
      ['grants', 'write-off', grant, '--reason', 'r'],
      ['tool', 'check', 'ledger'],
      ['sweep', '--orphans', '--tool', 'ledger'],
    ]) {
      expect([args, await asAuditor(...args)]).toEqual([args, { code: 1, out: '', err: expect.stringMatching(/^stint: .*role/) }])
    }
    expect((await asAuditor('grants')).out).toContain(grant)
    expect((await asAuditor('grants', 'show', grant)).code).toBe(0)
    expect((await asAuditor('tool', 'list')).code).toBe(0)
    expect(await site.roles()).toHaveLength(1)
  })
})
