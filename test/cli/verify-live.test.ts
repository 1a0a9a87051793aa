import type { RequestListener } from 'node:http'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { getRequestListener } from '@hono/node-server'
import { describe, expect, test } from 'vitest'
import { formatVerifierKey, parseVerifierKey, type NoteVerifier } from '../../src/audit/note.ts'
import { advanceCheckpoint } from '../../src/broker/checkpoints.ts'
import { verifyLive } from '../../src/cli/verify-live.ts'
import { createLogClient } from '../../src/client/log.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { listen } from '../listen.ts'
import { findFreePort } from '../free-port.ts'
import { describeEngines } from '../harness.ts'
import { note } from '../storage/changes.ts'
import { createFolder, runRecorded } from './recorder.ts'

const verifierOf = ({ broker }: TestBroker): NoteVerifier => broker.checkpointKey.verifier

async function grow(broker: TestBroker, entries: number): Promise<void> {
  const appends = Array.from({ length: entries }, (_, i) => broker.broker.ledger.append({ events: [note(`note ${i}`)] }))
  for (const { status } of await Promise.all(appends)) expect(status).toBe('recorded')
}

const checkpoint = async ({ broker }: TestBroker): Promise<string> => (await advanceCheckpoint(broker)).note

/** The broker's log at an address of its own, with the paths that were asked for. What `instead` takes, the broker does not. */
async function serve(broker: TestBroker, instead: (path: string) => RequestListener | undefined = () => undefined, timeoutMs = 10_000) {
  const asked: string[] = []
  const real = getRequestListener(broker.app.fetch)
  const url = await listen((request, response) => {
    const path = request.url ?? ''
    asked.push(path)
    void (instead(path) ?? real)(request, response)
  })
  return { url, asked, log: createLogClient({ url, timeoutMs }) }
}

const answer = (body: string | Uint8Array, status = 200): RequestListener => (_, response) => void response.writeHead(status).end(body)

describeEngines('A live log, seen from a kept checkpoint,', (engine) => {
  test('goes on from it, at the cost of a few tiles', async () => {
    const broker = await startBroker(engine)
    const first = await checkpoint(broker)
    const { log, asked } = await serve(broker)
    expect(await verifyLive({ log, verifier: verifierOf(broker), kept: first })).toMatchObject({ title: 'live', ok: true, json: { verdict: 'same' } })
    expect(asked).toEqual(['/log/checkpoint'])

    await grow(broker, 300)
    const second = await checkpoint(broker)
    await grow(broker, 2_700)
    const third = await checkpoint(broker)
    const size = Number(third.split('\n')[1])
    expect(size).toBeGreaterThan(3_000)
    for (const kept of [first, second]) {
      asked.length = 0
      const { ok, lines, json } = await verifyLive({ log, verifier: verifierOf(broker), kept })
      expect([ok, json['verdict'], json['live']]).toEqual([true, 'consistent', { size, root: third.split('\n')[2] }])
      expect(lines).toEqual([
        `The log has ${size} entries, and the first ${kept.split('\n')[1]} are those of the checkpoint that was kept: nothing of them was changed or removed.`,
      ])
      expect(asked.length).toBe(1 + Number(json['tiles']))
      expect(asked.length).toBeLessThanOrEqual(6)
    }
  })

  test('that was signed over another tree, is inconsistent; an older one is smaller', async () => {
    const broker = await startBroker(engine)
    const old = await checkpoint(broker)
    await grow(broker, 20)
    const { checkpointKey } = broker.broker
    const { size, root } = await advanceCheckpoint(broker.broker)
    await grow(broker, 600)
    const { note: newest, size: grown } = await advanceCheckpoint(broker.broker)
    const { log } = await serve(broker)
    const other = Buffer.from(root).reverse()
    for (const kept of [checkpointKey.sign({ size, root: other }), checkpointKey.sign({ size: grown, root: other })]) {
      const { ok, lines, json } = await verifyLive({ log, verifier: verifierOf(broker), kept })
      expect([ok, json['verdict'], json['note']]).toEqual([false, 'inconsistent', newest])
      expect(lines.join(' ')).toContain('the log was rewritten or forked')
    }
    const cut = await serve(broker, (path) => (path === '/log/checkpoint' ? answer(old) : undefined))
    const smaller = await verifyLive({ log: cut.log, verifier: verifierOf(broker), kept: newest })
    expect(smaller).toMatchObject({ ok: false, json: { verdict: 'smaller', kept: { size: grown } } })
    expect(smaller.lines.join(' ')).toContain('an old backup was restored')
  })
})

