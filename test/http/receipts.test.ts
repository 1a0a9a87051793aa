import SqliteDatabase from 'better-sqlite3'
import { decodeJwt } from 'jose'
import pg from 'pg'
import { expect, test } from 'vitest'
import { leafHash } from '../../src/audit/encode.ts'
import type { AuditEvent } from '../../src/audit/event.ts'
import { formatSignature, parseNote, parseVerifierKey, type NoteVerifier } from '../../src/audit/note.ts'
import { verifyReceipt, type Receipt } from '../../src/audit/receipt.ts'
import { advanceCheckpoint } from '../../src/broker/checkpoints.ts'
import { commit } from '../../src/broker/commit.ts'
import { insertCosignature } from '../../src/storage/checkpoints.ts'
import { getToken, startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import type { RowsChange } from '../../src/storage/change.ts'
import { grantChange, note } from '../storage/changes.ts'
import { unrecorded } from './admin-requests.ts'
import { details, post } from './oauth-requests.ts'

const minuteMs = 60_000

async function giveToken(broker: TestBroker, agent: TestAgent, task?: string): Promise<{ token: string; grant: string }> {
  const { access_token: token } = await getToken(broker, agent, {
    authorization_details: details({ actions: ['tickets:read'], ...(task !== undefined && { task }) }),
  })
  return { token, grant: String(decodeJwt(token).jti) }
}

async function askReceipt(broker: TestBroker, grant: string) {
  const response = await broker.sendAsAdmin('GET', `/v1/audit/receipts/${grant}`)
  return { status: response.status, headers: response.headers, body: (await response.json()) as Record<string, unknown> }
}

/** The receipt of a grant, which must verify; with the indexes of what happened to the grant, by the log itself. */
async function takeReceipt(broker: TestBroker, grant: string): Promise<Receipt> {
  const { status, body } = await askReceipt(broker, grant)
  expect([status, body['detail']]).toEqual([200, undefined])
  const verdict = verifyReceipt(body, broker.broker.checkpointKey.verifier)
  expect(verdict).toMatchObject({ ok: true, problems: [], grant })
  return body as Receipt
}

const indexesOf = (receipt: Receipt): number[] => receipt.entries.map(({ index }) => index)
const typesOf = (receipt: Receipt): string[] => receipt.entries.map(({ body }) => (JSON.parse(body) as { type: string }).type)
const readBodies = async ({ broker }: TestBroker) =>
  (await broker.database.read.selectFrom('audit_event').select('body').orderBy('idx').execute()).map(({ body }) => body)

/** Entries that are about nothing. */
async function fillLog({ broker }: TestBroker, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, i) => broker.ledger.append({ events: [note(`${i}`)] })))
}

const revoke = (broker: TestBroker, target: Record<string, string>) => broker.sendAsAdmin('POST', '/v1/revocations', target)

/** The intent of a grant of `triage-bot` in an outside tool: the row and its event. */
function intentChange(id: string, expiresAtMs: number): RowsChange {
  const { grant, events: [issued] } = grantChange(id, { expiresAtMs })
  if (grant === undefined || issued.type !== 'grant.issued') throw new Error('no grant')
  const { audience: _audience, token_kid: _kid, ...asked } = issued
  return { grant: { ...grant, tool: 'tickets' }, events: [{ ...asked, type: 'grant.minting', tool: 'tickets', connector: 'postgres', ends: 'immediate' }] }
}

/** Changes what is stored, guards or not, as whoever owns the database can. */
async function tamper({ database }: TestBroker, statement: string): Promise<void> {
  if (database.engine === 'sqlite') {
    const handle = new SqliteDatabase(database.ownerLocation)
    handle.pragma('foreign_keys = off')
    handle.exec(`drop trigger audit_event_no_update; drop trigger audit_event_no_delete; ${statement}`)
    handle.close()
    return
  }
  const owner = new pg.Client({ connectionString: database.ownerLocation })
  await owner.connect()
  await owner.query('set session_replication_role = replica')
  await owner.query(statement)
  await owner.end()
}

