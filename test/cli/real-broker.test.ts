import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { startRealBroker, type RealBroker } from '../client/real-broker.ts'
import { createFolder, runRecorded, type Surroundings } from './recorder.ts'

const reviewAt = new Date(Date.now() + 30 * 86_400_000).toISOString().slice(0, 10)

/** A broker, a key file, and the command line as an operator and as the workload `bot` would use it. */
async function setUp(broker?: RealBroker) {
  const { url, operator, admin } = broker ?? (await startRealBroker())
  const keyFile = join(createFolder(), 'bot.key')
  const asOperator = (args: readonly string[], more: Surroundings = {}) =>
    runRecorded(args, { ...more, env: { STINT_URL: url, STINT_OPERATOR_TOKEN: operator } })
  const asBot = (args: readonly string[], more: Surroundings = {}) =>
    runRecorded(args, { ...more, env: { STINT_URL: url, STINT_WORKLOAD: 'bot', STINT_KEY_FILE: keyFile } })
  const register = async (name = 'bot') => {
    const made = await runRecorded(existsSync(keyFile) ? ['key', 'public', keyFile] : ['key', 'create', keyFile])
    const owner = ['--team', 'support', '--contact', 'oncall:support', '--purpose', 'Labels tickets']
    const rest = ['--environment', 'prod', '--stage', 'pilot', '--tag', 'a:b', '--review-at', reviewAt, '--jwks', '-']
    return asOperator(['workload', 'register', name, ...owner, ...rest], { input: made.out })
  }
  return { url, admin, keyFile, asOperator, asBot, register }
}

describe('an agent', () => {
  it('starts with nothing but a name, and ends with a token that it can give back', async () => {
    const { asBot, register } = await setUp()
    // The first call makes the key; an admin registers it; the second call succeeds.
    expect((await asBot(['token', 'tickets:read'])).code).toBe(1)
    expect(await register()).toMatchObject({ code: 0, err: '' })
    const details = ['--ttl', '5m', '--target', 'inbox', '--task', 't-1']
    const asked = await asBot(['token', 'tickets:read', 'tickets:comment', ...details])
    expect(asked).toEqual({ code: 0, out: expect.stringMatching(/^[\w-]+\.[\w-]+\.[\w-]+\n$/), err: '' })

    const introspected = await asBot(['token', 'introspect', '-'], { input: asked.out })
    expect(introspected).toMatchObject({ code: 0, err: '' })
    expect(introspected.out).toMatch(/^active +yes\n/)
    expect(introspected.out).toContain('spiffe://stint.test/bot')
    expect(await asBot(['token', 'revoke', asked.out.trim()])).toMatchObject({ code: 0 })
    const ended = await asBot(['token', 'introspect', '-', '--json'], { input: asked.out })
    expect(ended).toEqual({ code: 1, out: '{\n  "active": false\n}\n', err: '' })
  })

  it('sees claims, or the whole answer, or what it was given', async () => {
    const { asBot, register } = await setUp()
    await register()
    const claims = await asBot(['token', 'tickets:read', '--claims'])
    expect(claims.err).toContain('its signature was not checked here')
    const aud = 'https://tickets.example.com'
    expect(JSON.parse(claims.out)).toMatchObject({ sub: 'spiffe://stint.test/bot', aud })
    const json = JSON.parse((await asBot(['token', 'tickets:read', '--json', '--ttl', '1m'])).out)
    expect(json).toMatchObject({ token_type: 'Bearer', expires_in: 60, scope: 'tickets:read', audit_index: expect.any(Number) })
    const onTerminal = await asBot(['token', 'tickets:read'], { columns: 80 })
    expect(onTerminal.err).toMatch(/^tickets:read, for 10m, until 20.*Z, audit entry \d+\n$/)
  })

  it('is told what it may know of a refusal', async () => {
    const { asBot, asOperator, register, keyFile } = await setUp()
    await register()
    const denied = await asBot(['token', 'tickets:delete'])
    expect(denied).toMatchObject({ code: 1, out: '' })
    expect(denied.err).not.toContain('deleting-needs-a-human')
    const unknown = await asBot(['token', 'tickets:nothing'])
    expect(unknown).toMatchObject({ code: 1, out: '' })

    await asOperator(['workload', 'suspend', 'bot', '--reason', 'odd'])
    const suspended = await asBot(['token', 'tickets:read'])
    expect(suspended).toMatchObject({ code: 1, out: '' })
    expect(suspended.err).toContain('stint workload show bot')
    expect(suspended.err).toContain(JSON.parse(readFileSync(keyFile, 'utf8')).kid)
    expect(suspended.err).not.toContain('suspended')
  })
})