describe('A live log', () => {
  test('of another key, or another name, is none of the auditor', async () => {
    const [broker, other] = [await startBroker('sqlite'), await startBroker('sqlite')]
    const [kept, others] = [await checkpoint(broker), await checkpoint(other)]
    const { log, asked } = await serve(other)
    expect(await verifyLive({ log, verifier: verifierOf(broker), kept })).toMatchObject({ ok: false, json: { verdict: 'not_signed_by_this_key', of: 'live' } })
    asked.length = 0
    const verdicts: [string, NoteVerifier, string][] = [
      [others, verifierOf(broker), 'not_signed_by_this_key'],
      [kept.replace(/\n\d+\n/, '\n1\n'), verifierOf(broker), 'not_signed_by_this_key'],
      ['', verifierOf(broker), 'no_checkpoint'],
      [kept, parseVerifierKey(formatVerifierKey('elsewhere.test/log', Buffer.alloc(32, 9))) as NoteVerifier, 'another_log'],
    ]
    for (const [note, verifier, verdict] of verdicts) {
      expect(await verifyLive({ log, verifier, kept: note })).toMatchObject({ ok: false, json: { verdict, of: 'kept' } })
    }
    // What is no checkpoint of this log is held against nobody.
    expect(asked).toEqual([])
  })

  test('that serves the tiles of another log proves nothing', async () => {
    const [broker, other] = [await startBroker('sqlite'), await startBroker('sqlite')]
    const kept = await checkpoint(broker)
    for (const one of [broker, other]) {
      await grow(one, 400)
      await checkpoint(one)
    }
    const foreign = getRequestListener(other.app.fetch)
    const { log } = await serve(broker, (path) => (path.startsWith('/log/tile/') ? foreign : undefined))
    const { ok, json, lines } = await verifyLive({ log, verifier: verifierOf(broker), kept })
    expect([ok, json['verdict']]).toEqual([false, 'unproven'])
    expect(lines[0]).toContain('the tiles that are served are not of that tree')
  })

  test('that has dropped a part of a tile is asked for the whole one', async () => {
    const broker = await startBroker('sqlite')
    const kept = await checkpoint(broker)
    await grow(broker, 10)
    const newest = await checkpoint(broker)
    await grow(broker, 400)
    await checkpoint(broker)
    const { log, asked } = await serve(broker, (path) => {
      if (path === '/log/checkpoint') return answer(newest)
      return path.includes('.p/') ? answer('no such tile', 404) : undefined
    })
    expect(await verifyLive({ log, verifier: verifierOf(broker), kept })).toMatchObject({ ok: true, json: { verdict: 'consistent' } })
    expect(asked).toContain('/log/tile/0/000')
  })

  const big = Buffer.alloc(100_000, 'x')
  const drip: RequestListener = (_, response) => {
    const timer = setInterval(() => response.write('x'), 100)
    response.on('close', () => clearInterval(timer))
  }
  test.each<[string, string, RequestListener, string]>([
    ['a checkpoint without an end', 'checkpoint', answer(big), 'answer_too_large'],
    ['a checkpoint drop by drop', 'checkpoint', drip, 'timed_out'],
    ['nothing at all', 'checkpoint', () => undefined, 'timed_out'],
    ['a redirect', 'checkpoint', (_, response) => void response.writeHead(302, { location: 'https://stint.test/log/checkpoint' }).end(), 'redirected'],
    ['an error', 'checkpoint', answer('{"type":"about:blank","title":"Busy"}', 503), 'bad_answer'],
    ['no tile', 'tile', answer('no such tile', 404), 'bad_answer'],
    ['a tile that is too short', 'tile', answer(Buffer.alloc(31)), 'bad_answer'],
    ['a tile that is too long', 'tile', answer(Buffer.alloc(8_192)), 'answer_too_large'],
    ['a tile without an end', 'tile', answer(big), 'answer_too_large'],
    ['an empty tile', 'tile', answer(''), 'bad_answer'],
    ['half a tile, cut off', 'tile', (_, response) => (response.writeHead(200, { 'content-length': '64' }), response.write('x'), void response.destroy()), 'connection_failed'],
  ])('that answers with %s gives no verdict', async (_, part, listener, code) => {
    const broker = await startBroker('sqlite')
    const kept = await checkpoint(broker)
    await grow(broker, 10)
    await checkpoint(broker)
    const { log } = await serve(broker, (path) => (path.startsWith(`/log/${part}`) ? listener : undefined), code === 'timed_out' ? 1_000 : undefined)
    const save = join(createFolder(), 'save')
    const section = await verifyLive({ log, verifier: verifierOf(broker), kept, save })
    expect(section).toMatchObject({ ok: false, unanswered: true, json: { verdict: 'unanswered', code } })
    expect(existsSync(save)).toBe(false)
  })

  test('that serves something else than a checkpoint, is told so', async () => {
    const broker = await startBroker('sqlite')
    const kept = await checkpoint(broker)
    const { log } = await serve(broker, () => answer('<html>Welcome</html>'))
    expect(await verifyLive({ log, verifier: verifierOf(broker), kept })).toMatchObject({ ok: false, json: { verdict: 'no_checkpoint', of: 'live' } })
  })
})

