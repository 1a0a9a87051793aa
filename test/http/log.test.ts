import { expect, test } from 'vitest'
import { openCheckpoint } from '../../src/audit/checkpoint.ts'
import { formatSignature, parseNote, parseVerifierKey } from '../../src/audit/note.ts'
import { advanceCheckpoint } from '../../src/broker/checkpoints.ts'
import { insertCosignature } from '../../src/storage/checkpoints.ts'
import { naiveLeaf, naiveRoot } from '../audit/naive-tree.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { note } from '../storage/changes.ts'
import { fillLog } from '../storage/fill.ts'
import { tamper } from '../storage/tamper.ts'

/** A broker whose newest checkpoint covers that many entries exactly, with all their leaf hashes. */
async function startAt(engine: 'sqlite' | 'postgres', size: number) {
  const broker = await startBroker(engine)
  const { read } = broker.broker.database
  const { size: there } = await advanceCheckpoint(broker.broker)
  await fillLog(broker.database, size - there)
  expect((await advanceCheckpoint(broker.broker)).size).toBe(size)
  const leaves = (await read.selectFrom('audit_event').select('leaf_hash').orderBy('idx').execute()).map((row) => Buffer.from(row.leaf_hash))
  return { broker, leaves, auditor: await broker.createOperator('auditor') }
}

async function getBytes(broker: TestBroker, path: string, credential?: string) {
  const response = credential === undefined ? await broker.send('GET', path) : await broker.sendAs(credential, 'GET', path)
  return { status: response.status, type: response.headers.get('content-type'), cache: response.headers.get('cache-control'), body: Buffer.from(await response.arrayBuffer()) }
}

/** The entries of a bundle. */
function splitBundle(bundle: Buffer): string[] {
  const entries: string[] = []
  for (let at = 0; at < bundle.length; ) {
    const end = at + 2 + bundle.readUInt16BE(at)
    entries.push(bundle.toString('utf8', at + 2, end))
    at = end
  }
  return entries
}

const problem = { status: 404, type: 'application/problem+json', cache: 'no-store' }

describeEngines('The log', (engine) => {
  test('gives its key and its newest checkpoint to anyone, with what witnesses said', async () => {
    const broker = await startBroker(engine)
    const { size } = await advanceCheckpoint(broker.broker)
    const key = await getBytes(broker, '/log/key')
    expect(key).toMatchObject({ status: 200, type: 'text/plain; charset=utf-8' })
    expect(key.body.toString()).toBe(`${broker.broker.checkpointKey.verifierKey}\n`)
    const verifier = parseVerifierKey(key.body.toString().trimEnd())
    const get = () => getBytes(broker, '/log/checkpoint')
    const plain = await get()
    expect(plain).toMatchObject({ status: 200, type: 'text/plain; charset=utf-8', cache: 'no-store' })
    expect(verifier && openCheckpoint(plain.body.toString(), verifier)).toMatchObject({ origin: 'stint.test/log', size })

    const lines = ['w1.example', 'w2.example'].map((name) => formatSignature({ name, keyId: Buffer.alloc(4, 1), signature: Buffer.alloc(72, 2) }))
    for (const [i, line] of lines.entries()) {
      await broker.broker.ledger.transact({ apply: async (tx, { timeMs }) => (await insertCosignature(tx, size, `w${2 - i}`, line, timeMs), { result: 0, unrecorded: 'housekeeping' }) })
    }
    const signed = (await get()).body.toString()
    expect(signed).toBe(plain.body.toString() + lines.toReversed().join(''))
    expect(parseNote(signed)?.signatures.map(({ name }) => name)).toEqual(['stint.test/log', 'w2.example', 'w1.example'])
    // The next one has none yet.
    await broker.broker.ledger.append({ events: [note()] })
    await advanceCheckpoint(broker.broker)
    expect(parseNote((await get()).body.toString())).toMatchObject({ signatures: [{ name: 'stint.test/log' }] })
  })

  test('gives the hashes of its tree to anyone, full tiles and parts of them, and no more than was signed', async () => {
    const { broker, leaves } = await startAt(engine, 700)
    await fillLog(broker.database, 10)
    const roots = [leaves.slice(0, 256), leaves.slice(256, 512)].map(naiveRoot)
    const good: readonly (readonly [string, readonly Buffer[]])[] = [
      ['0/000', leaves.slice(0, 256)],
      ['0/001', leaves.slice(256, 512)],
      ['0/002.p/188', leaves.slice(512, 700)],
      ['0/002.p/1', leaves.slice(512, 513)],
      ['0/002.p/187', leaves.slice(512, 699)],
      // It is full by now, and was not once.
      ['0/000.p/255', leaves.slice(0, 255)],
      ['1/000.p/2', roots],
      ['1/000.p/1', roots.slice(0, 1)],
    ]
    for (const [path, hashes] of good) {
      const answer = await getBytes(broker, `/log/tile/${path}`)
      expect([path, answer.status, answer.type, answer.cache]).toEqual([path, 200, 'application/octet-stream', 'public, max-age=31536000, immutable'])
      expect(answer.body.equals(Buffer.concat(hashes)), path).toBe(true)
    }
    const none = ['0/002', '0/002.p/189', '0/002.p/198', '0/003.p/1', '0/003', '0/x001/000', '1/000', '1/000.p/3', '1/001.p/1', '2/000.p/1', '63/000.p/1', '0/x999/x999/x999/x999/999']
    for (const path of none) expect(await getBytes(broker, `/log/tile/${path}`), path).toMatchObject(problem)
    expect(String((await getBytes(broker, '/log/tile/0/002')).body)).toContain("The log's newest checkpoint, of 700 entries, does not reach that far.")
    await advanceCheckpoint(broker.broker)
    expect((await getBytes(broker, '/log/tile/0/002.p/198')).status).toBe(200)
  })

  test('gives its entries as bundles to admins and auditors alone, each of which hashes to its leaf', async () => {
    const { broker, leaves, auditor } = await startAt(engine, 300)
    const { read } = broker.broker.database
    const bodies = (await read.selectFrom('audit_event').select('body').orderBy('idx').execute()).map(({ body }) => body)
    for (const [path, start, end] of [['000', 0, 256], ['001.p/44', 256, 300], ['001.p/1', 256, 257], ['000.p/7', 0, 7]] as const) {
      const answer = await getBytes(broker, `/log/tile/entries/${path}`, auditor)
      expect([path, answer.status, answer.type, answer.cache]).toEqual([path, 200, 'application/octet-stream', 'private, no-store'])
      const entries = splitBundle(answer.body)
      expect(entries).toEqual(bodies.slice(start, end))
      expect(entries.map(naiveLeaf)).toEqual(leaves.slice(start, end))
    }
    for (const path of ['001', '001.p/45', '002.p/1', 'x001/000']) expect(await getBytes(broker, `/log/tile/entries/${path}`, auditor), path).toMatchObject(problem)
    expect((await getBytes(broker, '/log/tile/entries/000', broker.adminCredential)).status).toBe(200)
    const approver = await broker.createOperator('approver')
    expect((await getBytes(broker, '/log/tile/entries/000', approver)).status).toBe(403)
    // Who may not see it does not learn how far the log goes either.
    for (const path of ['000', '002.p/1', 'x']) expect((await getBytes(broker, `/log/tile/entries/${path}`)).status).toBe(401)
  })

  test('that lacks what it has signed says so, rather than give something else', async () => {
    const { broker, auditor } = await startAt(engine, 300)
    await tamper(broker.database, 'delete from audit_event where idx = 7', 'delete from tree_hash')
    expect((await getBytes(broker, '/log/tile/0/000')).status).toBe(500)
    expect((await getBytes(broker, '/log/tile/0/000.p/7')).status).toBe(200)
    expect((await getBytes(broker, '/log/tile/1/000.p/1')).status).toBe(500)
    expect((await getBytes(broker, '/log/tile/entries/000', auditor)).status).toBe(500)
    expect((await getBytes(broker, '/log/tile/entries/000.p/8', auditor)).status).toBe(500)
    expect(broker.logLines.join('')).toContain('the tree lacks hashes of tile level 0')
  })
})

