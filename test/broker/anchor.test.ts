import { readFileSync, rmSync, truncateSync, statSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseCheckpoint } from '../../src/audit/checkpoint.ts'
import { findSignature, parseNote, parseVerifierKey } from '../../src/audit/note.ts'
import { advanceCheckpoint, createSeenCheckpoint } from '../../src/broker/checkpoints.ts'
import type { Anchor } from '../../src/connectors/anchors/anchor.ts'
import { createHttpAnchor } from '../../src/connectors/anchors/http.ts'
import { createWitnessAnchor } from '../../src/connectors/anchors/witness.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { startAnchorServer } from '../anchor-server.ts'
import { naiveFrontier, naiveRoot } from '../audit/naive-tree.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { tamper } from '../storage/tamper.ts'
import { startWitness } from '../witness.ts'
import { createAnchorFile, reopen, runJobs } from './restored-broker.ts'

const sizesIn = (text: string) => [...text.matchAll(/^stint\.test\/log\n(\d+)\n/gm)].map(([, size]) => Number(size))
const newestSize = async (broker: TestBroker) => {
  const { size } = await broker.broker.database.read.selectFrom('checkpoint').select('size').orderBy('size', 'desc').limit(1).executeTakeFirstOrThrow()
  return size
}
const metricsOf = async (broker: TestBroker) => (await broker.sendAsAdmin('GET', '/metrics')).text()
const anchorsOf = async (broker: TestBroker) => (await (await broker.sendAsAdmin('GET', '/v1/log/anchors')).json()) as { held: boolean; anchors: Record<string, unknown>[] }
const linesOf = (broker: TestBroker, level: string) => broker.logLines.map((line) => JSON.parse(line) as { level: string; message: string; error?: unknown }).filter((line) => line.level === level)

async function start(engine: Engine, anchors: readonly Anchor[]) {
  const broker = await startBroker(engine, { anchors })
  await broker.register('bot')
  await runJobs(broker)
  return broker
}

