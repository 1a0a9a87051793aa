import { chmodSync, existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readKeyFile } from '../../src/cli/key-file.ts'
import { createAdminClient } from '../../src/client/admin.ts'
import { enrolAgent } from '../../src/client/enrolments.ts'
import { startRealBroker } from '../client/real-broker.ts'
import { createFolder, runRecorded, type Surroundings } from './recorder.ts'

const registration = ['--environment', 'prod', '--stage', 'pilot', '--team', 'support', '--contact', 'oncall:support', '--purpose', 'Labels tickets', '--review-at', '30d']

async function setUp() {
  const broker = await startRealBroker()
  const { url, operator, admin } = broker
  const keyFile = join(createFolder(), 'bot.key')
  const asOperator = (args: readonly string[]) => runRecorded(args, { env: { STINT_URL: url, STINT_OPERATOR_TOKEN: operator } })
  const asAgent = (args: readonly string[], { env, ...more }: Surroundings = {}) => runRecorded(args, { ...more, env: { STINT_URL: url, ...env } })
  const makeCode = async () => (await asOperator(['workload', 'enroll', 'bot'])).out.trim()
  return { broker, url, admin, operator, keyFile, asOperator, asAgent, makeCode }
}

describe('stint workload register --enroll and stint enroll', () => {
  it('take an agent from nothing to a token, and nobody but it has ever had its key', async () => {
    const { url, admin, keyFile, asOperator, asAgent } = await setUp()
    const registered = await asOperator(['workload', 'register', 'bot', ...registration, '--enroll'])
    expect(registered).toMatchObject({ code: 0, out: expect.stringMatching(/^stint_enroll_[0-9a-f]{16}_[\w-]{43}\n$/) as unknown })
    expect(registered.err).toMatch(/^bot is registered \(audit entry \d+\)\.\nThe code for bot, shown this once, until 20\S+Z \(enrolment [0-9a-f]{16}\)\.\n/)
    // The agent's machine looks elsewhere than where this broker is, unless it is told.
    expect(registered.err).toContain(`On the agent's machine: stint enroll CODE --key bot.key --url ${url}\n`)
    expect((await asOperator(['workload', 'show', 'bot'])).out).toMatch(/^key +none yet: stint workload enroll bot$/m)

    const enrolled = await asAgent(['enroll', registered.out.trim(), '--key', keyFile])
    expect(enrolled.code).toBe(0)
    const { kid, d } = JSON.parse(readFileSync(keyFile, 'utf8'))
    expect(enrolled.out).toMatch(new RegExp(`^workload +bot\\nclient id +spiffe://stint\\.test/bot\\nkey +${kid}\\nkey file +${keyFile}\\nbroker +http://.*\\naudit entry +\\d+\\n$`))
    expect(enrolled.err).toBe(`Now it can ask: stint token TOOL:VERB --workload bot --key ${keyFile}\n`)
    expect(statSync(keyFile).mode & 0o777).toBe(0o600)
    expect(readdirSync(dirname(keyFile))).toEqual(['bot.key'])
    expect(await asAgent(['token', 'tickets:read', '--workload', 'bot', '--key', keyFile])).toMatchObject({ code: 0, out: expect.stringMatching(/^eyJ/) as unknown })
    expect(JSON.stringify(await admin.listAudit())).not.toContain(d)

    // As after a lost answer.
    const again = await asAgent(['enroll', registered.out.trim(), '--key', keyFile, '--json'])
    expect([again.code, JSON.parse(again.out)]).toEqual([
      0,
      { workload: 'bot', client_id: 'spiffe://stint.test/bot', kid, issuer: expect.stringMatching(/^http:/) as unknown, key_file: keyFile },
    ])
  })

  it('as JSON', async () => {
    const { asOperator } = await setUp()
    const { out, err } = await asOperator(['workload', 'register', 'bot', ...registration, '--enroll', '--json'])
    expect(err).toBe('')
    expect(JSON.parse(out)).toMatchObject({ name: 'bot', keys: [], enrolment: { workload: 'bot', code: expect.stringMatching(/^stint_enroll_/) as unknown } })
  })

  it('want either a code or keys', async () => {
    const { asOperator } = await setUp()
    expect(await asOperator(['workload', 'register', 'bot', ...registration, '--enroll', '--jwks', 'x'])).toMatchObject({ code: 2, err: expect.stringContaining('not both') as unknown })
    expect(await asOperator(['workload', 'register', 'bot', ...registration])).toMatchObject({ code: 2, err: expect.stringContaining('--jwks is needed') as unknown })
  })

  it.each<[string, (code: string, file: string) => readonly [readonly string[], Surroundings]]>([
    ['standard input', (code) => [['-'], { input: `${code}\n` }]],
    ['a private file', (code, file) => (writeFileSync(file, `${code}\n`, { mode: 0o600 }), [['--code-file', file], {}])],
    ['the environment', (code) => [[], { env: { STINT_ENROLLMENT_CODE: code } }]],
    ['an argument, before the environment', (code) => [[code], { env: { STINT_ENROLLMENT_CODE: 'x' } }]],
  ])('read the code from %s', async (_where, give) => {
    const { keyFile, asOperator, asAgent } = await setUp()
    const { out } = await asOperator(['workload', 'register', 'bot', ...registration, '--enroll'])
    const [args, surroundings] = give(out.trim(), `${keyFile}.code`)
    const enrolled = await asAgent(['enroll', ...args, '--key', keyFile, '--alg', 'Ed25519'], surroundings)
    expect(enrolled).toMatchObject({ code: 0, out: expect.stringContaining('bot') as unknown })
    expect(JSON.parse(readFileSync(keyFile, 'utf8'))).toMatchObject({ alg: 'Ed25519' })
  })

  it('refuse what is no code before a key is made or anything is sent, and do not repeat it', async () => {
    const env = { STINT_URL: 'http://127.0.0.1:1' }
    const keyFile = join(createFolder(), 'bot.key')
    const most = `stint_enroll_${'0'.repeat(16)}_${'S'.repeat(42)}`
    for (const [args, message, code] of [
      [[], 'which code?', 2],
      [['a', 'b'], 'only one argument', 2],
      [[most, '--code-file', 'x'], 'not both', 2],
      [[most], 'this is no enrolment code', 1],
      [[`${most}S S`], 'this is no enrolment code', 1],
    ] as const) {
      const refused = await runRecorded(['enroll', ...args, '--key', keyFile], { env })
      expect([args, refused.code, refused.out]).toEqual([args, code, ''])
      expect(refused.err).toContain(message)
      expect(refused.err).not.toContain('SSS')
    }
    writeFileSync(`${keyFile}.code`, `${most}S`, { mode: 0o600 })
    chmodSync(`${keyFile}.code`, 0o644)
    expect((await runRecorded(['enroll', '--code-file', `${keyFile}.code`, '--key', keyFile], { env })).err).toContain('chmod 600')
    expect(existsSync(keyFile)).toBe(false)
  })

  it('leave a key that is there as it is, also when they are refused', async () => {
    const { broker, keyFile, asOperator, asAgent, makeCode } = await setUp()
    await asOperator(['workload', 'register', 'bot', ...registration, '--enroll'])
    const wrong = `stint_enroll_${'0'.repeat(16)}_${'A'.repeat(43)}`
    const refused = await asAgent(['enroll', wrong, '--key', keyFile])
    expect([refused.code, refused.out]).toEqual([1, ''])
    expect(refused.err).toContain('stint workload enroll NAME')
    expect(refused.err).toContain(`The new key is kept in ${keyFile}: stint enroll with the same --key goes on with it.\n`)
    const kept = readFileSync(keyFile, 'utf8')
    expect((await asAgent(['enroll', await makeCode(), '--key', keyFile])).code).toBe(0)
    expect(readFileSync(keyFile, 'utf8')).toBe(kept)

    // The same key for another workload.
    await asOperator(['workload', 'register', 'other', ...registration, '--enroll'])
    const { code } = await broker.admin.createEnrolment('other')
    const taken = await asAgent(['enroll', code, '--key', keyFile])
    expect(taken).toMatchObject({ code: 1, out: '' })
    expect(taken.err).toContain('name another file with --key')
    expect((await asAgent(['enroll', code, '--key', `${keyFile}.2`])).code).toBe(0)
  })

  it('send no code to what is no broker', async () => {
    const key = await readKeyFile(await newKeyFile())
    if (key === undefined) throw new Error('no key')
    const sent: string[] = []
    const fetch: typeof globalThis.fetch = async (input, init) => {
      sent.push(`${String(input)} ${String(init?.body)}`)
      return Response.json({ issuer: 'https://evil.test' })
    }
    const code = `stint_enroll_${'0'.repeat(16)}_${'A'.repeat(43)}`
    await expect(enrolAgent({ url: 'https://stint.test', code, key, fetch })).rejects.toMatchObject({ code: 'bad_answer' })
    expect(sent).toEqual(['https://stint.test/.well-known/oauth-authorization-server null'])
    await expect(enrolAgent({ url: 'https://stint.test', code: `${code} `, key, fetch })).rejects.toMatchObject({ code: 'invalid_option' })
    expect(sent).toHaveLength(1)
  })
})

