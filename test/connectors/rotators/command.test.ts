import { chmodSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { openRotator } from '../../../src/connectors/rotators/open-rotator.ts'
import type { Rotator } from '../../../src/connectors/rotators/rotator.ts'
import { Secret } from '../../../src/kernel/secret.ts'
import { rotatorSchema } from '../../../src/policy/kinds/rotators.ts'
import { createTestFolder, createTestLog } from '../../harness.ts'
import { failure, within } from '../postgres-tool.ts'
import { createToolContext } from '../tool-context.ts'

const run = '0b0e2f6a-6d7c-4c53-9e50-4d6f3a5c9c11'
const current = new Secret('current "value"\nwith two lines')
const pending = new Secret('{"user":"billing","password":"pending-word"}')

interface Scene {
  readonly rotator: Rotator
  readonly folder: string
  readonly path: string
  readonly lines: readonly string[]
}

/** A command of the broker's machine that does what the script says; `$D` is a folder of its own. */
function createCommand(script: string, { args = ['--environment', 'test'], name = 'billing' }: { readonly args?: readonly string[]; readonly name?: string } = {}): Scene {
  const folder = realpathSync(createTestFolder())
  const path = join(folder, 'rotate-billing')
  writeFileSync(path, `#!/bin/sh\nD=${folder}\n${script}\n`, { mode: 0o700 })
  const { log, lines } = createTestLog()
  const context = createToolContext({ commands: new Map([['billing', { path, args }]]), log })
  return { folder, path, lines, rotator: openRotator(rotatorSchema.parse({ command: { name } }), { tool: { name: 'billing-api' }, context }) }
}

/** What was killed and has not been waited for by its parent is not running either. */
function isRunning(pid: number): boolean {
  return existsSync(`/proc/${pid}/stat`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
}

async function untilThere(file: string): Promise<string> {
  for (let i = 0; i < 200; i++) {
    if (existsSync(file) && readFileSync(file, 'utf8').endsWith('\n')) return readFileSync(file, 'utf8').trim()
    await setTimeout(20)
  }
  throw new Error(`${file} did not come`)
}

describe('a command that replaces a secret', () => {
  test('is called with its own arguments and the step, and reads the values as JSON', async () => {
    const { rotator, folder } = createCommand('echo "$@" >> $D/args; cat >> $D/input; echo >> $D/input; if [ "$3" = create ]; then printf "a new value\\n"; fi')
    expect((await rotator.create(run, current, within())).reveal()).toBe('a new value')
    await rotator.set(run, pending, current, within())
    expect(await rotator.test(pending, within())).toEqual({ ok: true })
    await rotator.retire?.(current, pending, { cutOff: true }, within())
    await rotator.abandon?.(pending, current, { kept: true }, within())
    expect(readFileSync(join(folder, 'args'), 'utf8')).toBe(['create', 'set', 'test', 'retire', 'retire'].map((step) => `--environment test ${step}\n`).join(''))
    expect(readFileSync(join(folder, 'input'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as unknown)).toEqual([
      { tool: 'billing-api', rotation: run, current: current.reveal() },
      { tool: 'billing-api', rotation: run, pending: pending.reveal(), current: current.reveal() },
      { tool: 'billing-api', pending: pending.reveal() },
      { tool: 'billing-api', retired: current.reveal(), current: pending.reveal(), cut_off: true, given_up: false },
      { tool: 'billing-api', retired: pending.reveal(), current: current.reveal(), cut_off: false, given_up: true },
    ])
  })

  test('has no secret in its arguments or its environment, and nothing of the broker’s own', async () => {
    process.env['STINT_TEST_CANARY'] = 'canary-of-the-broker'
    const { rotator, folder } = createCommand('tr "\\0" "\\n" < /proc/$$/cmdline > $D/cmdline; tr "\\0" "\\n" < /proc/$$/environ > $D/environ; pwd > $D/folder; ls -l /proc/$$/fd > $D/files; cat > /dev/null')
    await rotator.set(run, pending, current, within())
    delete process.env['STINT_TEST_CANARY']
    expect(readFileSync(join(folder, 'cmdline'), 'utf8')).toBe(`/bin/sh\n${join(folder, 'rotate-billing')}\n--environment\ntest\nset\n`)
    const names = readFileSync(join(folder, 'environ'), 'utf8').trim().split('\n').map((line) => line.split('=')[0])
    expect(names.sort()).toEqual(['LANG', 'PATH'])
    expect(readFileSync(join(folder, 'folder'), 'utf8')).toBe('/\n')
    // Its three streams and what the shell itself has open.
    const files = readFileSync(join(folder, 'files'), 'utf8').split('\n').filter((line) => /->/.test(line) && !/socket:|pipe:|rotate-billing|\/files$/.test(line))
    expect(files).toEqual([])
  })

  test('what it says is in the log, without the secrets and not for long', async () => {
    const { rotator, lines } = createCommand('IN=$(cat); echo "got $IN and pending-word and cGVuZGluZy13b3Jk" >&2; yes aaaaaaaaaa | head -c 200000 >&2; exit 3')
    const error = await failure(rotator.set(run, pending, current, within()))
    expect(error).toMatchObject({ outcome: 'unknown', publicMessage: 'The command billing ended with 3 at the step set: what it said is in the broker\'s log.' })
    const line = JSON.parse(lines.find((one) => one.includes('has failed')) ?? '{}') as Record<string, unknown>
    expect(line).toMatchObject({ level: 'warn', tool: 'billing-api', command: 'billing', step: 'set', code: 3 })
    expect(String(line['said'])).toMatch(/^got .*\[redacted\].* and \[redacted\] and \[redacted\]/)
    expect(String(line['said']).length).toBeLessThanOrEqual(4_096)
    for (const text of [lines.join(''), `${error.stack}`]) for (const secret of ['pending-word', 'with two lines', 'current \\"value', 'cGVuZGluZy13b3Jk']) expect(text).not.toContain(secret)
  })

  test('a new value that it says twice is not in the log either, nor where the end of what is read cuts it in two', async () => {
    const { rotator, lines } = createCommand('cat > /dev/null; echo brand-new-value; echo "made brand-new-value" >&2')
    expect((await rotator.create(run, current, within())).reveal()).toBe('brand-new-value')
    expect(lines.join('')).toContain('made [redacted]')
    const many = createCommand('cat > /dev/null; seq 100000 101000; echo 100500 >&2')
    await many.rotator.create(run, current, within())
    expect(many.lines.join('')).not.toContain('100500')
    const cut = createCommand('cat > /dev/null; printf "brand-new-value"; head -c 65528 /dev/zero | tr "\\0" " " >&2; echo brand-new-value >&2; exit 1')
    await failure(cut.rotator.create(run, current, within()))
    expect(cut.lines.join('')).not.toContain('brand-ne')
  })

  test('is killed with all that it has started when its time is over', async () => {
    const { rotator, folder, lines } = createCommand('cat > /dev/null; sleep 1000 & echo $! > $D/child; sleep 1000')
    const stop = new AbortController()
    const call = failure(rotator.set(run, pending, current, stop.signal))
    const child = Number(await untilThere(join(folder, 'child')))
    stop.abort()
    expect(await call).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('did not end in time and was killed at the step set') })
    expect(lines.join('')).toContain('has failed')
    await setTimeout(100)
    expect(isRunning(child)).toBe(false)
  })

  test('what it leaves behind in the background is killed, and what got away holds nothing up', async () => {
    const { rotator, folder } = createCommand('cat > /dev/null; sleep 1000 & echo $! > $D/child; setsid sleep 1001 & echo $! > $D/away; sleep 0.5; echo value')
    const began = performance.now()
    expect((await rotator.create(run, current, within())).reveal()).toBe('value')
    expect(performance.now() - began).toBeLessThan(5_000)
    await setTimeout(100)
    expect(isRunning(Number(readFileSync(join(folder, 'child'), 'utf8')))).toBe(false)
    const away = Number(readFileSync(join(folder, 'away'), 'utf8'))
    expect(isRunning(away)).toBe(true)
    process.kill(away)
  })

  const codes: readonly (readonly [step: 'test' | 'set', code: string, result: unknown])[] = [
    ['test', 'exit 1', { ok: false, why: expect.stringContaining('ended with 1 at the step test') }],
    ['test', 'exit 75', { outcome: 'unknown', retryAfterSeconds: 60 }],
    ['test', 'kill -9 $$', { outcome: 'unknown', publicMessage: expect.stringContaining('was ended by SIGKILL') }],
    ['set', 'exit 75', { outcome: 'unknown', retryAfterSeconds: 60 }],
    ['set', 'exit 1', { outcome: 'unknown', retryAfterSeconds: undefined }],
  ]
  test.for(codes)('%s that does %s is told from the others', async ([step, code, result]) => {
    const { rotator } = createCommand(`cat > /dev/null; ${code}`)
    const call = step === 'test' ? rotator.test(pending, within()) : rotator.set(run, pending, current, within())
    expect(await call.catch((error: unknown) => error)).toMatchObject(result as object)
  })

  test.for([
    ['nothing', ':'],
    ['an empty line', 'echo'],
    ['too much', 'yes | head -c 65537'],
    ['what is no UTF-8', 'printf "\\377\\376"'],
  ])('%s is no new value', async ([, script]) => {
    const { rotator } = createCommand(`cat > /dev/null; ${script}`)
    expect(await failure(rotator.create(run, current, within()))).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('wrote no value of at most 64 KiB') })
  })

  test('one that does not read its input is none the worse for it', async () => {
    const { rotator } = createCommand('exec 0<&-; echo value')
    expect((await rotator.create(run, new Secret('x'.repeat(60_000)), within())).reveal()).toBe('value')
  })

  test('only what the configuration names is run', async () => {
    const { rotator } = createCommand('touch $D/ran', { name: 'another' })
    expect(await failure(rotator.set(run, pending, current, within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('The command another is not one that this broker may run') })
    expect(rotatorSchema.safeParse({ command: { name: '/bin/sh' } }).success).toBe(false)
    expect(rotatorSchema.safeParse({ command: { name: 'billing', args: ['-c', 'id'] } }).success).toBe(false)
  })

  test('a check says whether it may be run, without running it', async () => {
    const { rotator, path, folder } = createCommand('touch $D/ran')
    expect(await rotator.check?.(current, within())).toEqual([{ ok: true, sentence: `The command billing, which replaces the value, is ${path}, and may be run.` }])
    chmodSync(path, 0o602)
    expect(await rotator.check?.(current, within())).toEqual([{ ok: false, sentence: expect.stringContaining(`The command billing is not run: ${path} `) }])
    expect(await createCommand('', { name: 'another' }).rotator.check?.(current, within())).toEqual([{ ok: false, sentence: expect.stringContaining('under rotation.commands') }])
    expect(existsSync(join(folder, 'ran'))).toBe(false)
  })

  test('nor what others can change', async () => {
    const problemOf = async (change: (scene: Scene) => void): Promise<string> => {
      const scene = createCommand('touch $D/ran')
      change(scene)
      const { outcome, adminMessage, publicMessage } = await failure(scene.rotator.set(run, pending, current, within()))
      expect([outcome, existsSync(join(scene.folder, 'ran'))]).toEqual(['nothing_done', false])
      expect(publicMessage).not.toContain(scene.folder)
      return adminMessage.replaceAll(scene.folder, '…')
    }
    expect(await problemOf(({ path }) => chmodSync(path, 0o702))).toMatch(/who may write …\/rotate-billing: chmod go-w …\/rotate-billing\.$/)
    expect(await problemOf(({ path }) => chmodSync(path, 0o720))).toContain('can be replaced by others')
    expect(await problemOf(({ folder }) => chmodSync(folder, 0o777))).toMatch(/who may write …: chmod go-w …\.$/)
    expect(await problemOf(({ path }) => chmodSync(path, 0o600))).toContain('may not be run')
    expect(await problemOf(({ path, folder }) => {
      writeFileSync(join(folder, 'real'), '#!/bin/sh\n', { mode: 0o700 })
      rmSync(path)
      symlinkSync(join(folder, 'real'), path)
    })).toContain('leads to …/real: the configuration names that instead')
    expect(await problemOf(({ path }) => {
      rmSync(path)
      mkdirSync(path, { mode: 0o700 })
    })).toContain('is no file')
    expect(await problemOf(({ path }) => rmSync(path))).toContain('is not there')
  })

  test('one that is there but cannot be started has done nothing', async () => {
    const { rotator, path } = createCommand('')
    writeFileSync(path, '#!/no/such/interpreter\n', { mode: 0o700 })
    expect(await failure(rotator.set(run, pending, current, within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: 'The program could not be started (ENOENT).' })
    expect(await failure(rotator.set(run, pending, current, AbortSignal.abort()))).toMatchObject({ outcome: 'nothing_done' })
  })
})