describe('an admin', () => {
  it('registers, reads and changes a workload', async () => {
    const { asOperator, register, keyFile } = await setUp()
    const registered = await register()
    expect(registered.out).toMatch(/^name +bot\nclient id +spiffe:\/\/stint\.test\/bot\nstatus +active\n/)
    expect(registered.out).toMatch(/^audit entry +\d+$/m)
    expect(registered.out).toContain(`review at    ${reviewAt}`)
    const shown = await asOperator(['workload', 'show', 'bot', '--json'])
    const owner = { team: 'support', contact: 'oncall:support' }
    expect(JSON.parse(shown.out)).toMatchObject({ name: 'bot', tags: ['a:b'], owner })

    const changes = ['--stage', 'production', '--no-tags', '--team', 'web', '--contact', 'oncall:web']
    const later = JSON.parse((await asOperator(['workload', 'update', 'bot', '--review-at', '90d', '--json'])).out)
    expect(Math.abs(Date.parse(later.review_at) - Date.now() - 90 * 86_400_000)).toBeLessThan(60_000)
    const updated = JSON.parse((await asOperator(['workload', 'update', 'bot', ...changes, '--json'])).out)
    expect(updated).toMatchObject({ stage: 'production', tags: [], owner: { team: 'web', contact: 'oncall:web' } })

    const second = join(createFolder(), 'second.key')
    const made = await runRecorded(['key', 'create', second, '--alg', 'Ed25519'])
    const added = await asOperator(['workload', 'add-key', 'bot', '--jwks', '-'], { input: made.out })
    expect(added.out.match(/^key /gm)).toHaveLength(2)
    const { kid } = JSON.parse(readFileSync(keyFile, 'utf8'))
    // An id may begin with a dash.
    const removed = await asOperator(['workload', 'remove-key', 'bot', `--kid=${kid}`])
    expect(removed.out).toMatch(new RegExp(`^key +${kid}  ES256  removed 20`, 'm'))

    for (const [verb, status] of [['suspend', 'suspended'], ['resume', 'active'], ['retire', 'retired']]) {
      expect((await asOperator(['workload', verb ?? '', 'bot'])).out).toMatch(new RegExp(`^status +${status}$`, 'm'))
    }
    const list = await asOperator(['workload', 'list', '--status', 'retired'], { columns: 60 })
    expect(list.out).toMatch(/^NAME +STATUS .*\nbot +retired +production +prod +web/)
    const none = await asOperator(['workload', 'list', '--stage', 'sandbox'])
    expect(none).toEqual({ code: 0, out: '', err: 'No workload matches.\n' })
  })

  it('pages through a list', async () => {
    const broker = await startRealBroker()
    for (const name of ['a', 'b', 'c']) expect(await (await setUp(broker)).register(name)).toMatchObject({ code: 0 })
    const { asOperator } = await setUp(broker)
    const first = await asOperator(['workload', 'list', '--limit', '2'])
    expect(first.out.split('\n').map((line) => line.slice(0, 1))).toEqual(['N', 'a', 'b', ''])
    expect(first.err).toBe('There are more: --after b\n')
    const rest = JSON.parse((await asOperator(['workload', 'list', '--after', 'b', '--json'])).out)
    expect([rest.workloads.map((workload: { name: string }) => workload.name), rest.next]).toEqual([['c'], undefined])
  })

  it('is told everything that is wrong, at once', async () => {
    const { asOperator, register } = await setUp()
    await register()
    const { code, err } = await asOperator(['workload', 'update', 'bot', '--stage', 'prodution', '--purpose', ''])
    expect(code).toBe(1)
    expect(err).toMatch(/^ {2}stage: .*production/m)
    expect(err).toMatch(/^ {2}purpose: /m)
    const again = await register()
    expect([again.code, again.out]).toEqual([1, ''])
    const nobody = await asOperator(['workload', 'show', 'nobody'])
    expect(nobody).toEqual({ code: 1, out: '', err: 'stint: There is no workload nobody.\n' })
  })

  it('ends grants by grant, task, workload and time, and is promised no more than is true', async () => {
    const { asOperator, asBot, register } = await setUp()
    await register()
    const ask = async (task: string) => (await asBot(['token', 'tickets:read', '--task', task])).out
    const isActive = async (token: string) => (await asBot(['token', 'introspect', '-'], { input: token })).code === 0
    const [one, two] = [await ask('one'), await ask('two')]
    const revoked = await asOperator(['revoke', '--workload', 'bot', '--task', 'one', '--reason', 'lost'])
    expect(revoked.out).toMatch(/^Ended 1 grant\. Audit entry \d+\.\nGRANT .*\ngrant_\w+  tickets  bot +ended for whoever introspects; .* until it expires\n$/)
    expect([await isActive(one), await isActive(two)]).toEqual([false, true])

    const { jti } = JSON.parse(Buffer.from(two.split('.')[1] ?? '', 'base64url').toString())
    expect((await asOperator(['revoke', '--grant', jti])).out).toMatch(/^Ended 1 grant\./)
    expect((await asOperator(['revoke', '--grant', jti])).out).toMatch(/^Ended 0 grants \(1 had ended already\)\./)
    expect(await isActive(two)).toBe(false)

    const three = await ask('three')
    const early = await asOperator(['revoke', '--before', '2020-01-01', '--json'])
    expect(JSON.parse(early.out)).toEqual({ revoked: 0, more: false, already_ended: 0, grants: [], audit_index: expect.any(Number) })
    expect(await isActive(three)).toBe(true)
    expect((await asOperator(['revoke', '--workload', 'bot'])).out).toMatch(/^Ended 1 grant \(2 had ended already\)\./)
    expect(await isActive(three)).toBe(false)
    expect(await asOperator(['revoke', '--workload', 'nobody'])).toMatchObject({ code: 1, out: '' })
  })

  it('without a valid credential is refused every command', async () => {
    const { url, keyFile, register } = await setUp()
    await register()
    const env = { STINT_URL: url, STINT_OPERATOR_TOKEN: `stint_op_${'0'.repeat(16)}_${'A'.repeat(43)}` }
    const jwks = join(createFolder(), 'jwks.json')
    const { out } = await runRecorded(['key', 'public', keyFile])
    writeFileSync(jwks, out)
    for (const args of [
      ['workload', 'show', 'bot'],
      ['workload', 'list'],
      ['workload', 'update', 'bot', '--stage', 'sandbox'],
      ['workload', 'suspend', 'bot'],
      ['workload', 'add-key', 'bot', '--jwks', jwks],
      ['revoke', '--workload', 'bot'],
      ['audit', 'list'],
      ['audit', 'show', '0'],
    ]) {
      const { code, out: said, err } = await runRecorded(args, { env })
      expect([args, code, said]).toEqual([args, 1, ''])
      expect(err).not.toContain('AAAA')
    }
  })
})

