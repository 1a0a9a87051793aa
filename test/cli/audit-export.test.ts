import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { getRequestListener } from '@hono/node-server'
import { beforeEach, describe, expect, it } from 'vitest'
import { csvHeader, formatCsvLine } from '../../src/audit/csv.ts'
import { rebuild, type Rebuilt } from '../audit/rebuild.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { listen } from '../listen.ts'
import { runShell, startProgram } from '../program.ts'
import { note } from '../storage/changes.ts'
import { startTcpProxy } from '../storage/tcp-proxy.ts'
import { createFolder, runRecorded, type Surroundings } from './recorder.ts'

/** A broker behind a wire that the test can cut, and the command line of an auditor there. */
async function setUp() {
  const broker = await startBroker('sqlite')
  const origin = await listen(getRequestListener(broker.app.fetch))
  const proxy = await startTcpProxy(Number(new URL(origin).port))
  const env = { STINT_URL: `http://127.0.0.1:${proxy.port}`, STINT_OPERATOR_TOKEN: await broker.createOperator('auditor') }
  const run = (args: readonly string[], more: Surroundings = {}) => runRecorded(['audit', 'export', ...args], { ...more, env })
  return { broker, proxy, env, run, folder: createFolder() }
}

/** Entries enough that no buffer on the way holds them all. */
async function fill({ broker }: TestBroker, workload = 'bot'): Promise<void> {
  const detail = 'x'.repeat(20_000)
  for (let i = 0; i < 8; i++) await Promise.all(Array.from({ length: 100 }, () => broker.ledger.append({ events: [note(detail, workload)] })))
}

const readBodies = async ({ broker }: TestBroker) => (await broker.database.read.selectFrom('audit_event').select('body').orderBy('idx').execute()).map((row) => row.body)
const asJsonl = (bodies: readonly string[]) => bodies.map((body) => `${body}\n`).join('')
const asCsv = (bodies: readonly string[]) => csvHeader + bodies.map(formatCsvLine).join('')
const notesOf = (file: string) => [file, `${file}.part`, `${file}.part.json`, `${file}.part.json.new`].map((name) => existsSync(name))

/** Holds an export as JSON Lines against what it is to be: these entries, and the proof of them. */
function expectProven({ broker }: TestBroker, text: string, bodies: readonly string[]): Rebuilt {
  expect(text.startsWith(asJsonl(bodies))).toBe(true)
  const rebuilt = rebuild(text, broker.checkpointKey.verifierKey)
  expect(rebuilt.indexes).toHaveLength(bodies.length)
  return rebuilt
}

/** The files that this process has open, where the system tells. */
function openFiles(): readonly string[] {
  const folder = '/proc/self/fd'
  if (!existsSync(folder)) return []
  return readdirSync(folder).flatMap((name) => {
    try {
      return [readlinkSync(join(folder, name))]
    } catch {
      return []
    }
  })
}

const exportsOf = async (broker: TestBroker) => (await broker.events()).filter((event) => event.type === 'audit.exported')

let set: Awaited<ReturnType<typeof setUp>>
beforeEach(async () => {
  set = await setUp()
})

