import { cpSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { runRecorded } from './cli/recorder.ts'
import { findFreePort } from './free-port.ts'
import { createTestFolder } from './harness.ts'
import { runProgram, runShell, startProgram, type Program } from './program.ts'

// Starting a process takes as long as the machine lets it.
vi.setConfig({ testTimeout: 60_000 })

const policies = fileURLToPath(new URL('../policies', import.meta.url))

/** Whoever brings a database is given no sample one, which takes its time to start. */
const env = { WAREHOUSE_URL: 'postgres://nobody:none@127.0.0.1:1/none' }

/** A folder with the sample policies, as a checkout of the repository has it, and a free port. */
async function setUp({ warehouse = false } = {}) {
  const cwd = createTestFolder()
  cpSync(policies, join(cwd, 'policies'), { recursive: true })
  const port = await findFreePort()
  const serve = (...more: readonly string[]): Program => startProgram(['serve', '--dev', '--port', String(port), ...more], warehouse ? { cwd } : { cwd, env })
  return { cwd, port, serve, url: `http://127.0.0.1:${port}` }
}

/** The lines of the introduction that are to be typed, a continued one as one, and one whose quotes go on. */
function commandsIn(out: string): string[] {
  const lines: string[] = []
  for (const line of out.replaceAll('\\\n', '').split('\n')) {
    if ((lines.at(-1)?.split('"').length ?? 1) % 2 === 0) lines.push(`${lines.pop()}\n${line}`)
    else lines.push(line)
  }
  return lines.map((line) => line.trim()).filter((line) => /^(?:export |npx stint |TOKEN=|CODE=)/.test(line))
}

/** The JSON object that stands indented behind a line which ends so. */
function jsonAfter(out: string, line: string): Record<string, unknown> {
  const [, text = ''] = new RegExp(`${line}:?\\n\\n( {2}\\{\\n[^]*?\\n {2}\\}\\n)`).exec(out) ?? []
  return JSON.parse(text) as Record<string, unknown>
}

describe('stint serve --dev', () => {
  test('shows a newcomer a first token, and every command that it prints does what it says', async () => {
    const { cwd, serve, url } = await setUp({ warehouse: true })
    // The command that is lent a role speaks to it by a package of this installation.
    symlinkSync(fileURLToPath(new URL('../node_modules', import.meta.url)), join(cwd, 'node_modules'))
    const first = serve()
    await first.until('Ctrl-C stops it.')
    const { out, err } = first.said()
    expect(err).toBe('')
    expect(out).toContain(`Stint is ready at ${url} (development mode`)
    const credentials = out.match(/stint_op_[\w-]+/g) ?? []
    expect(credentials).toHaveLength(1)

    const claims = jsonAfter(out, 'Its claims')
    expect(claims).toMatchObject({ iss: url, sub: 'spiffe://stint.local/triage-bot', scope: 'tickets:read tickets:comment' })
    const entry = jsonAfter(out, 'as entry \\d+')
    expect(entry).toMatchObject({ type: 'grant.issued', workload: 'triage-bot', grant: claims['jti'], task: 'hello', decision: { verdict: 'allow' } })
    expect(out).toContain(`as entry ${String(entry['index'])}:`)

    for (const file of ['root.key', 'triage-bot.key', 'stint.db']) expect([file, statSync(join(cwd, '.stint', file)).mode & 0o777]).toEqual([file, 0o600])
    expect(statSync(join(cwd, '.stint')).mode & 0o777).toBe(0o700)

    const commands = commandsIn(out)
    const names = commands.map((command) => command.replace(/^npx stint ([a-z]+(?: [a-z]+)?)[^]*/, '$1').replace(/=[^]*/, ''))
    // Where PostgreSQL can be started.
    const lends = out.includes('npx stint grant warehouse')
    expect(names).toEqual([
      'export STINT_OPERATOR_TOKEN',
      'export STINT_URL',
      'token payments',
      'TOKEN',
      'token introspect',
      'revoke',
      'token introspect',
      ...(lends ? ['grant warehouse', 'grants'] : []),
      'audit list',
      'audit key',
      'audit export',
      'audit verify',
      'CODE',
      'enroll',
      'token docs',
    ])
    // One shell for all of them, as a person would have; each one's output and end behind a mark.
    const script = commands.map((command) => `${command}\necho "=> $?"; echo "=> $?" >&2`).join('\n')
    const ran = await runShell(script, { cwd })
    const outs = ran.out.split(/=> \d+\n/)
    const errs = ran.err.split(/=> \d+\n/)
    const codes = [...ran.out.matchAll(/=> (\d+)\n/g)].map(([, code]) => Number(code))
    const refused = ['token payments', 'token introspect']
    expect([codes, ran.err]).toEqual([names.map((name, i) => (refused.includes(name) && i !== names.indexOf('token introspect') ? 1 : 0)), ran.err])
    const [outOf, errOf] = [outs, errs].map((texts) => (name: string) => texts[names.lastIndexOf(name)]) as [(name: string) => string, (name: string) => string]
    expect(errOf('token payments')).toMatch(/^stint: .*polic/)
    expect(outs[names.indexOf('token introspect')]).toMatch(/^active +yes\n/)
    expect(outOf('revoke')).toMatch(/^Ended \d+ grants?[. ]/)
    expect(outOf('token introspect')).toMatch(/^active +no\n/)
    if (lends) {
      expect(outOf('grant warehouse')).toMatch(/│ 'stint_\w+' /)
      expect(outOf('grants')).toMatch(/ warehouse  triage-bot  revoked  /)
    }
    expect(outOf('audit list')).toMatch(/grants\.revoked.*\n/)
    expect(outOf('audit verify')).toMatch(/^file: ok\n/)
    expect(errOf('CODE')).toMatch(/^docs-bot is registered /)
    expect(outOf('enroll')).toMatch(/^workload +docs-bot\n/)
    expect(outOf('token docs')).toContain('spiffe://stint.local/docs-bot')

    // A second start on the same data finds everything, and shows no credential again.
    expect(await first.stop()).toMatchObject({ code: 0, err: '', out: expect.stringContaining('Stopping: finishing what was begun.') })
    const second = serve()
    await second.until('Ctrl-C stops it.')
    expect(second.said().out).toContain('The admin credential was shown at the first start and is kept nowhere')
    expect(second.said().out).not.toMatch(/stint_op_|eyJ|Its claims/)
    const [token = '', address = ''] = commands
    const still = await runShell(`${token}\n${address}\nnpx stint workload list`, { cwd })
    expect([still.code, still.out]).toEqual([0, expect.stringMatching(/^docs-bot [^]*^triage-bot /m)])
    expect(await second.stop('SIGINT')).toMatchObject({ code: 0, signal: null, err: '' })
  })

  test('quotes a folder for the shell, and serves with policies that do not know its sample agent', async () => {
    const { cwd, port } = await setUp()
    const files = createTestFolder()
    writeFileSync(join(files, 'rules.cedar'), '')
    cpSync(join(policies, 'tools'), join(files, 'tools'), { recursive: true })
    const args = ['serve', '--dev', '--port', String(port), '--data', "my data's"]
    const bare = startProgram([...args, '--policies', files], { cwd, env })
    await bare.until('Ctrl-C stops it.')
    expect(bare.said().err).toMatch(/^The sample agent could not be shown: .*polic/)
    expect(bare.said().out).toMatch(/stint_op_/)
    expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200)
    expect((await bare.stop()).code).toBe(0)

    const other = startProgram(['serve', '--dev', '--port', String(port), '--data', "my other data's"], { cwd, env })
    await other.until('Ctrl-C stops it.')
    const get = commandsIn(other.said().out).find((command) => command.startsWith('TOKEN=')) ?? ''
    const environment = commandsIn(other.said().out).filter((command) => command.startsWith('export '))
    const ran = await runShell([...environment, get, 'echo "$TOKEN"'].join('\n'), { cwd })
    expect(ran).toMatchObject({ code: 0, err: '', out: expect.stringMatching(/^eyJ/) })
  })

  test('refuses what it cannot serve: used data, a used port, no policies, a broken option', async () => {
    const { cwd, port, serve } = await setUp()
    const first = serve()
    await first.until('Ctrl-C stops it.')
    const [sameData, samePort, noPolicies] = await Promise.all([
      runProgram(['serve', '--dev', '--port', String(await findFreePort())], { cwd }),
      runProgram(['serve', '--dev', '--port', String(port), '--data', 'other'], { cwd }),
      runProgram(['serve', '--dev', '--port', String(await findFreePort()), '--data', 'third', '--policies', 'nowhere'], { cwd }),
    ])
    expect(sameData).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^stint: another process has .*stint\.db open: stop it first/) })
    expect(samePort).toMatchObject({ code: 1, out: '', err: `stint: cannot listen on 127.0.0.1 port ${port}: something else listens there: stop it, or choose another port\n` })
    expect(noPolicies).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^stint: There is no policy folder ".*nowhere"/) })
    // The first one has noticed nothing.
    expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200)
    expect((await first.stop()).code).toBe(0)

    // Files that do not load are fatal where nothing is in force yet, and otherwise leave what is in force.
    writeFileSync(join(cwd, 'policies/broken.cedar'), 'permit (principal, action, resource);')
    const again = serve()
    await again.until('Ctrl-C stops it.')
    expect(again.said().err).toMatch(/^the policy folder does not load; the set in force stays \(policy_set [0-9a-f]{64}\):\nbroken\.cedar:1:1 .*\n$/)
    expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200)
    // Mended while it runs, it is taken by itself.
    renameSync(join(cwd, 'policies/broken.cedar'), join(cwd, 'broken.cedar'))
    await again.until('the policy folder is what is in force')
    renameSync(join(cwd, 'broken.cedar'), join(cwd, 'policies/broken.cedar'))
    await again.stop()
    const fresh = await runProgram(['serve', '--dev', '--port', String(port), '--data', 'fourth'], { cwd })
    expect(fresh).toMatchObject({ code: 1, out: '' })
    expect(fresh.err).toMatch(/^stint: the policy folder has 1 problem, and no set is in force yet:\nbroken\.cedar:1:1 .*\n$/)

    // The same for a folder that is gone.
    renameSync(join(cwd, 'policies'), join(cwd, 'elsewhere'))
    const without = serve()
    await without.until('Ctrl-C stops it.')
    expect(without.said().err).toMatch(/^the policy folder does not load; the set in force stays .*: There is no policy folder ".*"[^{}]*\n$/)
    expect((await without.stop()).code).toBe(0)
  })

  test('makes no second root key for a database that the first one has sealed', async () => {
    const { cwd, serve } = await setUp()
    const file = join(cwd, '.stint/root.key')
    const first = serve()
    await first.until('Ctrl-C stops it.')
    await first.stop()
    const key = readFileSync(file)
    rmSync(file)
    const message = `stint: ${file} is missing: put it back, or delete ${join(cwd, '.stint')} to start afresh\n`
    expect(await serve().ended).toMatchObject({ code: 1, out: '', err: message })
    writeFileSync(file, key, { mode: 0o600 })
    const again = serve()
    await again.until('Ctrl-C stops it.')
    rmSync(join(cwd, '.stint'), { recursive: true })
    await again.stop()
    const afresh = serve()
    await afresh.until('Ctrl-C stops it.')
    expect(afresh.said().out).toContain('stint_op_')
  })

  test('says in one line where it can keep nothing', async () => {
    const { cwd, port } = await setUp()
    writeFileSync(join(cwd, 'file'), '')
    for (const data of ['file', 'file/inner']) {
      const ended = await runProgram(['serve', '--dev', '--port', String(port), '--data', data], { cwd })
      const message = `stint: nothing can be kept in ${join(cwd, data)}: it is, or lies in, something that is no folder; give --data a folder of your own\n`
      expect(ended).toMatchObject({ code: 1, out: '', err: message })
    }
  })

  test('and its options are given right, or explained', async () => {
    const cases: readonly (readonly [readonly string[], string])[] = [
      [[], 'give either --config FILE (production) or --dev'],
      [['--dev', '--config', 'x'], 'give either --config FILE (production) or --dev'],
      [['--config', 'x', '--port', '1'], 'are for --dev'],
      [['--dev', '--port', '0'], 'is not a port'],
      [['--dev', '--port', '65536'], 'is not a port'],
      [['--dev', 'now'], 'serve takes no now'],
    ]
    for (const [args, message] of cases) {
      const { code, err } = await runRecorded(['serve', ...args])
      expect([args, code, err]).toEqual([args, 2, expect.stringContaining(message)])
    }
  })
})