describe('a broker that is reached by another URL than its own', () => {
  it('is told to the agent by its own, and refused by the other with the one to give', async () => {
    const { url, keyFile, asOperator, asAgent, operator } = await setUp()
    const other = url.replace('127.0.0.1', 'localhost')
    await asOperator(['workload', 'register', 'bot', ...registration, '--enroll'])
    const made = await runRecorded(['workload', 'enroll', 'bot'], { env: { STINT_URL: other, STINT_OPERATOR_TOKEN: operator } })
    expect(made.err).toContain(`--key bot.key --url ${url}\n`)
    const wrong = await asAgent(['enroll', made.out.trim(), '--key', keyFile, '--url', other])
    expect([wrong.code, wrong.out]).toEqual([1, ''])
    expect(wrong.err).toContain(`the broker at ${other} calls itself "${url}" (RFC 8414 §3.3): if that is the broker you mean, use that as its URL (--url ${url}, or STINT_URL).`)
    expect(wrong.err).toContain(`The new key is kept in ${keyFile}`)
    const enrolled = await asAgent(['enroll', made.out.trim(), '--key', keyFile, '--url', url], { env: { STINT_URL: undefined } })
    expect(enrolled).toMatchObject({ code: 0, err: `Now it can ask: stint token TOOL:VERB --workload bot --key ${keyFile} --url ${url}\n` })

    const before = readFileSync(keyFile, 'utf8')
    const rotated = await asAgent(['key', 'rotate', '--workload', 'bot', '--key', keyFile, '--url', other])
    expect([rotated.code, readFileSync(keyFile, 'utf8')]).toEqual([1, before])
    expect(rotated.err).toContain(`(--url ${url}, or STINT_URL)`)
    expect(rotated.err).toContain(`The new key is kept in ${keyFile}.next: run this again to go on with it.\n`)
    expect((await asAgent(['key', 'rotate', '--workload', 'bot', '--key', keyFile])).code).toBe(0)
  })

  it.each(['https://a.test/$(id)', "https://a.test';id", 'https://a.test/', 'javascript:x', 'x'])('is not written into a command as %j', async (issuer) => {
    const fetch: typeof globalThis.fetch = async () =>
      Response.json({ issuer, token_endpoint: '', introspection_endpoint: '', revocation_endpoint: '', stint_trust_domain: 'a' })
    await expect(createAdminClient({ url: 'https://stint.test', token: 'stint_op_x', fetch }).getIssuer()).rejects.toMatchObject({ code: 'bad_answer' })
    const key = await readKeyFile(await newKeyFile())
    if (key === undefined) throw new Error('no key')
    const code = `stint_enroll_${'0'.repeat(16)}_${'A'.repeat(43)}`
    await expect(enrolAgent({ url: 'https://stint.test', code, key, fetch })).rejects.toThrow(/use that as its URL\.$/)
  })
})