describe('stint audit export', () => {
  it('writes the log to standard output, and nothing else', async () => {
    const { broker, run } = set
    const bodies = await readBodies(broker)
    const taken = await run([])
    expect(taken).toMatchObject({ code: 0, err: '' })
    expect(expectProven(broker, taken.out, bodies)).toMatchObject({ gaps: [], size: bodies.length, sets: [expect.any(String)] })
    const more = await readBodies(broker)
    expect(await run(['--format', 'csv'])).toEqual({ code: 0, out: asCsv(more), err: '' })
    const watched = await run(['--type', 'log.opened'], { errColumns: 80 })
    expect(watched.code).toBe(0)
    expect(expectProven(broker, watched.out, bodies.slice(0, 1)).gaps).toEqual([[1, more.length + 1]])
    const summary = `1 entry of 0 to ${more.length}; audit entry ${more.length + 1}; with its proof, to the checkpoint of ${more.length + 1} entries`
    expect(watched.err).toMatch(/^\r1 entries, at 0 of 0 to \d+, \d+\/s\u001b\[K/)
    expect(watched.err.endsWith(`\r\u001b[K${summary}\n`)).toBe(true)
  })

  it('hands over each option', async () => {
    const { broker, run } = set
    const options = { workload: 'bot', tool: 'tickets', type: 'grant.issued', grant: 'grant_1', task: 't-1', from: '2026-01-01T00:00:00.000Z', to: '2026-02-01T00:00:00.000Z' }
    const args = Object.entries(options).flatMap(([member, value]) => [`--${member}`, value.replace('T00:00:00.000Z', '')])
    const { code, out, err } = await run(args)
    expect([code, err]).toEqual([0, ''])
    expectProven(broker, out, [])
    expect((await exportsOf(broker)).at(-1)).toMatchObject({ format: 'jsonl', selector: options })
  })

  it('writes a file of its own, whole or not at all', async () => {
    const { broker, run, folder } = set
    await fill(broker)
    const bodies = await readBodies(broker)
    const file = join(folder, 'log.jsonl')
    const { code, out, err } = await run(['--output', file])
    expect([code, err]).toEqual([0, ''])
    const size = bodies.length
    expect(out).toBe(`${file}: ${size} entries of 0 to ${size - 1}; audit entry ${size}; with its proof, to the checkpoint of ${size} entries\n`)
    expectProven(broker, readFileSync(file, 'utf8'), bodies)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(notesOf(file)).toEqual([true, false, false, false])

    expect(await run(['--output', file])).toMatchObject({ code: 1, out: '', err: `stint: ${file} exists already and is left as it is: choose another name\n` })
    const json = await run(['--output', join(folder, 'none.csv'), '--format', 'csv', '--type', 'grant.issued', '--json'])
    expect(JSON.parse(json.out)).toEqual({ file: join(folder, 'none.csv'), first: 0, last: bodies.length, entries: 0, audit_index: bodies.length + 1 })
    expect(readFileSync(join(folder, 'none.csv'), 'utf8')).toBe(csvHeader)
    const none = join(folder, 'none.jsonl')
    const proven = await run(['--output', none, '--type', 'grant.issued', '--json'])
    const empty = { first: 0, last: size + 1, entries: 0, audit_index: size + 2, checkpoint_size: size + 2 }
    expect(JSON.parse(proven.out)).toEqual({ file: none, ...empty })
    expect(expectProven(broker, readFileSync(none, 'utf8'), []).gaps).toEqual([[0, size + 2]])
  })

  it('leaves nothing behind where it was refused', async () => {
    const { run, folder, env, broker } = set
    const file = join(folder, 'log.jsonl')
    expect(await run(['--output', file, '--from', '2026-02-01', '--to', '2026-01-01'])).toMatchObject({ code: 2, err: 'stint: --from must not be after --to.\n' })
    expect(await run(['--output', file, '--type', 'grant.isued'])).toMatchObject({ code: 1, err: expect.stringContaining('did you mean grant.issued?') })
    const approver = await broker.createOperator('approver')
    const refused = await runRecorded(['audit', 'export', '--output', file], { env: { ...env, STINT_OPERATOR_TOKEN: approver } })
    expect(refused).toMatchObject({ code: 1, err: expect.stringContaining('needs the role admin or auditor') })
    expect(await run(['--output', join(folder, 'no/log')])).toMatchObject({ code: 1, err: expect.stringContaining('its folder does not exist') })
    expect(notesOf(file)).toEqual([false, false, false, false])
    expect(await exportsOf(broker)).toEqual([])
  })

  it.each([
    [['--format', 'xml'], '--format must be jsonl or csv'],
    [['--resume'], '--resume goes on with a file: give --output FILE'],
    [['--json'], '--json tells of a file: give --output FILE'],
    [['--output', ''], '--output is empty'],
    [['--retries', 'x'], '--retries must be a whole number'],
    [['--from', 'yesterday'], '--from must be a date'],
    [['--since', '2026-01-01'], "Unknown option '--since'. The options are --url, "],
    [['file'], 'only options are taken here'],
  ])('%j is wrong usage', async (args, message) => {
    expect(await set.run(args)).toMatchObject({ code: 2, out: '', err: expect.stringContaining(message) })
  })

  it.each(['jsonl', 'csv'] as const)('as %s goes on by itself when its connection is cut, again and again', async (format) => {
    const { broker, run, proxy, folder } = set
    await fill(broker)
    const bodies = await readBodies(broker)
    // Wherever it happens to be: in the middle of a line, most often.
    let passed = 0
    let cuts = 0
    proxy.onAnswer = (data, connection) => {
      passed += data.length
      if (passed < 3_000_000 * (cuts + 1) || cuts === 3) return 'forward'
      cuts++
      connection.client.write(data.subarray(0, 1000), () => connection.cut())
      return 'drop'
    }
    const file = join(folder, 'log')
    const running = run(['--output', file, '--format', format])
    expect(await running).toMatchObject({ code: 0, err: '' })
    expect(cuts).toBe(3)
    const text = readFileSync(file, 'utf8')
    if (format === 'csv') expect(text).toBe(asCsv(bodies))
    else expectProven(broker, text, bodies)
    const events = await exportsOf(broker)
    expect(events).toHaveLength(4)
    for (const event of events) expect(event).toMatchObject({ last: bodies.length - 1, selector: {} })
  })

  it('that was killed goes on with --resume, up to where it would have ended', { timeout: 60_000 }, async () => {
    const { broker, proxy, folder, env, run } = set
    await fill(broker)
    const bodies = await readBodies(broker)
    const file = join(folder, 'log.jsonl')
    let passed = 0
    proxy.onAnswer = (data) => ((passed += data.length), passed > 5_000_000 ? 'drop' : 'forward')
    const program = startProgram(['audit', 'export', '--output', file], { cwd: folder, env })
    await expect.poll(() => passed, { timeout: 15_000 }).toBeGreaterThan(5_000_000)
    await expect.poll(() => statSync(`${file}.part`).size, { timeout: 15_000 }).toBeGreaterThan(1000)
    await program.stop('SIGKILL')
    proxy.onAnswer = () => 'forward'
    await fill(broker, 'another')
    expect(statSync(`${file}.part`).mode & 0o777).toBe(0o600)
    const begun = readFileSync(`${file}.part`, 'utf8')
    expect(asJsonl(bodies).startsWith(begun)).toBe(true)
    expect(begun.length).toBeGreaterThan(1000)

    expect(await run(['--output', file])).toMatchObject({ code: 1, err: expect.stringContaining('add --resume to go on') })
    expect(await run(['--output', file, '--resume', '--workload', 'bot'])).toMatchObject({ code: 1, err: expect.stringContaining('begun with other options') })
    expect(readFileSync(`${file}.part`, 'utf8')).toBe(begun)
    const resumed = await run(['--output', file, '--resume', '--json'])
    expect(JSON.parse(resumed.out)).toMatchObject({ last: bodies.length - 1 })
    expect(JSON.parse(resumed.out).entries).toBeLessThan(bodies.length)
    expect(expectProven(broker, readFileSync(file, 'utf8'), bodies).gaps).toEqual([])
    expect(notesOf(file)).toEqual([true, false, false, false])
  })

  it('says what to do when the broker does not come back', async () => {
    const { broker, proxy, folder, run } = set
    await fill(broker)
    const bodies = await readBodies(broker)
    let passed = 0
    proxy.onAnswer = (data, connection) => {
      passed += data.length
      if (passed > 2_000_000) {
        connection.cut()
        void proxy.stop()
      }
      return 'forward'
    }
    const file = join(folder, 'log.jsonl')
    const failed = await run(['--output', file, '--retries', '1'])
    expect(failed).toMatchObject({ code: 1, out: '' })
    expect(failed.err).toMatch(/^The export is not complete: run the same command with --resume to go on\.\nstint: .*(?:listens|closed|reach)/)
    proxy.onAnswer = () => 'forward'
    await proxy.listen()
    expect(await run(['--output', file, '--resume'])).toMatchObject({ code: 0 })
    expectProven(broker, readFileSync(file, 'utf8'), bodies)

    passed = 0
    proxy.onAnswer = (data, connection) => {
      passed += data.length
      if (passed > 2_000_000) connection.cut()
      return 'forward'
    }
    const lost = await run(['--retries', '0'])
    expect(lost.code).toBe(1)
    expect(lost.err).toMatch(/^The export is not complete: it ends with entry \d+\.\nstint: /)
    expect(asJsonl(await readBodies(broker)).startsWith(lost.out)).toBe(true)
    expect(lost.out.endsWith('\n')).toBe(true)
  })
})

describe('stint audit export at its proof', () => {
  /** Tells when the proof passes, which begins with a policy set. */
  const isProof = (data: Buffer) => data.includes('{"policy_set":')

  it('takes it up again when the connection is cut, to standard output as to a file', async () => {
    const { broker, run, proxy, folder } = set
    for (const output of [undefined, join(folder, 'log.jsonl')]) {
      const bodies = await readBodies(broker)
      let cuts = 0
      proxy.onAnswer = (data, connection) => {
        if (!isProof(data) || cuts === 3) return 'forward'
        // In the first line, at the end of it, and in the checkpoint.
        const at = data.indexOf('{"policy_set":')
        const places = [at + 300, data.indexOf('\n', at) + 1, data.length - 60]
        connection.client.write(data.subarray(0, places[cuts++]), () => connection.cut())
        return 'drop'
      }
      const { code, out, err } = await run(output === undefined ? [] : ['--output', output])
      expect([code, err, cuts]).toEqual([0, '', 3])
      expect(expectProven(broker, output === undefined ? out : readFileSync(output, 'utf8'), bodies).gaps).toEqual([])
    }
    // The entries were had once.
    expect(await exportsOf(broker)).toHaveLength(2)
  })

  it('that does not come leaves all entries, and --resume gets no more than the proof', async () => {
    const { broker, run, proxy, folder } = set
    const bodies = await readBodies(broker)
    const file = join(folder, 'log.jsonl')
    proxy.onAnswer = (data, connection) => {
      if (!isProof(data)) return 'forward'
      connection.client.write(data.subarray(0, data.indexOf('{"policy_set":') + 500), () => connection.cut())
      return 'drop'
    }
    const failed = await run(['--output', file, '--retries', '1'])
    expect(failed).toMatchObject({ code: 1, out: '', err: expect.stringContaining('run the same command with --resume to go on.') })
    const lost = await run(['--retries', '0'])
    expect(lost).toMatchObject({ code: 1, err: expect.stringMatching(/^The export is not complete: all entries are there, and not all of its proof\.\nstint: /) })
    expect(lost.out).toBe(asJsonl(await readBodies(broker)).slice(0, lost.out.length))
    proxy.onAnswer = () => 'forward'
    expect(readFileSync(`${file}.part`, 'utf8').startsWith(asJsonl(bodies))).toBe(true)
    await fill(broker)
    const resumed = await run(['--output', file, '--resume', '--json'])
    expect(JSON.parse(resumed.out)).toEqual({ file, first: 0, last: bodies.length - 1, entries: 0, checkpoint_size: bodies.length })
    expect(expectProven(broker, readFileSync(file, 'utf8'), bodies).gaps).toEqual([])
    expect(notesOf(file)).toEqual([true, false, false, false])
    expect(await exportsOf(broker)).toHaveLength(2)
  })

  it('says what is missing where the broker gives none', async () => {
    const { broker, run, proxy, folder } = set
    const bodies = await readBodies(broker)
    const file = join(folder, 'log.jsonl')
    // As an older version answers.
    proxy.onRequest = (data, { server }) => {
      if (!data.includes('/v1/audit/proof')) return 'forward'
      server.write(data.toString('latin1').replace('/v1/audit/proof', '/v1/audit/proxy'))
      return 'drop'
    }
    const { code, out, err } = await run(['--output', file, '--json'])
    expect([code, err]).toEqual([0, expect.stringMatching(/^The export has no proof, for this broker gives none; .*There is nothing at this address: \/v1\/audit\/proxy\n$/)])
    expect(JSON.parse(out)).toEqual({ file, first: 0, last: bodies.length - 1, entries: bodies.length, audit_index: bodies.length })
    expect(readFileSync(file, 'utf8')).toBe(asJsonl(bodies))
  })

  it('is shown as it goes on', async () => {
    const { broker, run } = set
    for (let i = 0; i < 300; i++) await broker.broker.ledger.append({ events: [note('x', 'a'), note('x', 'b')] })
    const { code, err } = await run(['--workload', 'a'], { errColumns: 80 })
    expect(code).toBe(0)
    expect(err).toMatch(/\d+ entries, at \d+ of 0 to \d+/)
    expect(err).toContain('with its proof, to the checkpoint of')
  })

  it('of a broker that holds its log goes as far as its last checkpoint, and the export is not recorded', async () => {
    const { broker, run, folder } = set
    const signed = (await readBodies(broker)).length
    await run(['--type', 'log.opened'])
    const bodies = await readBodies(broker)
    broker.broker.ledger.hold('a test')
    const file = join(folder, 'log.jsonl')
    const { code, out, err } = await run(['--output', file, '--json'])
    expect([code, err]).toEqual([0, 'The broker holds its log: it gives this export without recording it, and may prove less than all of it.\n'])
    expect(JSON.parse(out)).toEqual({ file, first: 0, last: bodies.length - 1, entries: bodies.length, checkpoint_size: signed })
    expect(rebuild(readFileSync(file, 'utf8'), broker.broker.checkpointKey.verifierKey)).toMatchObject({ size: signed, gaps: [] })
    expect(await readBodies(broker)).toEqual(bodies)
    expect(broker.logLines.join('')).toContain('an export is given that the log cannot record')
  })
})

describe('stint audit export where there is no room', () => {
  it('names the file, keeps what there is, and goes on once there is room', async () => {
    const { broker, env, run, folder } = set
    await fill(broker)
    const bodies = await readBodies(broker)
    const file = join(folder, 'log.jsonl')
    // The limit, in blocks of 512 or 1024 bytes, stands for the end of the disk.
    const { code, out, err } = await runShell(`ulimit -f 2000; npx stint audit export --output ${file}`, { cwd: folder, env })
    expect([code, out]).toEqual([1, ''])
    const reason = `cannot write to ${file}.part: a file may not be that large here (EFBIG): what is there already stays; make room, then go on with --resume`
    expect(err).toBe(`The export is not complete: run the same command with --resume to go on.\nstint: ${reason}\n`)
    expect(statSync(`${file}.part`).size).toBeGreaterThan(1000)
    expect(await run(['--output', file, '--resume'])).toMatchObject({ code: 0 })
    expectProven(broker, readFileSync(file, 'utf8'), bodies)
  })

  it.skipIf(!existsSync('/dev/full'))('on standard output says so in one sentence', async () => {
    const { env, folder } = set
    const ended = await runShell('npx stint audit export > /dev/full', { cwd: folder, env })
    expect(ended).toMatchObject({ code: 1, err: 'stint: cannot write to standard output: the disk is full (ENOSPC)\n' })
  })
})

describe('stint audit export --resume', () => {
  /** What a run that was killed can have left, at every place of the file. */
  it.each(['jsonl', 'csv'] as const)('goes on from anything that a run as %s has left', async (format) => {
    const { broker, run, folder, env } = set
    const bodies = await readBodies(broker)
    const entries = (format === 'csv' ? asCsv : asJsonl)(bodies)
    const [file, last] = [join(folder, 'log'), bodies.length - 1]
    const notes = { url: env.STINT_URL, query: { format }, first: 0, last }
    const { out: text } = await run(['--format', format])
    if (format === 'jsonl') expectProven(broker, text, bodies)
    const borders = [0, entries.length, text.length]
    for (let at = 0; at <= text.length; at += borders.some((border) => Math.abs(border - at) < 100) ? 13 : 197) {
      writeFileSync(`${file}.part`, text.slice(0, at), { mode: 0o600 })
      writeFileSync(`${file}.part.json`, JSON.stringify({ ...notes, ...(at > entries.length && { entries_bytes: Buffer.byteLength(entries) }) }))
      expect([at, await run(['--output', file, '--format', format, '--resume'])]).toMatchObject([at, { code: 0, err: '' }])
      expect([at, readFileSync(file, 'utf8')]).toEqual([at, text])
      rmSync(file)
    }
  })

  it('says what is missing or wrong', async () => {
    const { run, folder, env } = set
    const file = join(folder, 'log.jsonl')
    const resume = ['--output', file, '--resume']
    expect((await run(resume)).err).toBe(`stint: there is no ${file}.part to go on with: leave --resume out\n`)
    writeFileSync(`${file}.part`, 'anything\n', { mode: 0o600 })
    expect((await run(resume)).err).toContain(`${file}.part.json, which says what ${file}.part holds, cannot be read`)
    const notes = { url: env.STINT_URL, query: { format: 'jsonl' }, first: 0, last: 1 }
    writeFileSync(`${file}.part.json`, JSON.stringify(notes))
    expect((await run(resume)).err).toContain('does not end with an entry as jsonl: remove it')
    expect(readFileSync(`${file}.part`, 'utf8')).toBe('anything\n')
    writeFileSync(`${file}.part.json`, JSON.stringify({ ...notes, last: 'x' }))
    expect((await run(resume)).err).toContain('does not say where')
    writeFileSync(`${file}.part.json`, JSON.stringify({ ...notes, entries_bytes: 1.5 }))
    expect((await run(resume)).err).toContain('does not say where')
    writeFileSync(`${file}.part.json`, JSON.stringify({ ...notes, entries_bytes: 10 }))
    expect((await run(resume)).err).toContain('has lost entries that it had: remove it')
    expect(openFiles()).not.toContain(`${file}.part`)
    writeFileSync(file, 'mine')
    expect((await run(resume)).err).toContain('exists already and is left as it is')
    expect(readFileSync(file, 'utf8')).toBe('mine')
    rmSync(file)
    rmSync(`${file}.part`)
    writeFileSync(`${file}.part.json`, JSON.stringify(notes))
    expect((await run(resume)).err).toContain(`there is no ${file}.part`)
  })
})