describeEngines('A file that keeps checkpoints', (engine) => {
  test('has each one within a second, the last one at the end, and goes on after a restart', async () => {
    const { file, anchor } = createAnchorFile()
    const broker = await start(engine, [anchor])
    const first = sizesIn(readFileSync(file, 'utf8'))
    expect(first.at(-1)).toBe(await newestSize(broker))
    await broker.register('bob')
    const size = (await broker.events()).length
    await broker.close()
    expect(sizesIn(readFileSync(file, 'utf8'))).toEqual([...first, size])

    const again = await reopen(engine, broker, broker.database, { anchors: [anchor] })
    expect(again.broker.ledger.held).toBeUndefined()
    await again.register('eve')
    await runJobs(again)
    // Each once: what is there already is not kept again.
    expect(sizesIn(readFileSync(file, 'utf8'))).toEqual([...first, size, size + 1])
    expect(await anchorsOf(again)).toEqual({ log_size: size + 1, held: false, anchors: [{ anchor: anchor.name, kind: 'file', kept_size: size + 1, behind_entries: 0 }] })
    expect(linesOf(again, 'error').concat(linesOf(again, 'warn'))).toEqual([])
  })

  test('that missed some gets each of them, in order', async () => {
    const { file, anchor } = createAnchorFile()
    const broker = await start(engine, [anchor])
    const text = readFileSync(file, 'utf8')
    for (const name of ['a', 'b', 'c']) {
      await broker.register(name)
      await runJobs(broker)
    }
    const all = readFileSync(file, 'utf8')
    await broker.close()
    writeFileSync(file, text)
    const again = await reopen(engine, broker, broker.database, { anchors: [anchor] })
    await runJobs(again)
    expect(readFileSync(file, 'utf8')).toBe(all)
    // Torn at its end by a crash, the same.
    await again.close()
    truncateSync(file, statSync(file).size - 7)
    const third = await reopen(engine, again, broker.database, { anchors: [anchor] })
    expect(third.broker.ledger.held).toBeUndefined()
    await runJobs(third)
    expect(sizesIn(readFileSync(file, 'utf8')).at(-1)).toBe(await newestSize(third))
  })

  test('that was deleted has nothing to compare with, which is told, and begins again with the newest', async () => {
    const { file, anchor } = createAnchorFile()
    const broker = await start(engine, [anchor])
    await broker.close()
    rmSync(file)
    const again = await reopen(engine, broker, broker.database, { anchors: [anchor] })
    expect(again.broker.ledger.held).toBeUndefined()
    expect(linesOf(again, 'warn')).toMatchObject([{ message: expect.stringContaining('has no checkpoint to compare this log with') }])
    await runJobs(again)
    expect(sizesIn(readFileSync(file, 'utf8'))).toEqual([await newestSize(again)])
    // While it runs, too.
    rmSync(file)
    await again.register('bob')
    await runJobs(again)
    expect(sizesIn(readFileSync(file, 'utf8'))).toEqual([await newestSize(again)])
  })

  /** Another history of the same length, without a checkpoint: what whoever owns the database can make of it. */
  async function rewrite(broker: TestBroker, ...more: string[]) {
    const rows = await broker.broker.database.read.selectFrom('audit_event').select('leaf_hash').orderBy('idx').execute()
    const leaves = rows.map(({ leaf_hash: hash }) => Buffer.from(hash)).with(1, Buffer.alloc(32, 0xab))
    const hex = (bytes: Uint8Array) => `x'${Buffer.from(bytes).toString('hex')}'`
    await tamper(
      broker.database,
      `update audit_event set leaf_hash = ${hex(Buffer.alloc(32, 0xab))} where idx = 1`,
      `update log_head set root = ${hex(naiveRoot(leaves))}, frontier = ${hex(Buffer.concat(naiveFrontier(leaves)))}`,
      'delete from checkpoint',
      ...more,
    )
  }

  test('gets nothing of a log that was rewritten under a running broker, which is held, and is so after a restart', async () => {
    const { file, anchor } = createAnchorFile()
    const broker = await start(engine, [anchor])
    const text = readFileSync(file, 'utf8')
    await rewrite(broker)
    await broker.register('bob')
    await runJobs(broker)
    expect(broker.broker.ledger.held).toContain('is gone')
    expect((await broker.send('GET', '/readyz')).status).toBe(503)
    await broker.close()
    const again = await reopen(engine, broker, broker.database, { anchors: [anchor] })
    expect(again.broker.ledger.held).toMatch(/which this log does not go on from: this is not the log that was anchored/)
    await runJobs(again)
    await again.close()
    expect(readFileSync(file, 'utf8')).toBe(text)
  })

  test('gets nothing of a rewritten log from a process that has seen no checkpoint of what was there before', async () => {
    const { file, anchor } = createAnchorFile()
    const broker = await start(engine, [anchor])
    const [text, size] = [readFileSync(file, 'utf8'), await newestSize(broker)]
    await rewrite(broker)
    Object.assign(broker.broker, { seenCheckpoint: createSeenCheckpoint() })
    await broker.register('bob')
    await runJobs(broker)
    expect(broker.broker.ledger.held).toBe(`${anchor.name} has a checkpoint of ${size} entries, which this log does not go on from: this is not the log that was anchored`)
    expect((await broker.send('GET', '/readyz')).status).toBe(503)
    expect((await anchorsOf(broker)).anchors).toMatchObject([{ contradiction: { size } }])
    await runJobs(broker)
    await broker.close()
    expect(readFileSync(file, 'utf8')).toBe(text)
  })

  test.each([
    ['larger than the log', 9, /and this log has \d+: this looks like a restored backup/],
    ['of another tree', -1, /which this log does not go on from: this is not the log that was anchored/],
  ])('into which another process has put a checkpoint %s holds a running broker, and is not written to', async (_, more, why) => {
    const { file, anchor } = createAnchorFile()
    const broker = await start(engine, [anchor])
    await anchor.keep([broker.broker.checkpointKey.sign({ size: (await newestSize(broker)) + more, root: Buffer.alloc(32, 7) })])
    const text = readFileSync(file, 'utf8')
    await broker.register('bob')
    await runJobs(broker)
    expect(broker.broker.ledger.held).toMatch(why)
    expect(readFileSync(file, 'utf8')).toBe(text)
  })

  test('gets no checkpoint twice that another process has kept already', async () => {
    const { file, anchor } = createAnchorFile()
    const broker = await start(engine, [anchor])
    await broker.register('bob')
    const { note } = await advanceCheckpoint(broker.broker)
    await anchor.keep([note])
    const text = readFileSync(file, 'utf8')
    await runJobs(broker)
    expect(readFileSync(file, 'utf8')).toBe(text)
    expect((await anchorsOf(broker)).anchors).toMatchObject([{ kept_size: await newestSize(broker), behind_entries: 0 }])
  })

  test('that others can write keeps a broker from starting, and fails one that runs', async () => {
    const { file, anchor } = createAnchorFile()
    const broker = await start(engine, [anchor])
    writeFileSync(file, 'something else\n')
    await broker.register('bob')
    await runJobs(broker)
    expect(linesOf(broker, 'error')).toMatchObject([{ message: 'an anchor does not keep checkpoints; they are kept once it does' }])
    await broker.close()
    await expect(reopen(engine, broker, broker.database, { anchors: [anchor] })).rejects.toMatchObject({ code: 'config_invalid' })
  })
})

