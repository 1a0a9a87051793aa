import { expect, test } from 'vitest'
import { openCheckpoint } from '../../src/audit/checkpoint.ts'
import { appendLeaf, encodeFrontier, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import { parseVerifierKey } from '../../src/audit/note.ts'
import { advanceCheckpoint } from '../../src/broker/checkpoints.ts'
import { rebuild } from '../audit/rebuild.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { note } from '../storage/changes.ts'
import { tamper } from '../storage/tamper.ts'

type Line = { readonly index?: number; readonly gap?: [number, number]; readonly checkpoint?: string }

/** An export and its proof as whoever looks into the log gets them, and how both answered. */
async function take(broker: TestBroker, filter = '') {
  const exported = await broker.sendAsAdmin('GET', `/v1/audit/export?${filter}`)
  const entries = await exported.text()
  const { headers } = exported
  const range = `first=${headers.get('stint-export-first')}&last=${headers.get('stint-export-last')}`
  const proven = await broker.sendAsAdmin('GET', `/v1/audit/proof?${filter.startsWith('workload') ? `${filter}&` : ''}${range}`)
  const proof = await proven.text()
  const lines = (entries + proof).trimEnd().split('\n').map((line) => JSON.parse(line) as Line)
  return { statuses: [exported.status, proven.status], index: headers.get('stint-audit-index'), text: entries + proof, lines, proof }
}

const indexesOf = (lines: readonly Line[]) => lines.flatMap(({ index }) => index ?? [])
const gapsOf = (lines: readonly Line[]) => lines.flatMap(({ gap }) => (gap === undefined ? [] : [gap]))

function sizeOf(broker: TestBroker, lines: readonly Line[]): number {
  const verifier = parseVerifierKey(broker.broker.checkpointKey.verifierKey)
  const checkpoint = verifier && openCheckpoint(lines.at(-1)?.checkpoint ?? '', verifier)
  if (checkpoint === undefined || typeof checkpoint === 'string') throw new Error(`the checkpoint: ${checkpoint}`)
  return checkpoint.size
}

const append = ({ broker }: TestBroker, count: number, workload = 'bot') =>
  Promise.all(Array.from({ length: count }, (_, i) => broker.ledger.append({ events: [note(`${i}`, workload)] })))
const range = (start: number, end: number) => Array.from({ length: end - start }, (_, i) => start + i)

describeEngines('Of a log that may not go on, an export', (engine) => {
  /** A log that was signed, and has gone on by some entries. */
  async function startSigned(more = 7): Promise<{ broker: TestBroker; signed: number; size: number }> {
    const broker = await startBroker(engine)
    await append(broker, 300, 'one')
    await append(broker, 20, 'two')
    const { size: signed } = await advanceCheckpoint(broker.broker)
    await append(broker, more, 'one')
    return { broker, signed, size: signed + more }
  }

  test('is given whole and unrecorded while the ledger is held, with the last checkpoint that was signed', async () => {
    const { broker, signed, size } = await startSigned()
    broker.broker.ledger.hold('a test')
    const { statuses, index, lines, text } = await take(broker)
    expect([statuses, index]).toEqual([[200, 200], null])
    expect([indexesOf(lines), gapsOf(lines)]).toEqual([range(0, size), []])
    expect(rebuild(text, broker.broker.checkpointKey.verifierKey).size).toBe(signed)
    const some = await take(broker, 'workload=two')
    expect(gapsOf(some.lines)).toEqual([[0, signed - 20]])
    const behind = await take(broker, `after=${signed}`)
    expect([indexesOf(behind.lines), gapsOf(behind.lines)]).toEqual([range(signed + 1, size), [[0, signed]]])
    expect(broker.logLines.filter((line) => line.includes('an export is given that the log cannot record'))).toHaveLength(3)

    broker.broker.ledger.release()
    const after = await take(broker)
    expect([after.index, indexesOf(after.lines), sizeOf(broker, after.lines)]).toEqual([String(size), range(0, size), size])
  })

  test('whose tree was changed is what finds it, and shows it', async () => {
    const { broker, signed, size } = await startSigned()
    await tamper(broker.database, `update audit_event set leaf_hash = (select leaf_hash from audit_event where idx = 4) where idx = ${signed - 2}`)
    const { statuses, index, lines, text } = await take(broker)
    expect([statuses, index, broker.broker.ledger.halted]).toEqual([[200, 200], null, expect.stringContaining('contradicts its own checkpoint')])
    // What was changed is the hash beside an entry, and with it the list: the entries themselves are those that were signed.
    expect(indexesOf(lines)).toEqual(range(0, size))
    expect(rebuild(text, broker.broker.checkpointKey.verifierKey, 'another').size).toBe(signed)
    // Where the changed hash stands for its entry, nothing fits.
    const { text: some } = await take(broker, 'workload=one')
    expect(() => rebuild(some, broker.broker.checkpointKey.verifierKey)).toThrow('to deeply equal')
  })

  test('that lacks an entry is given without it, and states no gap where it was', async () => {
    const { broker, signed, size } = await startSigned()
    const lost = signed - 2
    await tamper(broker.database, `delete from audit_event where idx = ${lost}`)
    const { statuses, lines } = await take(broker)
    expect(statuses).toEqual([200, 200])
    expect([indexesOf(lines), gapsOf(lines), sizeOf(broker, lines)]).toEqual([range(0, size).toSpliced(lost, 1), [], signed])
    const some = await take(broker, 'workload=one')
    expect(some.statuses).toEqual([200, 200])
    // The gap with the entry cannot be proven, the one before it can.
    expect([gapsOf(some.lines), sizeOf(broker, some.lines)]).toEqual([[[0, signed - 320]], signed])
    expect(broker.logLines.join('')).toContain('a proof goes without hashes that the tree lacks')
  })

  test('by time is found also where the entry is gone that would be looked at', async () => {
    const { broker, size } = await startSigned()
    // A search among all of them looks at the one in the middle first.
    const lost = Math.floor(size / 2)
    await tamper(broker.database, `delete from audit_event where idx = ${lost}`)
    for (const [filter, expected] of [
      ['from=2026-01-15', range(0, size).toSpliced(lost, 1)],
      ['to=2026-01-15', []],
    ] as const) {
      const response = await broker.sendAsAdmin('GET', `/v1/audit/export?${filter}&until=${size - 1}`)
      const lines = (await response.text()).split('\n').filter((line) => line !== '')
      expect([response.status, indexesOf(lines.map((line) => JSON.parse(line) as Line))]).toEqual([200, expected])
    }
  })

  test('whose end was taken away shows a checkpoint of more than there is', async () => {
    const { broker, signed } = await startSigned(0)
    const kept = signed - 3
    const rows = await broker.broker.database.read.selectFrom('audit_event').select('leaf_hash').where('idx', '<', kept).orderBy('idx').execute()
    const frontier = rows.reduce((before: Frontier, { leaf_hash: leaf }, at) => appendLeaf(before, at, leaf), [])
    const hex = (bytes: Uint8Array) => `x'${Buffer.from(bytes).toString('hex')}'`
    await tamper(
      broker.database,
      `delete from audit_event where idx >= ${kept}`,
      `update log_head set size = ${kept}, frontier = ${hex(encodeFrontier(frontier))}, root = ${hex(rootOf(frontier))}`,
    )
    const { statuses, index, lines } = await take(broker)
    expect([statuses, index]).toEqual([[200, 200], null])
    expect([indexesOf(lines), gapsOf(lines), sizeOf(broker, lines)]).toEqual([range(0, kept), [], signed])
  })

  test('that was never signed is given, and has no proof', async () => {
    const { broker, size } = await startSigned()
    await tamper(broker.database, 'delete from checkpoint')
    broker.broker.ledger.hold('a test')
    const exported = await broker.sendAsAdmin('GET', '/v1/audit/export')
    expect((await exported.text()).trimEnd().split('\n')).toHaveLength(size)
    for (let i = 0; i < 5; i++) {
      const response = await broker.sendAsAdmin('GET', `/v1/audit/proof?first=0&last=${size - 1}`)
      expect([response.status, ((await response.json()) as { detail: string }).detail]).toEqual([404, expect.stringContaining('no checkpoint')])
    }
  })

  test('is not given where the log cannot be written for another reason', async () => {
    const { broker, size } = await startSigned()
    await broker.broker.ledger.close()
    expect((await broker.sendAsAdmin('GET', '/v1/audit/export')).status).toBe(503)
    for (let i = 0; i < 5; i++) expect((await broker.sendAsAdmin('GET', `/v1/audit/proof?first=0&last=${size - 1}`)).status).toBe(503)
    // What has been signed already is proven all the same.
    expect((await broker.sendAsAdmin('GET', '/v1/audit/proof?first=0&last=0')).status).toBe(200)
  })

  test('takes away whatever somebody has made of the record of a policy set', async () => {
    const { broker } = await startSigned()
    const at = (await broker.events()).find(({ type }) => type === 'policy.applied')?.index
    for (const body of ['{"index":1', '{"policy_set":"a\\u0000"}', '{"policy_set":7}', '{}']) {
      await tamper(broker.database, `update audit_event set body = '${body}' where idx = ${at}`)
      const response = await broker.sendAsAdmin('GET', '/v1/audit/proof?first=0&last=20')
      expect([response.status, (await response.text()).includes('policy_set')]).toEqual([200, false])
    }
  })
})