describe('an admin', () => {
  it('makes, sees and cancels codes', async () => {
    const { keyFile, asOperator, asAgent, makeCode } = await setUp()
    await asOperator(['workload', 'register', 'bot', ...registration, '--enroll'])
    expect((await asAgent(['enroll', await makeCode(), '--key', keyFile])).code).toBe(0)
    const made = await asOperator(['workload', 'enroll', 'bot', '--json'])
    const { enrolment, code } = JSON.parse(made.out)
    expect(made.err).toBe('')
    const list = await asOperator(['workload', 'enrolments', 'bot'])
    const lines = list.out.trimEnd().split('\n')
    expect(lines[0]).toMatch(/^ENROLMENT +STATUS +CREATED +EXPIRES +KEY$/)
    expect(lines.slice(1).map((line) => line.split(/ +/)[1]).sort()).toEqual(['cancelled', 'open', 'redeemed'])
    expect(list.out).toContain(JSON.parse(readFileSync(keyFile, 'utf8')).kid)
    expect(list.out).not.toContain('stint_enroll')
    const page = await asOperator(['workload', 'enrolments', 'bot', '--limit', '1', '--json'])
    expect(JSON.parse(page.out)).toEqual({ enrolments: [expect.objectContaining({ enrolment: expect.any(String) as unknown })], next: expect.any(String) as unknown })

    const cancelled = await asOperator(['workload', 'cancel-enrolment', 'bot', '--enrolment', enrolment])
    expect(cancelled.out).toMatch(new RegExp(`^enrolment +${enrolment}\\nworkload +bot\\nstatus +cancelled\\nended +20.*\\naudit entry +\\d+\\n$`))
    expect((await asAgent(['enroll', code, '--key', `${keyFile}.2`])).code).toBe(1)
    expect((await asOperator(['workload', 'cancel-enrolment', 'bot', '--enrolment', '../x'])).err).toContain("an enrolment's id is")
    expect((await asOperator(['workload', 'enroll', 'nobody'])).err).toBe('stint: There is no workload nobody.\n')
    expect((await asOperator(['workload', 'enrolments', 'nobody'])).code).toBe(1)
    const audit = await asOperator(['audit', 'list', '--workload', 'bot', '--type', 'enrolment.redeemed'])
    expect(audit.out).toMatch(/enrolment\.redeemed +bot +enrolment [0-9a-f]{16} key \S{43} ES256\n/)
  })
})

async function newKeyFile(): Promise<string> {
  const path = join(createFolder(), 'bot.key')
  await runRecorded(['key', 'create', path])
  return path
}

describe('a key file', () => {
  it('appears as a whole, or not at all', async () => {
    const folder = createFolder()
    const path = join(folder, 'bot.key')
    await runRecorded(['key', 'create', path])
    symlinkSync(join(folder, 'elsewhere'), join(folder, 'link'))
    await runRecorded(['key', 'create', path])
    await runRecorded(['key', 'create', join(folder, 'link')])
    // No half of one is left over either.
    expect(readdirSync(folder).sort()).toEqual(['bot.key', 'link'])
  })
})