/** A connection on which a request is begun and its body not finished. */
async function beginRequest(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  socket.on('error', () => undefined)
  const body = 'grant_type=password'
  socket.write(
    `POST /oauth2/token HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/x-www-form-urlencoded\r\n` +
      `content-length: ${body.length}\r\n\r\n${body.slice(0, -1)}`,
  )
  // Its headers have arrived once the server has answered one that was sent later.
  await fetch(`http://127.0.0.1:${port}/healthz`)
  return socket
}

describe('A broker that is told to stop', () => {
  test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('by %s answers what was begun, takes nothing new, and ends well', async (signal) => {
    const { port, serve } = await setUp()
    const program = serve()
    await program.until('Ctrl-C stops it.')
    const idle = connect(port, '127.0.0.1')
    onTestFinished(() => void idle.destroy())
    const idleEnd = idle.toArray()
    const socket = await beginRequest(port)
    program.child.kill(signal)
    await program.until('Stopping: finishing what was begun.')
    // Connections on which nothing is under way are closed, and no new one is taken.
    expect(await idleEnd).toEqual([])
    await expect(fetch(`http://127.0.0.1:${port}/healthz`)).rejects.toThrow('fetch failed')
    expect(program.child.exitCode).toBe(null)

    const answer = socket.toArray()
    const beganMs = performance.now()
    socket.write('d')
    const text = Buffer.concat((await answer) as Buffer[]).toString()
    expect(text).toMatch(/^HTTP\/1\.1 400 /)
    expect(text).toContain('unsupported_grant_type')
    // Told to the client, so that it does not send its next request on this connection.
    expect(text).toMatch(/\r\nconnection: close\r\n/i)
    expect(await program.ended).toMatchObject({ code: 0, signal: null, err: '' })
    // By then, and not when the deadline for what hangs has come.
    expect(performance.now() - beganMs).toBeLessThan(8000)
  })

  test('ends at once when it is told again, by whichever signal', async () => {
    const { port, serve } = await setUp()
    const program = serve()
    await program.until('Ctrl-C stops it.')
    await beginRequest(port)
    program.child.kill('SIGINT')
    await program.until('Stopping: finishing what was begun.')
    await setTimeout(20)
    expect(await program.stop('SIGTERM')).toMatchObject({ code: null, signal: 'SIGTERM' })
  })
})