describeEngines('An HTTP endpoint that keeps checkpoints', (engine) => {
  test('that fails stops nothing, is told of once, shows in the metrics, and catches up', async () => {
    const server = await startAnchorServer()
    const broker = await start(engine, [createHttpAnchor({ url: server.url })])
    const before = sizesIn(server.notes.join(''))
    expect(before.at(-1)).toBe(await newestSize(broker))
    expect(await metricsOf(broker)).toMatch(/^stint_anchor_failures_total\{kind="http"\} 0$[^]*^stint_anchor_behind_entries\{kind="http"\} 0$/m)

    server.answer(500)
    for (const name of ['a', 'b', 'c']) {
      await broker.register(name)
      await runJobs(broker)
    }
    expect(linesOf(broker, 'error')).toHaveLength(1)
    expect(await metricsOf(broker)).toMatch(/^stint_anchor_failures_total\{kind="http"\} [4-6]$[^]*^stint_anchor_behind_entries\{kind="http"\} 3$/m)
    expect((await anchorsOf(broker)).anchors).toMatchObject([{ behind_entries: 3, failure: `${server.url} answered GET with 500` }])
    expect((await broker.send('GET', '/readyz')).status).toBe(200)

    server.answer()
    await runJobs(broker)
    const sizes = sizesIn(server.notes.join(''))
    const newest = await newestSize(broker)
    expect(sizes).toEqual([...before, newest - 2, newest - 1, newest])
    expect(linesOf(broker, 'info').filter(({ message }) => message === 'checkpoints are kept again')).toHaveLength(1)
    expect(await metricsOf(broker)).toMatch(/^stint_anchor_behind_entries\{kind="http"\} 0$/m)
    // A second fault is told of again.
    server.answer(503)
    await broker.register('d')
    await runJobs(broker)
    expect(linesOf(broker, 'error')).toHaveLength(2)
  })

  test('that cannot be asked at the start holds nothing, and is compared as soon as it answers', async () => {
    const server = await startAnchorServer()
    const anchors = [createHttpAnchor({ url: server.url })]
    const broker = await start(engine, anchors)
    await broker.close()
    server.answer(503)
    const again = await reopen(engine, broker, broker.database, { anchors })
    expect(again.broker.ledger.held).toBeUndefined()
    await again.register('bob')
    // Meanwhile somebody has put the checkpoint of another tree there.
    const { checkpointKey } = again.broker
    server.answer(200, checkpointKey.sign({ size: 3, root: Buffer.alloc(32, 7) }))
    await runJobs(again)
    expect(again.broker.ledger.held).toContain('has a checkpoint of 3 entries, which this log does not go on from: this is not the log that was anchored')
    expect(await newestSize(again)).toBe((await again.events()).length)
  })

  test('that gives a page of its own instead of a checkpoint has failed, and holds nothing', async () => {
    const server = await startAnchorServer()
    server.answer(200, '<html>\n')
    const broker = await startBroker(engine, { anchors: [createHttpAnchor({ url: server.url })] })
    expect(broker.broker.ledger.held).toBeUndefined()
    expect((await anchorsOf(broker)).anchors).toMatchObject([{ failure: expect.stringContaining('does not have a checkpoint as its newest') }])
  })

  test.each(['stint.test/log', 'other.test/log'])('that gives a checkpoint of %s which this log has not signed has failed, and holds nothing', async (origin) => {
    const server = await startAnchorServer()
    const anchors = [createHttpAnchor({ url: server.url })]
    const broker = await startBroker(engine, { anchors })
    const [size, root] = [Number.MAX_SAFE_INTEGER, Buffer.alloc(32).toString('base64')]
    const { keyId } = broker.broker.checkpointKey.verifier
    await broker.close()
    // By nobody, and in this log's name, badly.
    for (const [name, id] of [['x', Buffer.alloc(4)], [origin, keyId]] as const) {
      server.answer(200, `${origin}\n${size}\n${root}\n\n\u2014 ${name} ${Buffer.concat([id, Buffer.alloc(64)]).toString('base64')}\n`)
      const again = await reopen(engine, broker, broker.database, { anchors })
      await again.register(`bot-${name === 'x' ? 'x' : 'own'}`)
      await runJobs(again)
      expect(again.broker.ledger.held).toBeUndefined()
      expect((await again.send('GET', '/readyz')).status).toBe(200)
      expect((await anchorsOf(again)).anchors).toMatchObject([{ failure: expect.stringContaining('that the key of this log has not signed: correct anchors') }])
      expect(linesOf(again, 'error')).toHaveLength(1)
      expect(await metricsOf(again)).toMatch(/^stint_anchor_failures_total\{kind="http"\} [1-9]/m)
      await again.close()
    }
    // Nothing is sent to where it would be mixed with that.
    expect(server.requests.filter(({ method }) => method === 'POST')).toHaveLength(server.notes.length)
  })

  test('that only takes begins with the newest after a restart', async () => {
    const server = await startAnchorServer()
    const anchors = [createHttpAnchor({ url: server.url })]
    const broker = await start(engine, anchors)
    await broker.close()
    server.answer(405)
    const again = await reopen(engine, broker, broker.database, { anchors })
    server.answer()
    server.notes.length = 0
    await runJobs(again)
    expect(sizesIn(server.notes.join(''))).toEqual([await newestSize(again)])
  })

  test('that hangs does not hold up the others', async () => {
    const server = await startAnchorServer()
    const { file, anchor } = createAnchorFile()
    const broker = await start(engine, [anchor, createHttpAnchor({ url: server.url, timeoutMs: 1_000 })])
    server.hang(true)
    await broker.register('bob')
    broker.clock.advance(1_000)
    await broker.scheduler.tick()
    broker.clock.advance(1_000)
    const ticking = broker.scheduler.tick()
    await expect.poll(() => sizesIn(readFileSync(file, 'utf8')).at(-1), { timeout: 800 }).toBe((await broker.events()).length)
    await ticking
    expect((await anchorsOf(broker)).anchors).toMatchObject([{ behind_entries: 0 }, { behind_entries: 1, failure: expect.stringContaining('timeout') }])
  })
})

