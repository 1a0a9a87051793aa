import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { canonicalJson, leafHash, type JsonObject } from '../../src/audit/encode.ts'
import { appendLeaf, encodeFrontier, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import type { FileVerdict } from '../../src/audit/verify.ts'
import { advanceCheckpoint } from '../../src/broker/checkpoints.ts'
import { verifyFile } from '../../src/cli/verify-file.ts'
import { describeFile } from '../../src/cli/verify-section.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { getToken, startBroker, type TestBroker } from '../broker.ts'
import { createTestFolder, describeEngines, type TestDatabase } from '../harness.ts'
import { copyDatabase } from '../restored.ts'
import { tamper } from '../storage/tamper.ts'

/** A log with some life in it, of which an auditor kept a checkpoint, and which has gone on since. */
async function startLog(engine: Engine) {
  const broker = await startBroker(engine)
  const triage = await broker.register('triage-bot')
  const billing = await broker.register('billing-bot', { team: 'finance' })
  await getToken(broker, triage, { scope: 'tickets:read' })
  const { access_token: token } = await getToken(broker, triage, { scope: 'tickets:read tickets:comment' })
  expect((await broker.send('POST', '/oauth2/revoke', { form: triage.form({ token }) })).status).toBe(200)
  await payFor(broker, billing)
  const kept = (await advanceCheckpoint(broker.broker)).note
  const size = (await broker.events()).length
  await getToken(broker, triage, { scope: 'tickets:read' })
  await payFor(broker, billing)
  return { broker, triage, billing, kept, size }
}

const payFor = (broker: TestBroker, agent: Parameters<typeof getToken>[1]) =>
  getToken(broker, agent, { authorization_details: JSON.stringify([{ type: 'stint', actions: ['payments:read'], target: 'acct-1' }]) })

/** An export through the API, proof and all, as the verifier of files judges it. */
async function judge(broker: TestBroker, kept?: string): Promise<FileVerdict & { readonly ok: boolean; readonly said: string }> {
  const exported = await broker.sendAsAdmin('GET', '/v1/audit/export')
  const { headers } = exported
  const entries = await exported.text()
  const proof = await broker.sendAsAdmin('GET', `/v1/audit/proof?first=${headers.get('stint-export-first')}&last=${headers.get('stint-export-last')}`)
  expect([exported.status, proof.status]).toEqual([200, 200])
  const path = join(createTestFolder(), 'log.jsonl')
  writeFileSync(path, entries + (await proof.text()))
  const verdict = await verifyFile(path, { verifier: broker.broker.checkpointKey.verifier, kept }, { err: () => undefined, errColumns: undefined })
  const { ok, lines } = describeFile(path, verdict)
  return { ...verdict, ok, said: lines.join('\n') }
}

const bodiesOf = async ({ broker }: TestBroker): Promise<string[]> =>
  (await broker.database.read.selectFrom('audit_event').select('body').orderBy('idx').execute()).map(({ body }) => body)
const parse = (body: string) => JSON.parse(body) as JsonObject & { readonly type: string }
const hex = (bytes: Uint8Array): string => `x'${Buffer.from(bytes).toString('hex')}'`
const quote = (text: unknown): string => (typeof text === 'string' ? `'${text.replaceAll("'", "''")}'` : 'null')

/** These texts as the whole log, one behind the other: rows, hashes and head as the broker itself would have written them. */
function rewrite(bodies: readonly string[]): string[] {
  const texts = bodies.map((body, index) => canonicalJson({ ...parse(body), index }))
  const leaves = texts.map((text) => leafHash(Buffer.from(text)))
  const frontier = leaves.reduce((before: Frontier, leaf, i) => appendLeaf(before, i, leaf), [])
  const rows = texts.map((text, i) => {
    const { time, type, workload, tool, grant, task } = parse(text)
    return `(${i}, ${[time, type, text].map(quote).join(', ')}, ${hex(leaves[i] ?? Buffer.alloc(0))}, ${[workload, tool, grant, task].map(quote).join(', ')})`
  })
  return [
    'delete from audit_event',
    `insert into audit_event (idx, time, type, body, leaf_hash, workload, tool, grant_id, task) values ${rows.join(', ')}`,
    `update log_head set size = ${texts.length}, frontier = ${hex(encodeFrontier(frontier))}, root = ${hex(rootOf(frontier))}`,
  ]
}

/** So that the broker finds nothing that the new tree contradicts, and signs it. */
const forgetCheckpoints = ['delete from cosignature', 'delete from checkpoint', 'delete from tree_hash']

/** What the broker is once somebody has had its database. */
async function attack(engine: Engine, broker: TestBroker, statements: readonly string[], database: TestDatabase = broker.database): Promise<TestBroker> {
  await broker.close()
  await tamper(database, ...statements)
  return startBroker(engine, { beside: { ...broker, database } })
}

describeEngines('A log that nobody has tampered with', (engine) => {
  test('is complete by its own export, and its tail is proven by the checkpoint that was kept', async () => {
    const { broker, kept, size } = await startLog(engine)
    const alone = await judge(broker)
    expect(alone).toMatchObject({ ok: true, proof: 'complete', entries: size + 2, problems: [], life: { issued: 5, revoked: 1 } })
    expect(alone.said).toContain('Tail not proven')
    const held = await judge(broker, kept)
    expect(held).toMatchObject({ ok: true, proof: 'complete', kept: { size, status: 'proven' }, problems: [] })
    expect(held.said).toContain(`Tail proven up to ${size} entries`)
  })
})

describeEngines('Whoever has the database, and leaves its checkpoints,', (engine) => {
  const edit = (body: string): string => body.replace('oncall:support', 'oncall:nobody')
  const attacks: [string, (bodies: string[]) => string[], { held: boolean; problem: string; named?: (bodies: readonly string[]) => number[] }][] = [
    [
      'edits an entry',
      (bodies) => bodies.flatMap((body, i) => (edit(body) === body ? [] : [`update audit_event set body = ${quote(edit(body))} where idx = ${i}`])),
      { held: false, problem: 'is not the entry that was signed: its hash is another', named: (bodies) => bodies.flatMap((body, i) => (edit(body) === body ? [] : [i])) },
    ],
    [
      'edits an entry and its hash',
      (bodies) =>
        bodies.flatMap((body, i) =>
          edit(body) === body ? [] : [`update audit_event set body = ${quote(edit(body))}, leaf_hash = ${hex(leafHash(Buffer.from(edit(body))))} where idx = ${i}`],
        ),
      { held: true, problem: 'The entries are not those that were signed' },
    ],
    ['edits an entry, and the tree and the head after it', (bodies) => rewrite(bodies.map(edit)), { held: true, problem: 'The entries are not those that were signed' }],
    ['deletes an entry', () => ['delete from audit_event where idx = 6'], { held: true, problem: 'stands where entry 6 should: nothing stands for what is missing' }],
    ['truncates the tail', (bodies) => rewrite(bodies.slice(0, -3)), { held: true, problem: 'The file ends with entry' }],
  ]
  test.each(attacks)('%s: it shows', async (_, statements, { held, problem, named }) => {
    const { broker, kept } = await startLog(engine)
    await advanceCheckpoint(broker.broker)
    const bodies = await bodiesOf(broker)
    const after = await attack(engine, broker, statements(bodies))
    for (const checkpoint of [undefined, kept]) {
      const verdict = await judge(after, checkpoint)
      expect(verdict.ok).toBe(false)
      expect(verdict.problems.map(({ what }) => what).join('\n')).toContain(problem)
      // Where the hash beside the entry is still the one that was signed, the export has it: it names each that was changed.
      if (named !== undefined) expect(verdict.problems.flatMap(({ index, what }) => (what === problem ? (index ?? []) : []))).toEqual(named(bodies))
      else expect(verdict.said).toContain('they do not tell which entry is wrong')
      expect(verdict.said).toContain('Nothing is proven by a file that something is wrong with.')
    }
    // What the hashes show, the broker sees by itself before it signs anything more; an export is given all the same.
    expect(after.broker.ledger.halted).toEqual(held ? expect.stringContaining('contradicts its own checkpoint') : undefined)
  })
})

describeEngines('Whoever has the database and the broker, and makes it sign a tree of their own,', (engine) => {
  const swap = (body: string): string => body.replace(/triage-bot|billing-bot/g, (name) => (name === 'triage-bot' ? 'billing-bot' : 'triage-bot'))
  const typeOf = (body: string): string => parse(body).type
  const at = (bodies: readonly string[], type: string): number => bodies.findIndex((body) => typeOf(body) === type)
  // What the entries say of each other betrays some of them; a checkpoint that was kept betrays every one.
  const attacks: [string, (bodies: string[]) => string[], string | undefined][] = [
    ['edits an entry', (bodies) => bodies.map((body) => body.replace('oncall:support', 'oncall:nobody')), undefined],
    ['edits a decision', (bodies) => bodies.with(at(bodies, 'grant.issued'), (bodies[at(bodies, 'grant.issued')] ?? '').replace('"verdict":"allow"', '"verdict":"deny"')), 'has the verdict deny in its decision'],
    ['deletes a revocation', (bodies) => bodies.filter((body) => typeOf(body) !== 'grant.revoked'), undefined],
    ['deletes a registration', (bodies) => bodies.filter((body) => typeOf(body) !== 'workload.registered'), 'is by the workload triage-bot, which was not registered before'],
    [
      'inserts a grant',
      (bodies) => {
        const issued = at(bodies, 'grant.issued')
        const forged = { ...parse(bodies[issued] ?? ''), grant: `grant_01kf0rdqr${'x'.repeat(17)}`, salt: randomBytes(16).toString('base64url') }
        return bodies.toSpliced(issued + 1, 0, canonicalJson(forged))
      },
      undefined,
    ],
    ['inserts the same grant again', (bodies) => bodies.toSpliced(at(bodies, 'grant.issued'), 0, bodies[at(bodies, 'grant.issued')] ?? ''), 'once more'],
    [
      'puts an end before its grant',
      (bodies) => {
        const end = at(bodies, 'grant.revoked')
        return bodies.toSpliced(end - 1, 2, bodies[end] ?? '', bodies[end - 1] ?? '')
      },
      'which was not issued before',
    ],
    ['puts two grants in the other order', (bodies) => bodies.toSpliced(at(bodies, 'grant.issued'), 2, bodies[at(bodies, 'grant.issued') + 1] ?? '', bodies[at(bodies, 'grant.issued')] ?? ''), undefined],
    ['swaps two workloads everywhere', (bodies) => bodies.map(swap), undefined],
    ['swaps the workloads of two grants', (bodies) => bodies.map((body) => (typeOf(body) === 'grant.issued' ? swap(body) : body)), 'is proven by the key'],
    ['replaces the whole tree', (bodies) => bodies.map((body) => canonicalJson({ ...parse(body), salt: randomBytes(16).toString('base64url') })), undefined],
  ]
  test.each(attacks)('%s: a kept checkpoint shows it', async (_, change, betrayed) => {
    const { broker, kept, size } = await startLog(engine)
    const bodies = await bodiesOf(broker)
    const after = await attack(engine, broker, [...rewrite(change(bodies)), ...forgetCheckpoints])
    expect(after.broker.ledger.halted).toBeUndefined()
    const alone = await judge(after)
    if (betrayed === undefined) {
      // Signed and in order: without a checkpoint from before there is nothing to tell, and nothing more is claimed.
      expect(alone).toMatchObject({ ok: true, proof: 'complete', problems: [] })
      expect(alone.said).toContain('Tail not proven')
    } else expect(alone.problems.map(({ what }) => what).join('\n')).toContain(betrayed)
    const held = await judge(after, kept)
    expect(held).toMatchObject({ ok: false, kept: { size, status: 'contradicted' } })
    expect(held.said).toContain(`The first ${size} entries are not those of the checkpoint that was kept`)
    expect(held.said).not.toContain('Tail proven')
  })

  test('truncates the tail: a kept checkpoint shows it, also once the log has grown again', async () => {
    const { broker, triage, kept, size } = await startLog(engine)
    const after = await attack(engine, broker, [...rewrite((await bodiesOf(broker)).slice(0, size - 1)), ...forgetCheckpoints, `delete from grants where issued_index >= ${size - 1}`])
    expect(await judge(after)).toMatchObject({ ok: true, proof: 'complete', entries: size - 1, said: expect.stringContaining('Tail not proven') })
    // The export was recorded, so that there are as many entries again as were kept.
    expect(await judge(after, kept)).toMatchObject({ ok: false, kept: { size, status: 'contradicted' } })
    await getToken(after, triage, { scope: 'tickets:read' })
    expect(await judge(after, kept)).toMatchObject({ ok: false, kept: { size, status: 'contradicted' } })
  })
})

describeEngines('Two logs of one key', (engine) => {
  /** What goes on from a copy of the database, and what goes on from the database itself. */
  async function fork() {
    const log = await startLog(engine)
    await log.broker.close()
    const copy = await copyDatabase(log.broker.database)
    const first = await startBroker(engine, { beside: log.broker })
    const second = await startBroker(engine, { beside: { ...log.broker, database: copy } })
    return { ...log, first, second }
  }

  test('that were forked are both complete, and a checkpoint of one is not that of the other', async () => {
    const { first, second, triage, billing, kept } = await fork()
    await getToken(first, triage, { scope: 'tickets:read' })
    for (let i = 0; i < 3; i++) await payFor(second, billing)
    const ofFirst = (await advanceCheckpoint(first.broker)).note
    const ofSecond = (await advanceCheckpoint(second.broker)).note
    for (const broker of [first, second]) {
      expect(await judge(broker)).toMatchObject({ ok: true, proof: 'complete', said: expect.stringContaining('Tail not proven') })
      expect(await judge(broker, kept)).toMatchObject({ ok: true, kept: { status: 'proven' } })
    }
    expect(await judge(first, ofFirst)).toMatchObject({ ok: true, kept: { status: 'proven' } })
    expect(await judge(second, ofFirst)).toMatchObject({ ok: false, kept: { status: 'contradicted' } })
    expect(await judge(second, ofSecond)).toMatchObject({ ok: true, kept: { status: 'proven' } })
  })

  test('of which one is an old backup: it does not have what was kept since, and says so', async () => {
    const { first, second, triage } = await fork()
    for (let i = 0; i < 4; i++) await getToken(first, triage, { scope: 'tickets:read' })
    const kept = (await advanceCheckpoint(first.broker)).note
    const shorter = await judge(second, kept)
    expect(shorter).toMatchObject({ ok: false, proof: 'complete', problems: [], kept: { status: 'not covered' } })
    expect(shorter.said).toContain('the end of the log was cut off or an old backup was restored')
    for (let i = 0; i < 4; i++) await getToken(second, triage, { scope: 'tickets:read' })
    expect(await judge(second, kept)).toMatchObject({ ok: false, kept: { status: 'contradicted' } })
  })
})
