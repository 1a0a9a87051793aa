import { copyFileSync, existsSync, readFileSync, realpathSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { readKeyFile } from '../../src/cli/key-file.ts'
import { createAgentClient } from '../../src/client/agent.ts'
import { publicJwks, type AgentKey } from '../../src/client/key.ts'
import { startRealBroker } from '../client/real-broker.ts'
import { runProgram, startProgram } from '../program.ts'
import { createFolder, runRecorded } from './recorder.ts'

/** A broker, and the key file of the registered workload `bot`, with its command line. */
async function setUp() {
  const { url, operator, admin } = await startRealBroker()
  const keyFile = realpathSync(createFolder()) + '/bot.key'
  const env = { STINT_URL: url, STINT_WORKLOAD: 'bot', STINT_KEY_FILE: keyFile }
  const asBot = (...args: readonly string[]) => runRecorded(args, { env })
  await asBot('key', 'create', keyFile)
  const first = await keyIn(keyFile)
  await admin.registerWorkload({
    name: 'bot',
    environment: 'prod',
    stage: 'pilot',
    owner: { team: 'support', contact: 'oncall:support' },
    purpose: 'Labels tickets',
    review_at: new Date(Date.now() + 30 * 86_400_000).toISOString(),
    jwks: publicJwks(first),
  })
  const asOperator = (...args: readonly string[]) => runRecorded(args, { env: { STINT_URL: url, STINT_OPERATOR_TOKEN: operator } })
  const clientOf = (key: AgentKey) => createAgentClient({ url, workload: 'bot', key })
  const statuses = async () => Object.fromEntries((await admin.getWorkload('bot')).keys.map(({ kid, status }) => [kid, status]))
  return { url, admin, keyFile, next: `${keyFile}.next`, first, asBot, asOperator, clientOf, statuses }
}

async function keyIn(path: string): Promise<AgentKey> {
  const key = await readKeyFile(path)
  if (key === undefined) throw new Error(`no key in ${path}`)
  return key
}

describe('stint key rotate', () => {
  it('puts a new key in the file, keeps no copy of the old one, and says until when that is good', async () => {
    const { keyFile, next, first, asBot, asOperator, clientOf, statuses } = await setUp()
    const { code, out, err } = await asBot('key', 'rotate')
    const second = await keyIn(keyFile)
    expect(code).toBe(0)
    expect(second.kid).not.toBe(first.kid)
    const [, until = ''] = /^until +(\S+)$/m.exec(out) ?? []
    expect(out).toMatch(new RegExp(`^workload +bot\\nkey +${second.kid}\\nkey file +${keyFile}\\nreplaces +${first.kid}\\nuntil +\\S+\\naudit entry +\\d+\\n$`))
    expect(Math.abs(Date.parse(until) - Date.now() - 3_600_000)).toBeLessThan(60_000)
    expect(err).toBe(`A program that has read the old key must read ${keyFile} again before ${until}.\n`)
    expect([existsSync(next), statSync(keyFile).mode & 0o777]).toEqual([false, 0o600])
    expect(await statuses()).toEqual({ [first.kid]: 'ending', [second.kid]: 'active' })
    expect((await asOperator('workload', 'show', 'bot')).out).toMatch(new RegExp(`^key +${first.kid}  ES256  ending at ${until}$`, 'm'))
    for (const key of [first, second]) expect(await clientOf(key).provesWorkload()).toBe(true)
    expect((await asBot('token', 'tickets:read')).code).toBe(0)

    const json = JSON.parse((await asBot('key', 'rotate', '--overlap', '0', '--alg', 'Ed25519', '--json')).out)
    const third = await keyIn(keyFile)
    expect([third.alg, json]).toEqual(['Ed25519', { workload: 'bot', kid: third.kid, replaces: second.kid, until: expect.any(String) as unknown, key_file: keyFile, audit_index: expect.any(Number) as unknown }])
    expect(await clientOf(second).provesWorkload()).toBe(false)
    // Of the algorithm of the one before, unless it is told otherwise.
    expect((await asBot('key', 'rotate', '--overlap', '10m')).code).toBe(0)
    expect((await keyIn(keyFile)).alg).toBe('Ed25519')
    const audit = await asOperator('audit', 'list', '--type', 'workload.key_rotated')
    expect(audit.out).toMatch(new RegExp(`key ${second.kid} ES256 in place of ${first.kid} until 20`))
  })

  it('is finished by running it again, wherever it was interrupted', async () => {
    const { keyFile, next, first, asBot, clientOf, statuses } = await setUp()
    // After the new key was kept: nobody knows of it yet.
    await asBot('key', 'create', next)
    const second = await keyIn(next)
    const went = await asBot('key', 'rotate')
    expect([went.code, went.err.split('\n')[0]]).toEqual([0, `Going on with ${next}, which an earlier rotation has left.`])
    expect([(await keyIn(keyFile)).kid, existsSync(next)]).toEqual([second.kid, false])

    // After it was registered, while the old one still lives.
    await asBot('key', 'create', next)
    const third = await keyIn(next)
    const { until } = await clientOf(second).rotateKey(third)
    const again = await asBot('key', 'rotate', '--json')
    expect(JSON.parse(again.out)).toMatchObject({ kid: third.kid, replaces: second.kid, until: until.toISOString() })
    expect(JSON.parse(again.out)).not.toHaveProperty('audit_index')
    expect((await keyIn(keyFile)).kid).toBe(third.kid)

    // After it was registered, and the old one has ended.
    await asBot('key', 'create', next)
    const fourth = await keyIn(next)
    await clientOf(third).rotateKey(fourth, 0)
    const late = await asBot('key', 'rotate')
    expect([late.code, late.out]).toEqual([0, expect.stringMatching(new RegExp(`^key +${fourth.kid}$[^]*^until +it has ended$`, 'm'))])
    expect([(await keyIn(keyFile)).kid, existsSync(next)]).toEqual([fourth.kid, false])
    expect(Object.keys(await statuses()).sort()).toEqual([first, second, third, fourth].map(({ kid }) => kid).sort())
  })

  it('twice at once leaves a key that works', async () => {
    const { keyFile, next, asBot, clientOf } = await setUp()
    const ran = await Promise.all([asBot('key', 'rotate'), asBot('key', 'rotate'), asBot('key', 'rotate')])
    expect(ran.some(({ code }) => code === 0)).toBe(true)
    expect(await clientOf(await keyIn(keyFile)).provesWorkload()).toBe(true)
    // Whatever was left over does no harm.
    expect((await asBot('key', 'rotate')).code).toBe(0)
    expect([await clientOf(await keyIn(keyFile)).provesWorkload(), existsSync(next)]).toEqual([true, false])
  })

  it('survives being killed at any moment', { timeout: 120_000 }, async () => {
    const { url, keyFile, next, asBot, clientOf } = await setUp()
    const env = { STINT_URL: url, STINT_WORKLOAD: 'bot', STINT_KEY_FILE: keyFile }
    // Earlier and later than it takes, whatever this machine is like.
    const beganMs = performance.now()
    expect((await runProgram(['key', 'rotate', '--overlap', '0'], { cwd: dirname(keyFile), env })).code).toBe(0)
    const wholeMs = performance.now() - beganMs
    for (let i = 0; i < 6; i++) {
      const running = startProgram(['key', 'rotate', '--overlap', i % 2 === 0 ? '0' : '1h'], { cwd: dirname(keyFile), env })
      await setTimeout(wholeMs * (0.55 + 0.08 * i))
      await running.stop('SIGKILL')
    }
    expect((await asBot('key', 'rotate')).code).toBe(0)
    expect([await clientOf(await keyIn(keyFile)).provesWorkload(), existsSync(next)]).toEqual([true, false])
  })

  it('replaces what a link leads to, and not the link', async () => {
    const { keyFile, first, asBot } = await setUp()
    const real = `${keyFile}.real`
    renameSync(keyFile, real)
    symlinkSync(real, keyFile)
    expect((await asBot('key', 'rotate')).code).toBe(0)
    expect(realpathSync(keyFile)).toBe(real)
    expect((await keyIn(keyFile)).kid).not.toBe(first.kid)
  })

  it('changes nothing where it is refused, and says what to do', async () => {
    const { admin, keyFile, next, asBot } = await setUp()
    const before = readFileSync(keyFile, 'utf8')
    await admin.suspendWorkload('bot')
    const suspended = await asBot('key', 'rotate')
    expect([suspended.code, suspended.out]).toEqual([1, ''])
    expect(suspended.err).toContain('stint workload show bot')
    expect(suspended.err).not.toContain('suspended')
    expect((await asBot('key', 'rotate')).code).toBe(1)
    await admin.resumeWorkload('bot')

    // A file from before the rotation: its key is ending.
    copyFileSync(keyFile, `${keyFile}.backup`)
    expect((await asBot('key', 'rotate')).code).toBe(0)
    renameSync(`${keyFile}.backup`, keyFile)
    const ending = await asBot('key', 'rotate')
    expect([ending.code, readFileSync(keyFile, 'utf8')]).toEqual([1, before])
    expect(ending.err).toContain('This key was rotated out and ends at')
    expect(ending.err).toContain(`the new key is left in ${next}`)
    rmSync(keyFile)
    expect((await asBot('key', 'rotate')).err).toContain('there is no key file')
    expect((await asBot('key', 'rotate', '--overlap', '25h')).code).toBe(2)
    expect((await asBot('key', 'rotate', '--overlap', '-1')).code).toBe(2)
    expect((await asBot('key', 'rotate', 'x')).code).toBe(2)
    expect(existsSync(join(keyFile, '..', 'x'))).toBe(false)
  })

  it('keeps the new key when no answer comes, and finishes with it later', async () => {
    const { url, keyFile, next, first, asBot } = await setUp()
    const away = await runRecorded(['key', 'rotate', '--key', keyFile, '--workload', 'bot', '--url', 'http://127.0.0.1:1'])
    expect(away.code).toBe(1)
    const kept = await keyIn(next)
    expect((await keyIn(keyFile)).kid).toBe(first.kid)
    expect((await asBot('key', 'rotate', '--url', url)).code).toBe(0)
    expect((await keyIn(keyFile)).kid).toBe(kept.kid)
  })
})
