import { setTimeout as sleep } from 'node:timers/promises'
import type { Kysely } from 'kysely'
import { expect, test } from 'vitest'
import { openCheckpoint, parseCheckpoint } from '../../src/audit/checkpoint.ts'
import { parseNote, parseVerifierKey } from '../../src/audit/note.ts'
import { advanceCheckpoint, InconsistentTree, requireCheckpoint } from '../../src/broker/checkpoints.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { listCheckpointsAfter } from '../../src/storage/checkpoints.ts'
import { readHead } from '../../src/storage/head.ts'
import type { Schema } from '../../src/storage/schema.ts'
import { hashFullTiles, insertTreeHashes } from '../../src/storage/tree.ts'
import { naiveFrontier, naiveRoot } from '../audit/naive-tree.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { note } from '../storage/changes.ts'
import { fillLog } from '../storage/fill.ts'
import { tamper } from '../storage/tamper.ts'

const addEntry = ({ broker: { ledger } }: TestBroker) => ledger.append({ events: [note()] })

/** Leaf hashes as they stand in the rows. */
async function readLeaves(read: Kysely<Schema>): Promise<Buffer[]> {
  const rows = await read.selectFrom('audit_event').select('leaf_hash').orderBy('idx').execute()
  return rows.map(({ leaf_hash: hash }) => Buffer.from(hash))
}

/** Checks every checkpoint against the leaves, the key and each other; returns their sizes. */
async function checkAll({ broker: { database: { read }, checkpointKey } }: TestBroker): Promise<number[]> {
  const [leaves, checkpoints] = [await readLeaves(read), await listCheckpointsAfter(read, -1, 10_000)]
  const verifier = parseVerifierKey(checkpointKey.verifierKey)
  for (const { size, root, note } of checkpoints) {
    expect(Buffer.from(root)).toEqual(naiveRoot(leaves.slice(0, size)))
    expect(verifier && openCheckpoint(note, verifier)).toEqual({ origin: 'stint.test/log', size, root: Buffer.from(root) })
  }
  const sizes = checkpoints.map(({ size }) => size)
  expect(sizes).toEqual([...new Set(sizes)].toSorted((a, b) => a - b))
  return sizes
}

const isReady = async (broker: TestBroker) => (await broker.send('GET', '/readyz')).status