describeEngines('A receipt', (engine) => {
  test('of a live grant holds the very text of its entry, under a checkpoint that covers it, and is no event', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { grant } = await giveToken(broker, agent, 't-1')
    const bodies = await readBodies(broker)
    await unrecorded(broker, async () => {
      const { status, headers, body } = await askReceipt(broker, grant)
      expect([status, headers.get('content-type'), headers.get('cache-control')]).toEqual([200, 'application/json', 'no-store'])
      const receipt = body as Receipt
      expect(Object.keys(receipt)).toEqual(['receipt', 'grant', 'entries', 'checkpoint'])
      expect(receipt).toMatchObject({ receipt: 1, grant, entries: [{ index: bodies.length - 1, body: bodies.at(-1) }] })
      expect(parseNote(receipt.checkpoint)?.text.split('\n').slice(0, 2)).toEqual(['stint.test/log', String(bodies.length)])
    })
    const verdict = verifyReceipt(await takeReceipt(broker, grant), broker.broker.checkpointKey.verifier)
    expect(verdict.proven[1]).toContain('triage-bot was given tickets:read for tickets until 2026-01-15T12:10:00.000Z, for the task t-1, by support-works-on-tickets')
    expect(verdict.unproven[0]).toContain('That the grant lived until')
  })

  test('needs no new checkpoint where one covers the grant already', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { grant } = await giveToken(broker, agent)
    const { size } = await advanceCheckpoint(broker.broker)
    await fillLog(broker, 5)
    expect((await takeReceipt(broker, grant)).checkpoint).toContain(`\n${size}\n`)
    await revoke(broker, { grant })
    const after = await takeReceipt(broker, grant)
    expect(after.checkpoint).toContain(`\n${size + 6}\n`)
    expect(typesOf(after)).toEqual(['grant.issued', 'grant.revoked'])
  })

  test('tells by whom and how the grant was ended', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const other = await broker.register('other')
    const ofHolder = await giveToken(broker, agent)
    const ofAdmin = await giveToken(broker, agent)
    const ofTask = await giveToken(broker, agent, 't-1')
    const ofOther = await giveToken(broker, other, 't-1')
    const ofMany = await giveToken(broker, agent, 't-2')
    await post(broker, 'revoke', { form: agent.form({ token: ofHolder.token }) })
    await revoke(broker, { grant: ofAdmin.grant, reason: 'odd' })
    await revoke(broker, { task: 't-1' })
    await revoke(broker, { workload: 'triage-bot' })
    broker.clock.advance(1)
    const later = await giveToken(broker, agent, 't-2')
    await revoke(broker, { before: '2026-01-15T12:00:00.001Z' })
    const told = async ({ grant }: { grant: string }) => {
      const receipt = await takeReceipt(broker, grant)
      return [typesOf(receipt), verifyReceipt(receipt, broker.broker.checkpointKey.verifier).proven[2]?.replace(/^.*?Z: /, '')]
    }
    const [many, admin] = ['grants.revoked', 'by operator [0-9a-f]{16}']
    const matching = (text: string) => expect.stringMatching(new RegExp(`^${text}`))
    expect(await told(ofHolder)).toEqual([['grant.issued', 'grant.revoked', many, many], 'it was revoked by workload triage-bot.'])
    expect(await told(ofAdmin)).toEqual([['grant.issued', 'grant.revoked', many, many], matching(`it was revoked ${admin}: odd.$`)])
    expect(await told(ofTask)).toEqual([['grant.issued', many, many, many], matching(`all grants of the task t-1 were revoked, and this one among them ${admin}.$`)])
    expect(await told(ofOther)).toEqual([['grant.issued', many, many], matching('all grants of the task t-1 were revoked')])
    expect(await told(ofMany)).toEqual([['grant.issued', many, many], matching('all grants of triage-bot were revoked')])
    expect(await told(later)).toEqual([['grant.issued'], undefined])
  })

  test('holds who else asked about the token, and no revocation of many that came when it had run out', async () => {
    const broker = await startBroker(engine)
    const [agent, spy] = [await broker.register('triage-bot'), await broker.register('spy')]
    const { token, grant } = await giveToken(broker, agent)
    await post(broker, 'introspect', { form: spy.form({ token }) })
    await post(broker, 'revoke', { form: spy.form({ token }) })
    broker.clock.advance(11 * minuteMs)
    await revoke(broker, { workload: 'triage-bot' })
    await post(broker, 'introspect', { form: spy.form({ token }) })
    const receipt = await takeReceipt(broker, grant)
    expect(typesOf(receipt)).toEqual(['grant.issued', 'introspection.refused', 'revocation.refused', 'introspection.refused'])
    expect(verifyReceipt(receipt, broker.broker.checkpointKey.verifier).unproven[0]).toContain('That the grant lived until')
  })

  test('of a grant that very many have asked about has the first, the last and the end, and says how many are left out', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { grant } = await giveToken(broker, agent)
    const asked = { type: 'introspection.refused', actor: { kind: 'workload', id: 'spy' }, workload: 'spy', grant, proof_kid: 'k' } as const
    const ask = (count: number) => Promise.all(Array.from({ length: count }, () => broker.broker.ledger.append({ events: [asked] })))
    await ask(99)
    const first = (await broker.events()).findIndex(({ type }) => type === 'grant.issued')
    const whole = await takeReceipt(broker, grant)
    expect(indexesOf(whole)).toEqual(Array.from({ length: 100 }, (_, i) => first + i))
    expect(whole).not.toHaveProperty('left_out')
    await ask(201)
    await revoke(broker, { grant })
    const end = (await broker.events()).length - 1
    await ask(400)
    const size = (await broker.events()).length
    const receipt = await takeReceipt(broker, grant)
    const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)
    expect(indexesOf(receipt)).toEqual([...range(first, first + 51), end, ...range(size - 50, size)])
    expect(receipt.left_out).toBe(size - first - 102)
    expect(verifyReceipt(receipt, broker.broker.checkpointKey.verifier).unproven[0]).toBe(`What ${size - first - 102} more entries about this grant say, which the broker has left out.`)
  })

  test('of a grant in an outside tool tells its life, whatever others have asked, and no revocation of many that came when it was over', async () => {
    const broker = await startBroker(engine)
    await broker.register('triage-bot')
    const { ledger } = broker.broker
    const grant = `grant_${'1'.padStart(26, '0')}`
    const about = { workload: 'triage-bot', grant, tool: 'tickets' } as const
    const sweep = { kind: 'stint', id: 'sweep' } as const
    const spy = { type: 'access.refused', actor: { kind: 'workload', id: 'spy' }, workload: 'spy', grant, method: 'GET', route: '/v1/grants/:grant', proof_kid: 'k' } as const
    const add = (...events: [AuditEvent, ...AuditEvent[]]) => ledger.append({ events })
    const ask = () => Promise.all(Array.from({ length: 120 }, () => add(spy)))
    await ledger.append(intentChange(grant, broker.clock.nowMs() + 10 * minuteMs))
    await ask()
    await add({ type: 'grant.activated', actor: sweep, ...about, reference: 'role_1' })
    await ask()
    broker.clock.advance(11 * minuteMs)
    await revoke(broker, { workload: 'triage-bot' })
    await add({ type: 'grant.stuck', actor: sweep, ...about, tries: 10, detail: 'It is down.' })
    await add({ type: 'grant.retried', actor: sweep, ...about, reason: 'up' })
    await ask()
    await add({ type: 'grant.ended', actor: sweep, ...about, cause: 'expired', effect: 'immediate' })
    await revoke(broker, { workload: 'triage-bot' })
    await add({ type: 'orphan.ended', actor: sweep, tool: 'tickets', grant, reference: 'role_1' })
    const receipt = await takeReceipt(broker, grant)
    const types = typesOf(receipt)
    expect(types.filter((type) => type !== 'access.refused')).toEqual(['grant.minting', 'grant.activated', 'grants.revoked', 'grant.stuck', 'grant.retried', 'grant.ended', 'orphan.ended'])
    expect([types.length, receipt.left_out, indexesOf(receipt).toSorted((a, b) => a - b)]).toEqual([107, 260, indexesOf(receipt)])
    expect(verifyReceipt(receipt, broker.broker.checkpointKey.verifier).unproven[0]).toContain('What 260 more entries about this grant say')
  })

  test('verifies at the borders of tiles, whatever the log has grown to', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const grants = new Map<number, string>()
    for (const border of [256, 512]) {
      await fillLog(broker, border - 3 - (await broker.events()).length)
      for (let i = 0; i < 6; i++) {
        const { grant } = await giveToken(broker, agent)
        grants.set((await broker.events()).length - 1, grant)
        expect(indexesOf(await takeReceipt(broker, grant))).toEqual([(await broker.events()).length - 1])
      }
    }
    expect([...grants.keys()]).toEqual([253, 254, 255, 256, 257, 258, 509, 510, 511, 512, 513, 514])
    await fillLog(broker, 255)
    await advanceCheckpoint(broker.broker)
    for (const [index, grant] of grants) expect(indexesOf(await takeReceipt(broker, grant))).toEqual([index])
    for (const [index, grant] of grants) {
      await revoke(broker, { grant })
      const end = (await broker.events()).length - 1
      expect(indexesOf(await takeReceipt(broker, grant))).toEqual([index, end])
    }
  })

  test('verifies while entries come in and two processes sign', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const beside = engine === 'postgres' ? await startBroker(engine, { beside: broker }) : broker
    const grants: string[] = []
    const write = async () => {
      for (let i = 0; i < 40; i++) {
        const { grant } = await giveToken(i % 2 === 0 ? broker : beside, agent)
        grants.push(grant)
        if (i % 3 === 0) await revoke(beside, { grant })
      }
    }
    const read = async (at: TestBroker) => {
      for (let i = 0; i < 30; i++) {
        await advanceCheckpoint(at.broker)
        const grant = grants[Math.floor(Math.random() * grants.length)]
        if (grant !== undefined) expect(typesOf(await takeReceipt(at, grant))[0]).toBe('grant.issued')
      }
    }
    await Promise.all([write(), read(broker), read(beside)])
    for (const grant of grants) expect(await takeReceipt(beside, grant)).toEqual(await takeReceipt(broker, grant))
  })

  test('is not believed under another broker\'s key, and is under the one that anybody can ask for', async () => {
    const [broker, other] = [await startBroker(engine), await startBroker(engine)]
    const { grant } = await giveToken(broker, await broker.register('triage-bot'))
    const receipt = await takeReceipt(broker, grant)
    const key = async (at: TestBroker) => parseVerifierKey((await (await at.send('GET', '/log/key')).text()).trimEnd()) as NoteVerifier
    expect(verifyReceipt(receipt, await key(broker)).ok).toBe(true)
    expect(verifyReceipt(receipt, await key(other))).toMatchObject({ ok: false, problems: [{ problem: expect.stringContaining('not signed by the key') }] })
  })

  test('has what witnesses have signed', async () => {
    const broker = await startBroker(engine)
    const { grant } = await giveToken(broker, await broker.register('triage-bot'))
    const { size, note: signed } = await advanceCheckpoint(broker.broker)
    const line = formatSignature({ name: 'witness.test', keyId: Buffer.alloc(4, 1), signature: Buffer.alloc(72, 2) })
    await commit(broker.broker, {
      apply: async (tx, { timeMs }) => (await insertCosignature(tx, size, 'witness.test', line, timeMs), { result: undefined, unrecorded: 'housekeeping' }),
    })
    expect((await takeReceipt(broker, grant)).checkpoint).toBe(signed + line)
  })

  test('goes without what no checkpoint covers while the ledger is held, and says so', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { grant } = await giveToken(broker, agent)
    await advanceCheckpoint(broker.broker)
    // The first entry that the checkpoint does not cover.
    const uncovered = await giveToken(broker, agent)
    await revoke(broker, { grant })
    broker.broker.ledger.hold('this looks like a restored backup')
    const receipt = await takeReceipt(broker, grant)
    expect([typesOf(receipt), receipt.left_out]).toEqual([['grant.issued'], 1])
    expect(broker.logLines.join('')).toContain('no checkpoint could be signed for a receipt')
    const { status, body } = await askReceipt(broker, uncovered.grant)
    expect([status, body['detail']]).toEqual([503, 'No checkpoint covers this grant yet, and none can be signed at the moment: /readyz tells why.'])
    broker.broker.ledger.release()
    expect(typesOf(await takeReceipt(broker, grant))).toEqual(['grant.issued', 'grant.revoked'])
    await takeReceipt(broker, uncovered.grant)
  })

  const hex = (bytes: Uint8Array) => (engine === 'sqlite' ? `x'${Buffer.from(bytes).toString('hex')}'` : `'\\x${Buffer.from(bytes).toString('hex')}'::bytea`)
  const neighbour = `where idx = (select idx - 1 from audit_event where type = 'grant.issued')`
  const forge = (body: string) => body.replaceAll('tickets:read', 'tickets:purge')

  test.each<[string, (body: string) => string]>([
    ['its text was changed', (body) => `update audit_event set body = '${forge(body)}' where type = 'grant.issued'`],
    ['its text and its leaf were changed', (body) => `update audit_event set body = '${forge(body)}', leaf_hash = ${hex(leafHash(Buffer.from(forge(body))))} where type = 'grant.issued'`],
    ['its neighbour was changed', () => `update audit_event set leaf_hash = ${hex(Buffer.alloc(32))} ${neighbour}`],
    ['its neighbour is gone', () => `delete from audit_event ${neighbour}`],
    ['it is gone', () => `delete from audit_event where type = 'grant.issued'`],
  ])('is not given where %s behind the broker\'s back', async (_, change) => {
    const broker = await startBroker(engine)
    const { grant } = await giveToken(broker, await broker.register('triage-bot'))
    const { entries } = await takeReceipt(broker, grant)
    await tamper(broker, change(entries[0]?.body ?? ''))
    const { status, body } = await askReceipt(broker, grant)
    expect([status, body['detail']]).toEqual([503, expect.stringContaining('The log does not fit its own checkpoint')])
    expect(JSON.stringify(body)).not.toContain('purge')
  })

  test('is there for grants that there are, by ids that are some', async () => {
    const broker = await startBroker(engine)
    const path = '/v1/audit/receipts'
    const unknown = 'grant_00000000000000000000000000'
    expect(await askReceipt(broker, unknown)).toMatchObject({ status: 404, body: { detail: `There is no grant ${unknown}.` } })
    for (const id of ['grant_1', 'bot', unknown.toUpperCase(), `${unknown}0`, '%00', 'grant_0000000000000000000000000%30']) {
      const { status, body } = await askReceipt(broker, id)
      expect([id, status]).toEqual([id, 404])
      if (id !== '%00' && !id.includes('%30')) expect(body['detail']).toContain('must be the id of a grant')
    }
    expect((await broker.sendAsAdmin('GET', `${path}/${unknown}?format=csv`)).status).toBe(400)
    expect((await broker.sendAsAdmin('POST', `${path}/${unknown}`, {})).status).toBe(405)
    const { grant } = await giveToken(broker, await broker.register('triage-bot'))
    const head = await broker.sendAsAdmin('HEAD', `${path}/${grant}`)
    expect([head.status, await head.text()]).toEqual([200, ''])
    for (const [role, status] of [['auditor', 200], ['approver', 403]] as const) {
      const response = await broker.sendAs(await broker.createOperator(role), 'GET', `${path}/${grant}`)
      expect([role, response.status]).toEqual([role, status])
    }
    expect((await broker.send('GET', `${path}/${grant}`)).status).toBe(401)
  })
})