describe('an auditor', () => {
  it('reads what happened, the newest last, and one entry whole', async () => {
    const { asOperator, asBot, register } = await setUp()
    await register()
    await asBot(['token', 'tickets:read', '--task', 'ticket-1', '--target', 'inbox'])
    await asBot(['token', 'tickets:delete'])
    const { code, out, err } = await asOperator(['audit', 'list', '--workload', 'bot'])
    expect([code, err]).toEqual([0, ''])
    const lines = out.trimEnd().split('\n')
    expect(lines[0]).toMatch(/^INDEX +TIME +EVENT +WORKLOAD +WHAT$/)
    expect(lines[1]).toMatch(/workload\.registered +bot .*stage pilot.*by operator/)
    expect(lines[2]).toMatch(/grant\.issued +bot +allow: tickets:read on inbox for 10m task ticket-1 grant grant_\w+ /)
    expect(lines[2]).toMatch(/ \(by support-reads\)$/)
    expect(lines[3]).toMatch(/grant\.denied +bot +needs 1 approval: tickets:delete/)
    expect(lines).toHaveLength(4)
    const narrow = (await asOperator(['audit', 'list'], { columns: 50 })).out.split('\n')
    expect(Math.max(...narrow.map((line) => [...line].length))).toBe(50)

    const index = /^\d+/.exec(lines[2] ?? '')?.[0] ?? ''
    const shown = JSON.parse((await asOperator(['audit', 'show', index, '--json'])).out)
    expect(shown).toMatchObject({ index: Number(index), type: 'grant.issued', event: { decision: { verdict: 'allow' } } })
    expect((await asOperator(['audit', 'show', index])).out).toMatch(new RegExp(`^index +${index}\n`))
    expect((await asOperator(['audit', 'show', '0'])).out).toContain('log.opened')
    expect((await asOperator(['audit', 'show', '999999'])).err).toContain('there is no entry 999999')
  })

  it('filters, and goes on over the pages of the API', async () => {
    const { asOperator, admin, register } = await setUp()
    await register()
    for (let i = 0; i < 120; i++) await admin.updateWorkload('bot', { purpose: `Purpose ${i}` })
    const options = ['--limit', '115', '--type', 'workload.updated', '--json']
    const all = JSON.parse((await asOperator(['audit', 'list', ...options])).out)
    const indexes: number[] = all.entries.map((entry: { index: number }) => entry.index)
    expect(indexes).toHaveLength(115)
    expect(indexes.at(-1)).toBe(all.tree_size - 1)
    expect(indexes).toEqual(Array.from({ length: 115 }, (_, i) => all.tree_size - 115 + i))
    expect((await asOperator(['audit', 'list', '--to', '2020-01-01'])).err).toBe('No entry fits.\n')
    const newest = await asOperator(['audit', 'list', '--from', '2020-01-01'])
    expect(newest.out.trimEnd().split('\n')).toHaveLength(21)
    expect((await asOperator(['audit', 'list', '--type', 'grant.isued'])).code).toBe(1)
  })
})