test('An address of the log has one spelling, and takes nothing else', async () => {
  const broker = await startBroker('sqlite')
  const good = '/log/tile/0/000.p/1'
  expect((await broker.send('GET', good)).status).toBe(200)
  const spellings = ['00/000.p/1', '0/0', '0/00.p/1', '0/0000.p/1', '0/x000/000.p/1', '0/000.p/01', '0/000.p/256', '0/000.p/0', '0/000.p', '0/000.p/', '0/000%2ep/1', '0/000.p%2f1', '0/000.p%2F1', '0/%30%30%30.p/1', '0//000.p/1', '0/000.p/1/', '0/000.p/1/1', '-1/000.p/1', '64/000.p/1', '0x0/000.p/1', '0/000.P/1', '0', '0/']
  for (const spelling of spellings) {
    const response = await broker.send('GET', `/log/tile/${spelling}`)
    expect([spelling, response.status, response.headers.get('cache-control')]).toEqual([spelling, 404, 'no-store'])
  }
  expect((await broker.send('GET', `${good}?a=1`)).status).toBe(400)
  for (const path of [good, '/log/checkpoint', '/log/key', '/log/tile/entries/000.p/1']) {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
      const response = await broker.sendAsAdmin(method, path)
      expect([method, path, response.status, response.headers.get('allow')]).toEqual([method, path, 405, 'GET, HEAD'])
    }
    const [got, head] = [await broker.sendAsAdmin('GET', path), await broker.sendAsAdmin('HEAD', path)]
    expect([path, head.status, (await head.arrayBuffer()).byteLength, head.headers.get('content-type')]).toEqual([path, 200, 0, got.headers.get('content-type')])
  }
})

test('A log that could sign nothing yet has no checkpoint and no tiles', async () => {
  const broker = await startBroker('sqlite')
  await tamper(broker.database, 'delete from checkpoint')
  for (const path of ['/log/checkpoint', '/log/tile/0/000.p/1']) {
    const response = await broker.send('GET', path)
    expect([path, response.status, await response.json()]).toMatchObject([path, 503, { detail: 'The log has no checkpoint yet: see /readyz.' }])
  }
})
