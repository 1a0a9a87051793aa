import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import SqliteDatabase from 'better-sqlite3'
import pg from 'pg'
import { expect, test } from 'vitest'
import { createHttpAnchor } from '../../src/connectors/anchors/http.ts'
import { createWitnessAnchor } from '../../src/connectors/anchors/witness.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { startAnchorServer } from '../anchor-server.ts'
import { getToken, startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { startCompanyIssuer } from '../company-issuer.ts'
import { createTestClock, describeEngines, describePostgres, type TestDatabase } from '../harness.ts'
import { answerOf } from '../http/admin-requests.ts'
import { makeCode, proofForCode, redeem } from '../http/proofs.ts'
import { note, openLedger } from '../storage/changes.ts'
import { startWitness } from '../witness.ts'
import { createAnchorFile, reopen, restore, runJobs } from './restored-broker.ts'

interface Anchors {
  readonly log_size: number
  readonly held: boolean
  readonly anchors: readonly { readonly anchor: string; readonly contradiction?: { readonly size: number; readonly root?: string; readonly why: string } }[]
}

const ask = async (broker: TestBroker, agent: TestAgent, assertion = agent.assert()) =>
  broker.send('POST', '/oauth2/token', { form: { ...agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' }), client_assertion: assertion } })
const statusOf = async (broker: TestBroker, agent: TestAgent, assertion?: string) => (await ask(broker, agent, assertion)).status
const readAnchors = async (broker: TestBroker) => (await answerOf(await broker.sendAsAdmin('GET', '/v1/log/anchors'))).body as unknown as Anchors

/** What an admin gives up, as the broker shows it. */
async function readAbandoned(broker: TestBroker) {
  const { anchors } = await readAnchors(broker)
  return anchors.flatMap(({ anchor, contradiction }) => (contradiction === undefined ? [] : [{ anchor, size: contradiction.size, ...(contradiction.root !== undefined && { root: contradiction.root }) }]))
}

async function accept(broker: TestBroker, abandoned?: unknown) {
  const body = { reason: 'the disk failed', abandoned: abandoned ?? (await readAbandoned(broker)) }
  return answerOf(await broker.sendAsAdmin('POST', '/v1/log/accept', body))
}

/** A backup, restored under a broker: an agent, what it has from before, and the assertions that were used in what is lost. */
async function restoreWithAgent(engine: Engine) {
  const { file, anchor } = createAnchorFile()
  const before = async (broker: TestBroker) => {
    const agent = await broker.register('bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read', resource: 'https://tickets.test' })
    return { agent, token, used: agent.assert() }
  }
  const { broker, kept, gone, lostEvents, backup } = await restore(
    engine,
    [anchor],
    before,
    async (lost, { agent }) => {
      const nowSeconds = Math.floor(lost.clock.nowMs() / 1000)
      const assertions = {
        plain: agent.assert({ exp: nowSeconds + 300 }),
        'by a clock that is ahead': agent.assert({ iat: nowSeconds + 5, exp: nowSeconds + 300 }),
        'without iat': agent.assert({ iat: undefined, exp: nowSeconds + 295 }),
      }
      for (const assertion of Object.values(assertions)) expect(await statusOf(lost, agent, assertion)).toBe(200)
      await lost.sendAsAdmin('POST', '/v1/workloads/bot/suspend', {})
      return assertions
    },
    { file },
  )
  return { broker, file, anchor, agent: kept.agent, token: kept.token, assertions: gone, lostEvents, backup }
}

describeEngines('A broker on a restored backup', (engine) => {
  test('gives nothing out, says why, lets operators look, and stays quiet', async () => {
    const { broker, agent, token, lostEvents } = await restoreWithAgent(engine)
    const there = (await broker.events()).length
    expect(broker.broker.ledger.held).toMatch(new RegExp(`has a checkpoint of ${lostEvents.length} entries, and this log has ${there}: this looks like a restored backup`))
    expect(await statusOf(broker, agent)).toBe(503)
    expect((await broker.send('POST', '/oauth2/introspect', { form: agent.form({ token }) })).status).toBe(503)
    expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/suspend', {})).status).toBe(503)
    expect((await broker.sendAsAdmin('GET', '/v1/workloads/bot')).status).toBe(200)
    const ready = await broker.send('GET', '/readyz')
    expect([ready.status, ((await ready.json()) as { parts: { log: string } }).parts.log]).toEqual([503, expect.stringMatching(/^held: .*stint audit accept-restored$/)])
    expect(await (await broker.sendAsAdmin('GET', '/metrics')).text()).toMatch(/^stint_log_halted 1$/m)
    const { checkpoint } = await broker.broker.database.read.selectFrom('checkpoint').select((eb) => eb.fn.max('size').as('checkpoint')).executeTakeFirstOrThrow()
    const [told] = [broker.logLines.length]
    for (let i = 0; i < 30; i++) await runJobs(broker)
    expect(broker.logLines.slice(told)).toEqual([])
    expect(broker.logLines.filter((line) => line.includes('"error"') && line.includes('nothing is issued'))).toHaveLength(1)
    expect((await broker.broker.database.read.selectFrom('checkpoint').select('size').execute()).every(({ size }) => size <= checkpoint)).toBe(true)
    expect(await broker.events()).toHaveLength(there)
    // Also when it is stopped: nothing is signed for what may not be this log.
    await broker.close()
  })

  test('signs nothing of it at its start, also where the backup has entries that no checkpoint has', async () => {
    const { broker, agent, anchor, backup } = await restoreWithAgent(engine)
    await broker.close()
    const database = await backup.open()
    await openLedger(database).ledger.append({ events: [note()] })
    await database.close()
    const again = await reopen(engine, broker, backup, { anchors: [anchor] })
    const signed = async () => (await again.broker.database.read.selectFrom('checkpoint').select('size').execute()).map(({ size }) => size)
    const there = (await again.events()).length
    expect(again.broker.ledger.held).toContain(`and this log has ${there}: this looks like a restored backup`)
    await runJobs(again)
    expect(Math.max(...(await signed()))).toBe(there - 1)
    expect((await accept(again)).status).toBe(200)
    await runJobs(again)
    expect(await signed()).toContain((await again.events()).length)
    again.clock.advance(5_000)
    expect(await statusOf(again, agent)).toBe(200)
  })

  test('goes on once an admin has accepted exactly what is lost, in one change', async () => {
    const { broker, file, anchor, agent, token, lostEvents } = await restoreWithAgent(engine)
    const there = (await broker.events()).length
    const [abandoned] = await readAbandoned(broker)
    expect(abandoned).toEqual({ anchor: anchor.name, size: lostEvents.length, root: expect.stringMatching(/^\S{44}$/) })
    // Not by one who was shown something else, and not by who may not.
    for (const wrong of [[{ ...abandoned, size: 1 }], [{ ...abandoned, root: 'A'.repeat(43) + '=' }], [abandoned, abandoned], [{ anchor: anchor.name, size: abandoned?.size }]]) {
      expect(await accept(broker, wrong)).toMatchObject({ status: 409, body: { detail: expect.stringContaining('That is not what holds the log') } })
    }
    expect(await broker.events()).toHaveLength(there)

    const { status, body, index } = await accept(broker)
    expect([status, index]).toEqual([200, String(there)])
    expect(body).toMatchObject({ log_size: there, abandoned: [abandoned], ended_sessions: 0, cancelled_enrolments: 0, audit_index: there })
    const events = (await broker.events()).slice(there)
    expect(events).toMatchObject([
      { type: 'log.restored', index: there, abandoned: [abandoned], reason: 'the disk failed', proofs_from: body['proofs_from'], actor: { kind: 'operator' } },
      { type: 'key.created', use: 'token', kid: body['kid'] },
      { type: 'key.replaced', successor: body['kid'] },
    ])
    expect(broker.broker.ledger.held).toBeUndefined()
    expect((await broker.send('GET', '/readyz')).status).toBe(200)
    // Twice is once.
    expect(await accept(broker, [abandoned])).toMatchObject({ status: 409, body: { detail: 'There is nothing to accept: the log is not held.' } })

    broker.clock.advance(6_000)
    const asker = agent.form({ token })
    expect(await (await broker.send('POST', '/oauth2/introspect', { form: asker })).json()).toEqual({ active: false })
    expect(await statusOf(broker, agent)).toBe(200)
    await runJobs(broker)
    // From now on the file leads on from here, and a restart is one like any other.
    expect((await anchor.last())?.note).toMatch(new RegExp(`^stint\\.test/log\n${(await broker.events()).length}\n`))
    expect(readFileSync(file, 'utf8')).toContain(`\n${lostEvents.length}\n${abandoned?.root}\n`)
    await broker.close()
    const again = await reopen(engine, broker, broker.database, { anchors: [anchor] })
    expect(again.broker.ledger.held).toBeUndefined()
    expect(await statusOf(again, agent)).toBe(200)
  })

  test('refuses what was signed before, also with the clock set back, and good assertions for five seconds', async () => {
    const { broker, agent, assertions, anchor } = await restoreWithAgent(engine)
    expect((await accept(broker)).status).toBe(200)
    const acceptedMs = broker.clock.nowMs()
    const replays = async (one = broker) => Promise.all(Object.values(assertions).map((assertion) => statusOf(one, agent, assertion)))
    expect(await replays()).toEqual([401, 401, 401])
    // The seconds in which a clock that is ahead may have signed.
    broker.clock.set(acceptedMs + 5_000)
    expect(await statusOf(broker, agent)).toBe(401)
    broker.clock.set(acceptedMs + 6_000)
    expect(await statusOf(broker, agent)).toBe(200)
    expect(await replays()).toEqual([401, 401, 401])
    await broker.broker.refusals.flush(true)
    const refused = (await broker.events()).filter((event) => event.type === 'authentication.refused')
    expect(refused).toMatchObject([{ reason: 'before_restore', count: 7, claimed: { bot: 7 } }])

    broker.clock.set(acceptedMs - 60_000)
    expect(await replays()).toEqual([401, 401, 401])
    await broker.close()
    const again = await reopen(engine, broker, broker.database, { anchors: [anchor] })
    expect(await replays(again)).toEqual([401, 401, 401])
  })

  test('whose clock was behind what is lost when it was accepted refuses what was signed until then', async () => {
    const { broker: first, agent, anchor, backup, assertions } = await restoreWithAgent(engine)
    await first.close()
    const lostMs = first.clock.nowMs()
    first.clock.advance(-3_600_000)
    // The ledger's time is now that of the backup.
    const broker = await reopen(engine, first, backup, { anchors: [anchor] })
    const { body } = await accept(broker)
    expect(Date.parse(String(body['proofs_from']))).toBeGreaterThan(broker.broker.ledger.nowMs())
    for (const assertion of Object.values(assertions)) expect(await statusOf(broker, agent, assertion)).toBe(401)
    broker.clock.set(lostMs + 10_000)
    for (const assertion of Object.values(assertions)) expect(await statusOf(broker, agent, assertion)).toBe(401)
    expect(await statusOf(broker, agent)).toBe(200)
  })

  test('ends the sessions and the codes that were open, and knows neither ID tokens nor codes of before', async () => {
    const clock = createTestClock()
    const company = await startCompanyIssuer(clock)
    const { file, anchor } = createAnchorFile()
    const signIn = async (broker: TestBroker, idToken: string) => answerOf(await broker.send('POST', '/v1/sessions', { json: { id_token: idToken } }))
    const { broker, kept, gone } = await restore(
      engine,
      [anchor],
      async (first) => {
        await first.register('bot')
        const { body } = await signIn(first, await company.sign())
        return { session: String(body['credential']), ...(await makeCode(first)) }
      },
      async (lost) => {
        const idToken = await company.sign()
        expect((await signIn(lost, idToken)).status).toBe(201)
        return { idToken, ahead: await company.sign({ iat: Math.floor(clock.nowMs() / 1000) + 30, nonce: 'x' }) }
      },
      { file, signIn: company.settings, clock },
    )
    // While it is held, a session may be one that has ended since.
    expect((await broker.sendAs(kept.session, 'GET', '/v1/workloads')).status).toBe(401)
    expect((await signIn(broker, gone.idToken)).status).toBe(503)
    const { body } = await accept(broker)
    expect(body).toMatchObject({ ended_sessions: 1, cancelled_enrolments: 1 })
    const events = (await broker.events()).slice(Number(body['audit_index']))
    expect(events.map(({ type }) => type)).toEqual(['log.restored', 'key.created', 'key.replaced', 'enrolment.cancelled', 'operator.signed_out'])
    expect(events.slice(3)).toMatchObject([{ workload: 'bot', enrolment: kept.enrolment }, { subject: 'ada-1815', reason: 'the log was restored' }])
    expect((await broker.sendAs(kept.session, 'GET', '/v1/workloads')).status).toBe(401)
    const agent = await broker.register('bob')
    expect((await redeem(broker, kept.code, proofForCode(broker, agent, kept.code))).status).toBe(401)
    expect([(await signIn(broker, gone.idToken)).status, (await signIn(broker, gone.ahead)).status]).toEqual([401, 401])
    clock.advance(60_000)
    expect((await signIn(broker, gone.ahead)).status).toBe(401)
    expect((await signIn(broker, await company.sign())).status).toBe(201)
    await broker.broker.refusals.flush(true)
    expect((await broker.events()).filter((event) => event.type === 'authentication.refused' && event.realm === 'sign_in')).toMatchObject([
      { reason: 'id_token_before_restore', count: 2 },
      { reason: 'id_token_before_restore', count: 1 },
    ])
  })

  test.each(['signing_key update', 'signing_key insert', 'enrolment update', 'audit_event insert', 'log_head update'])('accepts nothing by halves: an acceptance that fails at %s leaves all as it was', async (at) => {
    const { file, anchor } = createAnchorFile()
    const { broker } = await restore(
      engine,
      [anchor],
      async (first) => {
        await first.register('bot')
        return makeCode(first)
      },
      (lost) => lost.register('bob'),
      { file },
    )
    const state = async () => {
      const { read } = broker.broker.database
      return Promise.all([broker.events(), read.selectFrom('signing_key').selectAll().orderBy('kid').execute(), read.selectFrom('enrolment').selectAll().execute()])
    }
    const before = await state()
    const [table = '', statement = ''] = at.split(' ')
    await breakTable(broker.database, table, statement)
    expect((await accept(broker)).status).toBeGreaterThanOrEqual(500)
    expect(await state()).toEqual(before)
    expect(broker.broker.ledger.held).toBeDefined()
    await mendTable(broker.database, table)
    expect((await accept(broker)).status).toBe(200)
  })

  test('that was killed right behind the acceptance starts like any other', async () => {
    const { broker, file, anchor, agent } = await restoreWithAgent(engine)
    const kept = readFileSync(file)
    expect((await accept(broker)).status).toBe(200)
    await broker.close()
    // What the anchor would have if nothing had come to it since.
    writeFileSync(file, kept)
    const again = await reopen(engine, broker, broker.database, { anchors: [anchor] })
    expect(again.broker.ledger.held).toBeUndefined()
    broker.clock.advance(6_000)
    expect(await statusOf(again, agent)).toBe(200)
    await runJobs(again)
    expect((await anchor.last())?.note).toContain(`\n${(await again.events()).length}\n`)
  })

  test('that was accepted once is held again by anything else', async () => {
    const { broker, file, anchor, backup, lostEvents } = await restoreWithAgent(engine)
    expect((await accept(broker)).status).toBe(200)
    await runJobs(broker)
    const [{ checkpointKey }, size] = [broker.broker, (await broker.events()).length]
    await broker.close()
    // Larger, smaller, and of the size that was accepted, but not the same.
    for (const other of [size + 5, size - 1, lostEvents.length]) {
      writeFileSync(file, checkpointKey.sign({ size: other, root: Buffer.alloc(32, 1) }))
      const again = await reopen(engine, broker, backup, { anchors: [anchor] })
      expect(again.broker.ledger.held).toBeDefined()
      await again.close()
    }
  })
})

describeEngines('What an anchor has', (engine) => {
  test('is not this log where its newest checkpoint was edited, and an earlier one passes: the file is as good as its disk', async () => {
    const { file, anchor } = createAnchorFile()
    const broker = await startBroker(engine, { anchors: [anchor] })
    await broker.register('bot')
    await runJobs(broker)
    await broker.close()
    const text = readFileSync(file, 'utf8')
    const notes = text.split(/(?<=\n)\n(?=stint)/)
    const size = Number(notes.at(-1)?.split('\n')[1])
    const cases: readonly (readonly [string, string, RegExp | undefined])[] = [
      ['a larger size', text.replace(`\n${size}\n`, `\n${size + 9}\n`), /that the key of this log has not signed: this is not the log that was anchored/],
      ['a smaller size', text.replace(`\n${size}\n`, `\n${size - 1}\n`), /which this log does not go on from: this is not the log that was anchored/],
      ['another origin', text.replaceAll('stint.test/log', 'other.test/log'), /has checkpoints of another log, other\.test\/log/],
      ['its newest note taken away', notes.slice(0, -1).join('\n'), undefined],
    ]
    for (const [what, content, held] of cases) {
      writeFileSync(file, content)
      const again = await reopen(engine, broker, broker.database, { anchors: [anchor] })
      if (held === undefined) expect(again.broker.ledger.held, what).toBeUndefined()
      else expect(again.broker.ledger.held, what).toMatch(held)
      await again.close()
    }
  })

  test('of another broker holds this one, and is not written to even if that is accepted', async () => {
    const { file, anchor } = createAnchorFile()
    const other = await startBroker(engine, { anchors: [anchor] })
    await runJobs(other)
    await other.close()
    const text = readFileSync(file, 'utf8').replaceAll('stint.test/log', 'other.test/log')
    writeFileSync(file, text)
    const broker = await startBroker(engine)
    const agent = await broker.register('bot')
    await broker.close()
    const held = await reopen(engine, broker, broker.database, { anchors: [anchor] })
    expect(held.broker.ledger.held).toMatch(/another log, other\.test\/log: correct anchors/)
    expect((await accept(held)).status).toBe(200)
    await held.close()
    const again = await reopen(engine, broker, broker.database, { anchors: [anchor] })
    again.clock.advance(300_000)
    // The file's time is the machine's, which is far from the test's.
    expect(again.broker.ledger.held).toBeUndefined()
    expect(await statusOf(again, agent)).toBe(401)
    await runJobs(again)
    expect(readFileSync(file, 'utf8')).toBe(text)
    expect((await readAnchors(again)).anchors).toMatchObject([{ failure: expect.stringContaining('correct anchors') }])
  })

  test('of this trust domain, of a database that was since begun anew, holds the new one', async () => {
    const { anchor } = createAnchorFile()
    const old = await startBroker(engine, { anchors: [anchor] })
    await old.close()
    const fresh = await startBroker(engine)
    for (const name of ['a', 'b', 'c']) {
      await fresh.close()
      const held = await reopen(engine, fresh, fresh.database, { anchors: [anchor] })
      expect(held.broker.ledger.held, name).toMatch(/this is not the log that was anchored/)
      await held.close()
      // Also once it has as many entries.
      const grown = await reopen(engine, fresh, fresh.database, {})
      await grown.register(name)
      await grown.close()
    }
  })

  test('is judged for each anchor: one that lost all and one that is ahead', async () => {
    const server = await startAnchorServer()
    const { file, anchor } = createAnchorFile()
    const anchors = [anchor, createHttpAnchor({ url: server.url })]
    const { broker } = await restore(engine, anchors, (first) => first.register('bot'), async (lost) => {
      await lost.register('bob')
      await runJobs(lost)
      rmSync(file)
    })
    expect(await readAnchors(broker)).toMatchObject({
      held: true,
      anchors: [{ anchor: anchor.name, behind_entries: 0 }, { kind: 'http', contradiction: { why: expect.stringContaining('this looks like a restored backup') } }],
    })
    expect((await accept(broker)).status).toBe(200)
    await runJobs(broker)
    const [kept, posted] = [(await anchor.last())?.note, server.notes.at(-1)]
    expect([kept, posted]).toEqual([expect.stringContaining(`\n${(await broker.events()).length}\n`), kept])
  })

  test('as a witness, is only its word: an alarm, and it signs no more until it has forgotten the log', async () => {
    const witness = await startWitness()
    const anchors = [createWitnessAnchor({ url: witness.url, key: witness.key })]
    const { broker } = await restore(
      engine,
      anchors,
      async (first) => {
        witness.trust(first.broker.checkpointKey.verifierKey)
        return first.register('bot')
      },
      (lost) => lost.register('bob'),
    )
    expect(broker.broker.ledger.held).toBeUndefined()
    const size = witness.seen.get('stint.test/log')?.size
    expect((await readAnchors(broker)).anchors).toMatchObject([{ failure: expect.stringContaining(`has signed ${size} entries, and this log has ${(await broker.events()).length}. If that is true, this is a restored backup`) }])
    for (const name of ['a', 'b', 'c', 'd']) await broker.register(name)
    await runJobs(broker)
    expect((await readAnchors(broker)).anchors).toMatchObject([{ failure: expect.stringContaining('If the log was restored and that was accepted, ask who runs the witness to forget it') }])
    await broker.close()
    const again = await reopen(engine, broker, broker.database, { anchors })
    expect(again.broker.ledger.held).toBeUndefined()
    // Once it has forgotten the log, it begins anew.
    witness.seen.clear()
    await runJobs(again)
    expect(witness.seen.get('stint.test/log')?.size).toBe((await again.events()).length)
  })
})

describePostgres('Two processes on a restored backup', (engine) => {
  test('go on by one acceptance, and a restored log is accepted once', async () => {
    const { broker, anchor, agent } = await restoreWithAgent(engine)
    const two = await startBroker(engine, { beside: broker, anchors: [anchor] })
    const bare = await startBroker(engine, { beside: broker })
    expect([two.broker.ledger.held, bare.broker.ledger.held]).toEqual([broker.broker.ledger.held, undefined])
    const abandoned = await readAbandoned(broker)
    const both = await Promise.all([accept(broker, abandoned), accept(two, abandoned)])
    expect(both.map(({ status }) => status).toSorted()).toEqual([200, 409])
    expect((await broker.events()).filter(({ type }) => type === 'log.restored')).toHaveLength(1)
    await runJobs(broker)
    broker.clock.advance(1_000)
    await two.scheduler.tick()
    expect(two.broker.ledger.held).toBeUndefined()
    broker.clock.advance(6_000)
    for (const one of [broker, two, bare]) expect(await statusOf(one, agent)).toBe(200)
  })
})

/** Makes the database itself fail a statement, as a fault of its own would. */
async function breakTable({ engine, ownerLocation }: TestDatabase, table: string, statement: string): Promise<void> {
  const name = `broken_${table}`
  if (engine === 'sqlite') {
    const handle = new SqliteDatabase(ownerLocation)
    handle.exec(`create trigger ${name} before ${statement} on ${table} begin select raise(abort, 'broken by the test'); end`)
    handle.close()
    return
  }
  await runAsTablesOwner(ownerLocation, `create function ${name}() returns trigger language plpgsql as $$ begin raise exception 'broken by the test'; end $$`)
  await runAsTablesOwner(ownerLocation, `create trigger ${name} before ${statement} on ${table} for each row execute function ${name}()`)
}

async function mendTable({ engine, ownerLocation }: TestDatabase, table: string): Promise<void> {
  const drop = `drop trigger broken_${table}`
  if (engine === 'postgres') return runAsTablesOwner(ownerLocation, `${drop} on ${table}`)
  const handle = new SqliteDatabase(ownerLocation)
  handle.exec(drop)
  handle.close()
}

async function runAsTablesOwner(url: string, statement: string): Promise<void> {
  const owner = new pg.Client({ connectionString: url })
  await owner.connect()
  await owner.query(statement)
  await owner.end()
}