describeEngines('Checkpoints', (engine) => {
  test('are signed at start, and then one for each size that is looked at', async () => {
    const broker = await startBroker(engine)
    const { read } = broker.broker.database
    const [first] = await listCheckpointsAfter(read, -1, 1)
    expect(first?.size).toBeGreaterThan(0)
    expect((await broker.events()).find(({ type, ...event }) => type === 'key.created' && 'use' in event && event.use === 'checkpoint')).toMatchObject({ alg: 'Ed25519', actor: { kind: 'stint', id: 'start' } })
    const made = await advanceCheckpoint(broker.broker)
    expect(made.size).toBe((await readHead(read)).size)
    expect(await advanceCheckpoint(broker.broker)).toEqual(made)
    await addEntry(broker)
    await addEntry(broker)
    expect((await advanceCheckpoint(broker.broker)).size).toBe(made.size + 2)
    expect(await checkAll(broker)).toEqual([first?.size, made.size, made.size + 2])
    // To sign is no change, of which there would have to be an entry, which would have to be signed.
    expect((await readHead(read)).size).toBe(made.size + 2)
  })

  test('are signed by the same key after a restart, and go on', async () => {
    const broker = await startBroker(engine)
    const { verifierKey } = broker.broker.checkpointKey
    await broker.close()
    const again = await startBroker(engine, { beside: broker })
    expect(again.broker.checkpointKey.verifierKey).toBe(verifierKey)
    expect(verifierKey).toMatch(/^stint\.test\/log\+[0-9a-f]{8}\+A[A-Za-z0-9+/]{43}$/)
    await addEntry(again)
    await advanceCheckpoint(again.broker)
    expect((await checkAll(again)).length).toBeGreaterThan(1)
  })

  test('of processes that sign at once while entries come are one for each size, each of which goes on from the last', { timeout: 60_000 }, async () => {
    const broker = await startBroker(engine)
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const both = [broker, beside]
    const entries = async (one: TestBroker) => {
      for (let i = 0; i < 60; i++) await addEntry(one)
    }
    const end = new AbortController()
    const sign = async (one: TestBroker) => {
      while (!end.signal.aborted) await advanceCheckpoint(one.broker)
    }
    const signing = [...both, ...both].map(sign)
    await Promise.all([...both, ...both].map(entries))
    end.abort()
    await Promise.all(signing)
    const { size } = await readHead(broker.broker.database.read)
    expect(await Promise.all(both.map(async (one) => (await requireCheckpoint(one.broker, size)).size))).toEqual([size, size])
    const sizes = await checkAll(broker)
    expect(sizes.at(-1)).toBe(size)
    expect(sizes.length).toBeGreaterThan(20)
    expect(both.map((one) => one.broker.ledger.halted)).toEqual([undefined, undefined])
  })

  test('cover a change within a second, by the scheduler alone', { timeout: 30_000 }, async () => {
    const broker = await startBroker(engine, { clock: systemClock })
    broker.scheduler.start()
    const delays: number[] = []
    for (let i = 0; i < 5; i++) {
      await sleep(130 * i)
      await addEntry(broker)
      const beganMs = performance.now()
      const { size } = await readHead(broker.broker.database.read)
      for (let signed = 0; signed < size; await sleep(20)) {
        signed = parseCheckpoint(parseNote(await (await broker.send('GET', '/log/checkpoint')).text())?.text ?? '')?.size ?? 0
      }
      delays.push(performance.now() - beganMs)
    }
    await broker.scheduler.stop()
    // Those that a busy machine held up say nothing of the others.
    expect(delays.toSorted((a, b) => a - b)[1]).toBeLessThan(1_000)
  })

  test('that are required are signed if they are not there, and refused where there is no such log', async () => {
    const broker = await startBroker(engine)
    const { size } = await advanceCheckpoint(broker.broker)
    expect((await requireCheckpoint(broker.broker, 1)).size).toBe(size)
    await addEntry(broker)
    expect((await requireCheckpoint(broker.broker, size)).size).toBe(size)
    expect((await requireCheckpoint(broker.broker, size + 1)).size).toBe(size + 1)
    await expect(requireCheckpoint(broker.broker, size + 2)).rejects.toThrow(RangeError)
  })

  test('of a log that grew large without them are the first of a tree as any other', async () => {
    const broker = await startBroker(engine)
    await fillLog(broker.database, 1_200)
    // A process that died when it had stored some hashes and signed nothing.
    const { database, ledger } = broker.broker
    const some = (await hashFullTiles(database.read, 1, 1_200)).slice(0, 2)
    await ledger.transact({ apply: async (tx) => (await insertTreeHashes(tx, some), { result: undefined, unrecorded: 'housekeeping' }) })
    const { size } = await advanceCheckpoint(broker.broker)
    expect(size).toBeGreaterThan(1_200)
    expect((await checkAll(broker)).at(-1)).toBe(size)
    expect(await database.read.selectFrom('tree_hash').select('idx').orderBy('idx').execute()).toEqual([{ idx: 0 }, { idx: 1 }, { idx: 2 }, { idx: 3 }])
    await addEntry(broker)
    expect((await advanceCheckpoint(broker.broker)).size).toBe(size + 1)
  })

  const hex = (bytes: Uint8Array) => `x'${Buffer.from(bytes).toString('hex')}'`
  const wrong = `x'${'ab'.repeat(32)}'`

  /** A log of which the newest checkpoint has that size, and the one before it that note. */
  interface Signed {
    readonly size: number
    readonly olderNote: string
    readonly leaves: readonly Buffer[]
  }

  /** The head's row, as it would be of those leaves. */
  function headOf(leaves: readonly Buffer[]): string {
    return `update log_head set size = ${leaves.length}, root = ${hex(naiveRoot(leaves))}, frontier = ${hex(Buffer.concat(naiveFrontier(leaves)))}`
  }

  const contradictions: readonly (readonly [string, (log: Signed) => readonly string[], string])[] = [
    ['a leaf hash', () => [`update audit_event set leaf_hash = ${wrong} where idx = 1`], 'do not have the root of its head'],
    ['two leaf hashes in each other’s place', ({ leaves }) => [1, 2].map((idx) => `update audit_event set leaf_hash = ${hex(leaves[3 - idx] ?? wrongLeaf)} where idx = ${idx}`), 'do not have the root of its head'],
    ['a leaf hash cut short', () => ["update audit_event set leaf_hash = x'ab' where idx = 1"], 'the tree lacks hashes of tile level 0'],
    ['an entry that is gone', () => ['delete from audit_event where idx = 1'], 'the tree lacks hashes of tile level 0'],
    ['the root of the head', () => [`update log_head set root = ${wrong}`], 'has two roots'],
    ['the frontier of the head', ({ leaves }) => [`update log_head set frontier = ${hex(Buffer.concat(naiveFrontier(leaves.with(0, wrongLeaf))))}`], 'has two roots'],
    ['head and leaves, to those of another log', ({ leaves }) => [`update audit_event set leaf_hash = ${wrong} where idx = 1`, headOf(leaves.with(1, wrongLeaf))], 'do not go on from'],
    ['the root of the newest checkpoint', ({ size }) => [`update checkpoint set root = ${wrong} where size = ${size}`], 'is not as it was signed'],
    ['the note of the newest checkpoint', ({ size }) => [`update checkpoint set note = replace(note, ' K', ' L') || 'x' where size = ${size}`], 'is not as it was signed'],
    ['the newest note, to one before it', ({ size, olderNote }) => [`update checkpoint set note = '${olderNote}' where size = ${size}`], 'is not as it was signed'],
    ['the size of the newest checkpoint', ({ size }) => [`update checkpoint set size = ${size + 1} where size = ${size}`], 'is not as it was signed'],
  ]
  const wrongLeaf = Buffer.alloc(32, 0xab)

  /** A broker with two checkpoints and a workload, and how many entries more than were signed. */
  async function startSigned(more = 0) {
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    const { note: olderNote } = await advanceCheckpoint(broker.broker)
    await addEntry(broker)
    await addEntry(broker)
    const { size } = await advanceCheckpoint(broker.broker)
    for (let i = 0; i < more; i++) await addEntry(broker)
    const log: Signed = { size, olderNote, leaves: await readLeaves(broker.broker.database.read) }
    return { broker, agent, log }
  }

  test.for(contradictions)('are not signed, and nothing else is committed, once somebody has changed %s', async ([, change, why]) => {
    const { broker, agent, log } = await startSigned(1)
    await tamper(broker.database, ...change(log))
    const before = await listCheckpointsAfter(broker.broker.database.read, -1, 100)
    const failure = await advanceCheckpoint(broker.broker).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(InconsistentTree)
    expect(String(failure)).toContain(why)
    expect(broker.broker.ledger.halted).toContain(why)
    expect(await isReady(broker)).toBe(503)
    expect(await listCheckpointsAfter(broker.broker.database.read, -1, 100)).toEqual(before)
    // What would be recorded is refused, and so nothing is given.
    await expect(addEntry(broker)).rejects.toMatchObject({ code: 'unavailable' })
    const answer = await broker.send('POST', '/oauth2/token', { form: agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' }) })
    expect([answer.status, await answer.json()]).toMatchObject([503, { error: 'temporarily_unavailable' }])
    // What others were given stays to be had.
    expect((await broker.send('GET', '/log/checkpoint')).status).toBe(200)
  })

  test.for(contradictions.filter(([what]) => /head|checkpoint|note/.test(what)))('show without a new entry that somebody has changed %s', async ([, change]) => {
    const { broker, log } = await startSigned()
    await tamper(broker.database, ...change(log))
    await expect(advanceCheckpoint(broker.broker)).rejects.toThrow(InconsistentTree)
    expect(await isReady(broker)).toBe(503)
  })

  test('are not signed for a log that was cut short to less than was signed, by a process that has seen nothing', async () => {
    const { broker, log } = await startSigned()
    await broker.close()
    const kept = log.leaves.slice(0, -1)
    await tamper(broker.database, `delete from audit_event where idx >= ${kept.length}`, headOf(kept))
    const again = await startBroker(engine, { beside: broker })
    expect(again.broker.ledger.halted).toContain(`its ${kept.length} entries do not go on from the ${log.size} that were signed`)
    expect(await isReady(again)).toBe(503)
    expect(again.logLines.join('')).toContain('nothing is issued')
  })

  test('are not signed over hashes of tiles that somebody has changed or taken away, and nothing wrong is stored for good', async () => {
    for (const [change, why] of [
      [`update tree_hash set hash = ${wrong} where idx = 1`, 'do not have the root of its head'],
      ['delete from tree_hash where idx = 1', 'the tree lacks hashes of tile level 1'],
    ] as const) {
      const broker = await startBroker(engine)
      await fillLog(broker.database, 1_000)
      await advanceCheckpoint(broker.broker)
      await addEntry(broker)
      await tamper(broker.database, change)
      await expect(advanceCheckpoint(broker.broker)).rejects.toThrow(why)
      expect(await isReady(broker)).toBe(503)
    }
    const broker = await startBroker(engine)
    await fillLog(broker.database, 300)
    await tamper(broker.database, `update audit_event set leaf_hash = ${wrong} where idx = 100`)
    await expect(advanceCheckpoint(broker.broker)).rejects.toThrow('do not have the root of its head')
    expect(await broker.broker.database.read.selectFrom('tree_hash').selectAll().execute()).toEqual([])
  })

  /** The same log with another second entry. */
  const fork = ({ leaves }: Signed) => [`update audit_event set leaf_hash = ${wrong} where idx = 1`, headOf(leaves.with(1, wrongLeaf))]

  test.for<readonly [string, (log: Signed) => readonly string[]]>([
    ['rewritten, and all checkpoints taken away', (log) => [...fork(log), 'delete from checkpoint']],
    ['rewritten, and the newest checkpoint taken away', (log) => [...fork(log), `delete from checkpoint where size = ${log.size}`]],
    ['left as it is, without its newest checkpoint', ({ size }) => [`delete from checkpoint where size = ${size}`]],
    ['left as it is, without checkpoints', () => ['delete from checkpoint']],
  ])('are not signed by a process that remembers one that is gone: of a log that was %s', async ([, change]) => {
    for (const more of [0, 2]) {
      const { broker, log } = await startSigned(more)
      await tamper(broker.database, ...change(log))
      const before = await listCheckpointsAfter(broker.broker.database.read, -1, 100)
      await expect(advanceCheckpoint(broker.broker)).rejects.toThrow(`its checkpoint of ${log.size} entries is gone`)
      expect(broker.broker.ledger.held).toContain('is gone')
      expect(await isReady(broker)).toBe(503)
      expect(await listCheckpointsAfter(broker.broker.database.read, -1, 100)).toEqual(before)
      await expect(addEntry(broker)).rejects.toMatchObject({ code: 'unavailable' })
    }
  })

  test.for([
    ['as large as the one that it remembers', 0, 0],
    ['larger, of all entries', 2, 0],
    ['larger, of some entries', 2, 1],
  ] as const)('do not go on from what another process has signed of a rewritten log: one that is %s', async ([, more, behind]) => {
    const { broker, log } = await startSigned(more)
    const forged = log.leaves.with(1, wrongLeaf).slice(0, log.leaves.length - behind)
    const [size, root] = [forged.length, naiveRoot(forged)]
    await tamper(
      broker.database,
      ...fork(log),
      'delete from checkpoint',
      // As a process without a memory would.
      `insert into checkpoint (size, root, note, created_at) values (${size}, ${hex(root)}, '${broker.broker.checkpointKey.sign({ size, root })}', '2026-01-15T12:00:00.000Z')`,
    )
    await expect(advanceCheckpoint(broker.broker)).rejects.toThrow(`entries do not go on from the ${log.size} that were signed`)
    expect(await listCheckpointsAfter(broker.broker.database.read, -1, 100)).toHaveLength(1)
    expect(await isReady(broker)).toBe(503)
  })

  test('are signed again after a restart, once what was changed is as it was', async () => {
    const { broker, log } = await startSigned()
    await addEntry(broker)
    await tamper(broker.database, `update audit_event set leaf_hash = ${wrong} where idx = 1`)
    await expect(advanceCheckpoint(broker.broker)).rejects.toThrow(InconsistentTree)
    await broker.close()
    await tamper(broker.database, `update audit_event set leaf_hash = ${hex(log.leaves[1] ?? wrongLeaf)} where idx = 1`)
    const again = await startBroker(engine, { beside: broker })
    expect(again.broker.ledger.halted).toBeUndefined()
    await checkAll(again)
  })
})
