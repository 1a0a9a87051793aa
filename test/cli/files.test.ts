import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { startRealBroker } from '../client/real-broker.ts'
import { createFolder, runRecorded } from './recorder.ts'

describe('the operator credential', () => {
  it('is read from a private file, before the environment', async () => {
    const path = join(createFolder(), 'operator')
    writeFileSync(path, 'not one\n', { mode: 0o600 })
    const env = { STINT_OPERATOR_TOKEN: 'stint_op_env', STINT_URL: 'http://127.0.0.1:1' }
    expect((await runRecorded(['workload', 'list', '--operator-token-file', path], { env })).err).toContain(`${path} holds no operator's credential`)
    writeFileSync(path, 'stint_op_x\n')
    expect((await runRecorded(['workload', 'list', '--operator-token-file', path], { env })).err).toContain('127.0.0.1:1')
    chmodSync(path, 0o644)
    expect((await runRecorded(['workload', 'list', '--operator-token-file', path], { env })).err).toContain(`chmod 600 ${path}`)
    const missing = await runRecorded(['workload', 'list', '--operator-token-file', `${path}.none`], { env })
    expect(missing.err).toContain(`there is no file ${path}.none`)
  })
})

describe('an operator credential that is not accepted', () => {
  it.each<[string, (path: string) => readonly [readonly string[], Readonly<Record<string, string>>], (path: string) => string]>([
    ['the environment', () => [[], { STINT_OPERATOR_TOKEN: 'stint_op_none' }], () => 'STINT_OPERATOR_TOKEN'],
    ['a file', (path) => [['--operator-token-file', path], {}], (path) => path],
  ])('from %s is told by where it is from, and what to do', async (_from, give, name) => {
    const { url } = await startRealBroker()
    const path = join(createFolder(), 'operator')
    writeFileSync(path, 'stint_op_none', { mode: 0o600 })
    const [options, env] = give(path)
    const message = `stint: the operator's credential from ${name(path)} was not accepted by ${url}. It may have expired or been revoked: an admin makes a new one with stint operator rotate NAME.\n`
    for (const args of [['workload', 'list'], ['audit', 'export']]) {
      expect(await runRecorded([...args, ...options], { env: { STINT_URL: url, ...env } })).toEqual({ code: 1, out: '', err: message })
    }
  })
})

describe('stint key', () => {
  it.each(['ES256', 'Ed25519'])('creates an %s key for its owner alone, and prints only its public half', async (alg) => {
    const path = join(createFolder(), 'bot.key')
    const { code, out, err } = await runRecorded(['key', 'create', path, '--alg', alg])
    expect(code).toBe(0)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    const jwk = JSON.parse(readFileSync(path, 'utf8'))
    const { keys } = JSON.parse(out)
    expect(keys).toHaveLength(1)
    expect(keys[0]).toMatchObject({ alg, use: 'sig', kid: expect.stringMatching(/^[\w-]{43}$/) })
    expect(keys[0]).not.toHaveProperty('d')
    expect(jwk).toEqual({ ...keys[0], d: expect.any(String) })
    expect(out + err).not.toContain(jwk.d)
    expect(await runRecorded(['key', 'public', path])).toEqual({ code: 0, out, err: '' })
  })

  it('never overwrites, nor follows a link', async () => {
    const folder = createFolder()
    const path = join(folder, 'bot.key')
    writeFileSync(path, 'precious')
    symlinkSync(join(folder, 'elsewhere'), join(folder, 'link'))
    for (const name of [path, join(folder, 'link')]) {
      const { code, out, err } = await runRecorded(['key', 'create', name])
      expect([code, out]).toEqual([1, ''])
      expect(err).toContain('exists already')
    }
    expect(readFileSync(path, 'utf8')).toBe('precious')
    expect(existsSync(join(folder, 'elsewhere'))).toBe(false)
    expect((await runRecorded(['key', 'create', join(folder, 'no', 'key')])).err).toContain('its folder does not exist')
  })

  it('refuses a key that others can read, and repeats nothing of a broken one', async () => {
    const path = join(createFolder(), 'bot.key')
    await runRecorded(['key', 'create', path])
    chmodSync(path, 0o644)
    expect((await runRecorded(['key', 'public', path])).err).toContain(`chmod 600 ${path}`)
    chmodSync(path, 0o600)
    const text = readFileSync(path, 'utf8')
    writeFileSync(path, text.slice(0, -3))
    const { code, err } = await runRecorded(['key', 'public', path], { env: { STINT_DEBUG: '1' } })
    expect(code).toBe(1)
    expect(err).toContain('is not JSON')
    expect(err).not.toContain(JSON.parse(text).d.slice(0, 10))
  })
})

describe('stint token without a key', () => {
  it('makes one, says how to go on, and prints nothing that could pass for a token', async () => {
    const path = join(createFolder(), 'bot.key')
    const { code, out, err } = await runRecorded(['token', 'tickets:read'], { env: { STINT_WORKLOAD: 'bot', STINT_KEY_FILE: path } })
    expect([code, out]).toEqual([1, ''])
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(err).toContain(`stint key public ${path} > bot.jwks.json`)
    expect(err).toContain('stint workload register bot')
    expect(err).toContain(JSON.parse(readFileSync(path, 'utf8')).kid)
  })

  it('is only for asking: introspect and revoke make none', async () => {
    const path = join(createFolder(), 'bot.key')
    for (const verb of ['introspect', 'revoke']) {
      const { code, err } = await runRecorded(['token', verb, 'a.b.c', '--workload', 'bot', '--key', path])
      expect(code).toBe(1)
      expect(err).toContain('there is no key file')
    }
    expect(existsSync(path)).toBe(false)
  })
})

describe('--jwks', () => {
  const env = { STINT_OPERATOR_TOKEN: 'stint_op_x', STINT_URL: 'http://127.0.0.1:1' }
  const register = ['workload', 'register', 'bot', '--environment', 'prod', '--stage', 'pilot', '--team', 'support', '--contact', 'oncall:support']
  const more = ['--purpose', 'x', '--review-at', '2027-06-30', '--jwks']

  it.each([
    ['a private key', (jwk: object) => JSON.stringify(jwk)],
    ['a set with a private key', (jwk: object) => JSON.stringify({ keys: [jwk] })],
  ])('refuses %s before anything is sent, and says how to get the public one', async (_what, write) => {
    const path = join(createFolder(), 'bot.key')
    await runRecorded(['key', 'create', path])
    const input = write(JSON.parse(readFileSync(path, 'utf8')))
    for (const args of [[...register, ...more, '-'], ['workload', 'add-key', 'bot', '--jwks', '-']]) {
      const { code, err } = await runRecorded(args, { env, input })
      expect(code).toBe(1)
      expect(err).toContain('nothing was sent')
      expect(err).toContain('stint key public FILE')
    }
  })

  it.each([
    ['', 'is not JSON'],
    ['[]', 'no set of public keys'],
    ['"x"', 'no set of public keys'],
    ['-----BEGIN PUBLIC KEY-----', 'it is PEM'],
  ])('refuses %j', async (input, message) => {
    const { code, err } = await runRecorded([...register, ...more, '-'], { env, input })
    expect(code).toBe(1)
    expect(err).toContain(message)
  })

  it('says what is wrong with the file', async () => {
    const folder = createFolder()
    mkdirSync(join(folder, 'sub'))
    expect((await runRecorded([...register, ...more, join(folder, 'none')], { env })).err).toContain('there is no file')
    expect((await runRecorded([...register, ...more, join(folder, 'sub')], { env })).err).toContain('is a folder')
  })
})