describe('The newer checkpoint', () => {
  async function prepare() {
    const broker = await startBroker('sqlite')
    const kept = await checkpoint(broker)
    await grow(broker, 10)
    const newest = await checkpoint(broker)
    const folder = createFolder()
    const save = join(folder, 'kept.checkpoint')
    writeFileSync(save, kept)
    const { log, url } = await serve(broker)
    return { broker, kept, newest, folder, save, log, url, verifier: verifierOf(broker) }
  }

  test('takes the place of the kept one, whole, or is written to a new file', async () => {
    const { kept, newest, folder, save, log, verifier } = await prepare()
    expect(await verifyLive({ log, verifier, kept, save })).toMatchObject({ ok: true, json: { saved: save } })
    const elsewhere = join(folder, 'new.checkpoint')
    await verifyLive({ log, verifier, kept, save: elsewhere })
    for (const file of [save, elsewhere]) expect(readFileSync(file, 'utf8')).toBe(newest)
    expect(readdirSync(folder)).toHaveLength(2)
  })

  test('does not, where it does not go on from it', async () => {
    const { broker, kept, save, log, verifier } = await prepare()
    const forked = broker.broker.checkpointKey.sign({ size: Number(kept.split('\n')[1]), root: Buffer.alloc(32) })
    writeFileSync(save, forked)
    const { ok, lines, json } = await verifyLive({ log, verifier, kept: forked, save })
    expect([ok, json['saved']]).toEqual([false, undefined])
    expect(lines.at(-1)).toBe(`${save} is left as it was.`)
    expect(readFileSync(save, 'utf8')).toBe(forked)
  })

  test('does not take the place of anything else', async () => {
    const { kept, newest, folder, save, log, verifier } = await prepare()
    writeFileSync(save, `${newest}x`)
    await expect(verifyLive({ log, verifier, kept, save })).rejects.toThrow('is not written over')
    expect(readFileSync(save, 'utf8')).toBe(`${newest}x`)
    await expect(verifyLive({ log, verifier, kept, save: join(folder, 'missing', 'kept') })).rejects.toThrow(/the live log is good, but .* cannot be kept/)
    expect(readdirSync(folder)).toEqual(['kept.checkpoint'])
  })

  test('by the command line; who cannot be reached is another exit code', async () => {
    const { broker, newest, folder, save, url } = await prepare()
    const key = broker.broker.checkpointKey.verifierKey
    const args = ['audit', 'verify', '--live', '--checkpoint', save]
    const run = await runRecorded([...args, '--key', key, '--url', url, '--save', save, '--json'])
    expect(run).toMatchObject({ code: 0, err: '' })
    expect(JSON.parse(run.out)).toMatchObject({ ok: true, live: { verdict: 'consistent', saved: save } })
    expect(readFileSync(save, 'utf8')).toBe(newest)

    const forked = join(folder, 'forked')
    writeFileSync(forked, broker.broker.checkpointKey.sign({ size: 1, root: Buffer.alloc(32) }))
    const wrong = await runRecorded(['audit', 'verify', '--live', '--checkpoint', forked, '--key', key, '--url', url])
    expect(wrong).toMatchObject({ code: 1, err: '' })
    expect(wrong.out).toContain('rewritten or forked')

    const nowhere = `http://127.0.0.1:${await findFreePort()}`
    const gone = await runRecorded([...args, '--key', key, '--url', nowhere])
    expect(gone).toMatchObject({ code: 3, err: '' })
    expect(gone.out).toMatch(/^live: NO VERDICT\n {2}No answer that can be used/)
    expect(gone.out).toContain(`nothing listens at ${nowhere}`)
    const keyless = await runRecorded([...args, '--url', url])
    expect(keyless).toMatchObject({ code: 2 })
    expect(keyless.err).toContain('stint audit key')
    expect(existsSync(save)).toBe(true)
  })
})