describeEngines('A witness', (engine) => {
  async function setUp() {
    const witness = await startWitness()
    const anchors = [createWitnessAnchor({ url: witness.url, key: witness.key, timeoutMs: 1_000 })]
    const broker = await startBroker(engine, { anchors })
    witness.trust(broker.broker.checkpointKey.verifierKey)
    await runJobs(broker)
    const cosignatures = async (one = broker) => one.broker.database.read.selectFrom('cosignature').selectAll().orderBy('size').execute()
    return { witness, anchors, broker, cosignatures }
  }

  test('signs the newest checkpoint, led there from the one before, and its signature verifies behind the note', async () => {
    const { witness, broker, cosignatures } = await setUp()
    for (const name of ['a', 'b', 'c', 'd', 'e']) await broker.register(name)
    await runJobs(broker)
    const rows = await cosignatures()
    expect(rows.at(-1)).toMatchObject({ size: await newestSize(broker), witness: 'witness.test/w1' })
    expect(witness.seen.get('stint.test/log')?.size).toBe(await newestSize(broker))
    expect(witness.sent.at(-1)).toMatch(new RegExp(`^old ${rows.at(-2)?.size}\n(?:\\S{44}\n)+\n`))
    const { note } = await broker.broker.database.read.selectFrom('checkpoint').select('note').orderBy('size', 'desc').limit(1).executeTakeFirstOrThrow()
    const signed = parseNote(note + (rows.at(-1)?.line ?? ''))
    const verifier = parseVerifierKey(witness.key)
    expect(signed && verifier && findSignature(signed, verifier)).toBeDefined()
    expect(signed && parseCheckpoint(signed.text)?.size).toBe(await newestSize(broker))
    // Nothing new, nothing asked.
    const asked = witness.sent.length
    await runJobs(broker)
    expect(witness.sent.length).toBe(asked)
  })

  test('that was sent checkpoints by others, or has forgotten all, is led from where it is', async () => {
    const { witness, anchors, broker } = await setUp()
    await broker.close()
    const seen = witness.seen.get('stint.test/log')
    const others = await reopen(engine, broker, broker.database, {})
    await others.register('bob')
    await runJobs(others)
    await others.close()
    const again = await reopen(engine, broker, broker.database, { anchors })
    expect(again.broker.ledger.held).toBeUndefined()
    expect(witness.seen.get('stint.test/log')?.size).toBeGreaterThan(seen?.size ?? Infinity)
    witness.seen.clear()
    await again.register('eve')
    await runJobs(again)
    expect(witness.seen.get('stint.test/log')?.size).toBe(await newestSize(again))
    expect(again.broker.ledger.held).toBeUndefined()
  })

  test('that stays silent, signs with another key or refuses stops nothing', async () => {
    const { witness, broker, cosignatures } = await setUp()
    const before = (await cosignatures()).length
    for (const [status, text] of [[500, ''], [200, 'yes\n'], [404, ''], [409, 'x\n']] as const) {
      witness.answer(status, text)
      await broker.register(`bot-${status}`)
      await runJobs(broker)
      expect((await broker.send('GET', '/readyz')).status).toBe(200)
    }
    expect((await cosignatures()).length).toBe(before)
    expect(linesOf(broker, 'error')).toHaveLength(1)
    witness.answer()
    await runJobs(broker)
    expect((await cosignatures()).at(-1)?.size).toBe(await newestSize(broker))
  })

  test('that contradicts a broker that runs is an alarm, and holds nothing: its word alone is no proof', async () => {
    const { witness, broker } = await setUp()
    await broker.register('bob')
    witness.answer(409, '99999\n')
    await runJobs(broker)
    expect(broker.broker.ledger.held).toBeUndefined()
    expect((await anchorsOf(broker)).anchors).toMatchObject([{ failure: expect.stringMatching(/says that it has signed 99999 entries.*another broker serves a copy of this log/) }])
  })

  test.each([
    ['more entries than there are', 409, '99999\n', /says that it has signed 99999 entries, and this log has \d+\. If that is true, this is a restored backup/],
    ['more entries than any log has', 409, '9007199254740991\n', /says that it has signed 9007199254740991 entries, and this log has \d+\. If that is true/],
    ['another history', 422, '', /says that it has signed \d+ entries that this log does not go on from\. If that is true.* or somebody has rewritten the database/],
  ])('that says it has signed %s is an alarm to a broker that starts, and holds nothing', async (_, status, text, why) => {
    const { witness, anchors, broker } = await setUp()
    await broker.close()
    witness.answer(status, text)
    const again = await reopen(engine, broker, broker.database, { anchors })
    expect(again.broker.ledger.held).toBeUndefined()
    expect((await again.send('GET', '/readyz')).status).toBe(200)
    expect(linesOf(again, 'error')).toMatchObject([{ error: expect.stringMatching(why) }])
    expect(await metricsOf(again)).toMatch(/^stint_anchor_failures_total\{kind="witness"\} 1$/m)
  })

  test('that refuses a log from its beginning has only failed', async () => {
    const witness = await startWitness()
    witness.answer(422)
    const broker = await startBroker(engine, { anchors: [createWitnessAnchor({ url: witness.url, key: witness.key })] })
    await runJobs(broker)
    expect(broker.broker.ledger.held).toBeUndefined()
    expect((await anchorsOf(broker)).anchors).toMatchObject([{ failure: expect.stringContaining('does not go on from nothing, which every log does') }])
  })

  test('raises its alarm once, also behind a fault that is none', async () => {
    const { witness, broker } = await setUp()
    await broker.register('bob')
    for (const [status, text, lines] of [[500, '', 1], [409, '99999\n', 2], [500, '', 2], [409, '99998\n', 2]] as const) {
      witness.answer(status, text)
      await runJobs(broker)
      expect(linesOf(broker, 'error')).toHaveLength(lines)
    }
    witness.answer()
    await runJobs(broker)
    witness.answer(409, '99999\n')
    await broker.register('eve')
    await runJobs(broker)
    expect(linesOf(broker, 'error')).toHaveLength(3)
  })
})

describePostgres('Two processes with one file', (engine) => {
  test('keep each checkpoint in it, in turn', async () => {
    const { file, anchor } = createAnchorFile()
    const one = await start(engine, [anchor])
    const two = await startBroker(engine, { beside: one, anchors: [createAnchorFile(file).anchor] })
    for (let i = 0; i < 5; i++) {
      await (i % 2 === 0 ? one : two).register(`bot-${i}`)
      one.clock.advance(1_000)
      await Promise.all([one.scheduler.tick(), two.scheduler.tick()])
    }
    await Promise.all([runJobs(one), runJobs(two)])
    const sizes = sizesIn(readFileSync(file, 'utf8'))
    expect(sizes.at(-1)).toBe((await one.events()).length)
    await one.close()
    await two.close()
    const again = await reopen(engine, one, one.database, { anchors: [anchor] })
    expect(again.broker.ledger.held).toBeUndefined()
  })
})
