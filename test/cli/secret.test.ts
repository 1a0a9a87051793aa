import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createSealedVersions } from '../../src/broker/sealed-versions.ts'
import { createSecretReader } from '../../src/broker/secrets.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { startRealBroker } from '../client/real-broker.ts'
import { createFolder, runRecorded, type Surroundings } from './recorder.ts'

async function setUp() {
  const { url, operator, broker } = await startRealBroker()
  const read = createSecretReader({ ...broker.broker, env: {} })
  return {
    broker,
    run: (args: readonly string[], more: Surroundings = {}) => runRecorded(['secret', ...args], { ...more, env: { STINT_URL: url, STINT_OPERATOR_TOKEN: operator } }),
    reveal: async (name: string) => (await read(`sealed:${name}`, 'it')).reveal(),
  }
}

function writeFile(text: string | Uint8Array, mode = 0o600): string {
  const file = join(createFolder(), 'secret.txt')
  writeFileSync(file, text)
  chmodSync(file, mode)
  return file
}

describe('stint secret put', () => {
  it('hands over what standard input holds, less one line break', async () => {
    const { run, reveal } = await setUp()
    const first = await run(['put', 'crm'], { input: 'marked-7\n' })
    expect(first).toEqual({ code: 0, out: expect.stringMatching(/^crm is kept, version 1\. Tools name it as sealed:crm\. Audit entry \d+\.\n$/), err: '' })
    expect(await reveal('crm')).toBe('marked-7')
    const second = await run(['put', 'crm', '--json'], { input: 'two\nlines\r\n' })
    expect(JSON.parse(second.out)).toEqual({ name: 'crm', version: 2, created_at: expect.any(String), audit_index: expect.any(Number) })
    expect(await reveal('crm')).toBe('two\nlines')
    expect(await run(['put', 'crm'], { input: 'two breaks\n\n' })).toMatchObject({ code: 0 })
    expect(await reveal('crm')).toBe('two breaks\n')
  })

  it('or a file that nobody else can read', async () => {
    const { run, reveal } = await setUp()
    expect(await run(['put', 'crm', '--file', writeFile('-----BEGIN x\nmarked\n')])).toMatchObject({ code: 0 })
    expect(await reveal('crm')).toBe('-----BEGIN x\nmarked')
    const open = await run(['put', 'crm', '--file', writeFile('marked', 0o644)])
    expect([open.code, open.err]).toEqual([1, expect.stringContaining('chmod 600')])
    expect((await run(['put', 'crm', '--file', '/nowhere/secret'])).err).toContain('there is no file /nowhere/secret')
    expect((await run(['put', 'crm', '--file', writeFile(Buffer.from([0xff, 0xfe]))])).err).toContain('not UTF-8')
  })

  it.each([
    ['nothing', ['put', 'crm'], '', /holds no secret: it is empty/, 1],
    ['a line break alone', ['put', 'crm'], '\n', /it is empty/, 1],
    ['too much', ['put', 'crm'], 'm'.repeat(65_537), /too large: at most 64 KiB/, 1],
    ['no name', ['put'], 'marked', /the secret's name is missing/, 2],
    ['the secret as an argument', ['put', 'crm', 'marked'], '', /only one argument is taken/, 2],
    ['the secret for the name', ['put', 'Marked_7'], 'x', /must be 1 to 63 of a-z/, 2],
  ])('refuses %s, and sends nothing', async (_, args, input, message, code) => {
    const { broker, run } = await setUp()
    const before = (await broker.events()).length
    const refused = await run(args, { input })
    expect([refused.code, refused.out, refused.err]).toEqual([code, '', expect.stringMatching(message)])
    expect(refused.err.toLowerCase()).not.toContain('marked')
    expect((await broker.events()).length).toBe(before)
  })

  it('does not let a secret be typed where it would be seen', async () => {
    const { run } = await setUp()
    const typed = await run(['put', 'crm'], { input: 'marked', answer: 'marked' })
    expect([typed.code, typed.err]).toEqual([2, expect.stringContaining('give --file FILE')])
  })
})

describe('stint secret list', () => {
  it('shows names, versions and what needs a fresh one', async () => {
    const { broker, run } = await setUp()
    expect(await run(['list'])).toEqual({ code: 0, out: '', err: 'The broker keeps no secret.\n' })
    for (const [i, name] of ['b', 'a', 'a'].entries()) await run(['put', name], { input: `marked ${i}` })
    await broker.broker.ledger.transact({
      async apply(tx) {
        await tx.insertInto('custody').values({ name: 'b', tool: 'crm', state: 'used_up', owner: null, lease_until: null, problem: 'the answer was lost' }).execute()
        return { result: undefined, unrecorded: 'housekeeping' }
      },
    })
    const { code, out, err } = await run(['list'])
    expect([code, err]).toEqual([0, ''])
    expect(out).toMatch(/^NAME +VERSION +SINCE +STATUS\na +2 +20\S+ +kept\nb +1 +20\S+ +the tool crm needs reconnection: the answer was lost\n$/)
    expect(out).not.toContain('marked')
    const page = await run(['list', '--limit', '1'])
    expect([page.out.split('\n').length, page.err]).toEqual([3, 'There are more: --after a\n'])
    expect(JSON.parse((await run(['list', '--after', 'a', '--json'])).out)).toMatchObject({ secrets: [{ name: 'b', needs_reconnection: { tool: 'crm' } }] })
  })
})

describe('stint secret versions', () => {
  it('shows what every version is, and who made it', async () => {
    const { broker, run } = await setUp()
    for (const input of ['marked one', 'marked two']) await run(['put', 'crm'], { input })
    const rotation = '0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a01'
    const sealed = createSealedVersions(broker.broker)
    await sealed.create('crm', rotation, new Secret('marked three'))
    const { code, out, err } = await run(['versions', 'crm'])
    expect([code, err]).toEqual([0, ''])
    expect(out).toMatch(/^VERSION +STAGE +SINCE +ROTATION\n3 +pending +20\S+ +0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a01\n2 +current +20\S+ +none: it was put\n1 +erased +20\S+ +none: it was put\n$/)
    expect(out).not.toContain('marked')
    const page = await run(['versions', 'crm', '--limit', '2'])
    expect([page.out.split('\n').length, page.err]).toEqual([4, 'There are more: --before 2\n'])
    expect(JSON.parse((await run(['versions', 'crm', '--before', '2', '--json'])).out)).toEqual({ versions: [{ version: 1, stage: 'erased', created_at: expect.any(String) }] })
  })

  it.each([
    ['a secret that is not there', ['versions', 'other'], 1, /There is no secret other: an admin puts it, with stint secret put other/],
    ['no name', ['versions'], 2, /the secret's name is missing/],
    ['a version that is none', ['versions', 'crm', '--before', 'x'], 2, /before/],
  ])('refuses %s', async (_, args, code, message) => {
    const { run } = await setUp()
    expect(await run(args)).toEqual({ code, out: '', err: expect.stringMatching(message) })
  })
})
