import { describe, expect, test } from 'vitest'
import { endTriesMax } from '../../src/grant/lifetime.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { startBroker, type TestAgent, type TestBroker } from '../broker.ts'
import { admin, ask, call, exhaustTries, lend, lifeOf, minuteMs, passTime, type Answer, type Lent } from '../broker/lending.ts'
import { dumpDatabase, readFiles } from '../canary/places.ts'
import { search, watch } from '../canary/secrets.ts'
import { createTestClock, type TestClock } from '../harness.ts'
import { readExposition } from '../telemetry/exposition.ts'

/** What the author of a connector brings: a real tool, a request to it, and what is done with what it gives. */
export interface Subject {
  /** The tool's name and its catalog file; its `ttl` is `{ default: 10m, max: 1h }`. */
  readonly tool: string
  readonly file: string
  /** Where the root credential is read from, and the secrets in it, which must show nowhere. */
  readonly env: Readonly<Record<string, string>>
  readonly rootSecrets: readonly string[]
  /** An action that is allowed and a target, where the tool has any; further actions stay unasked for. */
  readonly actions: readonly string[]
  readonly target?: string
  readonly effect: Lent['ends']['effect']
  /** How long the tool takes to carry out everywhere what it has confirmed, where that is known. */
  readonly delaySeconds?: number
  /** Whether the tool by itself lets what is lent for five minutes live for longer. */
  readonly outlives?: boolean
  /** Does something with the credential in the tool itself, as its clients would; whether that worked. */
  use(lent: Lent, broker: TestBroker): Promise<boolean>
  /** The same with something that the actions do not allow. */
  useMore(lent: Lent, broker: TestBroker): Promise<boolean>
  /** The parts of the credential that are secret. */
  secretsOf(lent: Lent): readonly string[]
  /** How the tool stops doing what it is asked, and does it again; absent where Stint is the tool. */
  readonly outage?: { begin(): Promise<void> | void; end(): Promise<void> | void }
  /** What lives in the tool of this broker's making, by its own word; absent where it cannot say. */
  readonly countMade?: (broker: TestBroker) => Promise<number>
  /** Whether a broker finds in the tool what it made there. */
  readonly lists: boolean
  /** What a broker needs beside its environment before it can lend. */
  readonly furnish?: (broker: TestBroker) => Promise<void>
  /** Replaces the value that is lent, where that alone ends what was lent: every end waits for it. */
  readonly replace?: (broker: TestBroker) => Promise<void>
}

/** Starts what the subject needs; gone after the test. Time in the tool is the clock's, as far as it can be moved. */
export type Prepare = (clock: TestClock) => Promise<Subject>

interface Stage extends Subject {
  readonly broker: TestBroker
  readonly agent: TestAgent
  readonly wish: Readonly<Record<string, unknown>>
  readonly files: ReadonlyMap<string, string>
  /** Lends and sees that it works. */
  lendGood(wish?: Readonly<Record<string, unknown>>): Promise<Lent>
  look(lent: Pick<Lent, 'grant'>): Promise<Answer['body']>
  revoke(selector: unknown): Promise<Answer>
}

const rules = `@id("support-works")
permit (principal in Team::"support", action, resource);
`

async function setUp(engine: Engine, prepare: Prepare): Promise<Stage> {
  const clock = createTestClock()
  const subject = await prepare(clock)
  const { tool, file, env, actions, target } = subject
  const files = new Map([[`tools/${tool}.yaml`, file], ['rules.cedar', rules]])
  const broker = await startBroker(engine, { testClock: clock, env, policies: files })
  await subject.furnish?.(broker)
  const agent = await broker.register('bot')
  const wish = { tool, actions, ...(target !== undefined && { target }) }
  return {
    ...subject,
    broker,
    agent,
    wish,
    files,
    async lendGood(more) {
      const lent = await lend(broker, agent, { ...wish, ...more })
      expect(await subject.use(lent, broker)).toBe(true)
      return lent
    },
    look: async ({ grant }) => (await call(broker, agent, 'GET', `/v1/grants/${grant}`)).body,
    revoke: (selector) => admin(broker, 'POST', '/v1/revocations', selector),
  }
}

/** Whether the promise of the effect is that a revoked credential is dead as soon as that is answered. */
function isAtOnce({ effect, replace }: Pick<Subject, 'effect' | 'replace'>): boolean {
  // The tool of a test does at once what the real one does within its delay.
  return effect === 'immediate' || effect === 'introspection' || (effect === 'propagating' && replace === undefined)
}

/** What is said of an end that cannot be had at once. */
function lateOutcome({ replace }: Pick<Subject, 'replace'>): string {
  return replace === undefined ? 'lives_until' : 'retrying'
}

/** Replaces what was lent, and lets the time pass until that is seen at the latest. */
async function replaceAll({ replace, broker }: Stage): Promise<void> {
  await replace?.(broker)
  await passTime(broker, 25 * 60 * minuteMs)
}

/** Beyond every wait between two tries to end something, and beyond every lease. */
const patienceMs = 11 * minuteMs

/** What must hold for every connector, against the real thing, through the HTTP API of a real broker. */
export function describeConnector(kind: string, prepare: Prepare, engine: Engine = 'sqlite'): void {
  const stage = () => setUp(engine, prepare)
  describe(`The connector ${kind} on ${engine}`, () => {
    test('gives a credential that works for what was asked, and for nothing more', async () => {
      const { broker, look, lendGood, useMore, tool, actions, target, effect, delaySeconds, outlives } = await stage()
      const lent = await lendGood({ task: 'ticket-7', ttl_seconds: 300, reason: 'a contract' })
      expect(await useMore(lent, broker)).toBe(false)
      expect(lent).toEqual({
        grant: expect.stringMatching(/^grant_[0-9a-z]{26}$/),
        tool,
        actions: actions.map((action) => `${tool}:${action}`),
        ...(target !== undefined && { target }),
        task: 'ticket-7',
        state: 'active',
        issued_at: '2026-01-15T12:00:00.000Z',
        expires_at: '2026-01-15T12:05:00.000Z',
        ends: { effect, ...(delaySeconds !== undefined && { delay_seconds: delaySeconds }), ...(outlives === true && { tool_ends_at: expect.any(String) }), meaning: expect.any(String) },
        credential: expect.any(Object),
        environment: expect.any(Object),
        conceals: lent.conceals,
        audit_index: expect.any(Number),
      })
      expect(Object.values(lent.credential).every((value) => typeof value === 'string' || typeof value === 'number')).toBe(true)
      expect(Object.entries(lent.environment).every(([name, value]) => /^[A-Z_][A-Z0-9_]*$/.test(name) && typeof value === 'string')).toBe(true)
      expect((lent.conceals ?? []).filter((name) => !/^[A-Z_][A-Z0-9_]*$/.test(name) || name in lent.environment)).toEqual([])
      // Recorded before it was given (invariant 1), and the record is the one that the answer names.
      const [recorded] = (await broker.events()).filter(({ index }) => index === lent.audit_index)
      expect(recorded).toMatchObject({ type: expect.stringMatching(/^grant\.(?:issued|activated)$/), grant: lent.grant })
      expect(await look(lent)).toMatchObject({ state: 'active', workload: 'bot', expires_at: lent.expires_at })
    })

    test('finds nothing to object to in the tool', async () => {
      const { broker, tool } = await stage()
      const { status, body } = await admin(broker, 'POST', `/v1/tools/${tool}/check`)
      expect(status).toBe(200)
      expect(body.findings.length).toBeGreaterThan(0)
      expect(body.findings.filter(({ ok }: { readonly ok: boolean }) => !ok)).toEqual([])
      expect(body.ok).toBe(true)
    })

    test('says of a credential that is given back when it opens nothing any more, and keeps its word', async () => {
      const subject = await stage()
      const { broker, agent, use, look, lendGood } = subject
      const lent = await lendGood()
      const { status, body } = await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)
      expect(status).toBe(200)
      if (isAtOnce(subject)) {
        expect(body).toMatchObject({ outcome: 'revoked', effect: subject.effect })
        expect(await use(lent, broker)).toBe(false)
        expect(await look(lent)).toMatchObject({ state: 'revoked' })
      } else if (subject.replace !== undefined) {
        expect(body).toMatchObject({ outcome: 'retrying', effect: subject.effect, problem: expect.stringContaining('until it is replaced') })
        expect([await use(lent, broker), await look(lent)]).toEqual([true, expect.objectContaining({ state: 'ending', tries: 0, problem: body.problem, next_try_at: expect.any(String) })])
        // However long that takes: nobody has to be called for it.
        for (let hours = 0; hours < 30; hours++) await passTime(broker, 61 * minuteMs)
        expect(await look(lent)).toMatchObject({ state: 'ending', tries: 0 })
        await replaceAll(subject)
        expect([await use(lent, broker), (await look(lent)).state]).toEqual([false, 'revoked'])
        expect(await broker.lastEvent('grant.ended')).toMatchObject({ grant: lent.grant, cause: 'revoked', effect: subject.effect })
      } else {
        expect(body).toMatchObject({ outcome: 'lives_until', effect: subject.effect, until: expect.any(String) })
        expect(await look(lent)).toMatchObject({ state: 'ending', may_live_until: body.until })
        expect(await broker.lastEvent('grant.outlives')).toMatchObject({ may_live_until: body.until })
      }
    })

    test('ends what is given back twice, late and by many at once exactly once', async () => {
      const subject = await stage()
      const { broker, agent, use, lendGood, revoke } = subject
      const lent = await lendGood()
      const release = () => call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)
      const answers = await Promise.all([release(), revoke({ grant: lent.grant }), release(), release(), revoke({ workload: 'bot' })])
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
      const late = await release()
      expect(late).toMatchObject({ status: 200, body: { outcome: isAtOnce(subject) ? 'already_ended' : lateOutcome(subject) } })
      if (isAtOnce(subject)) expect(await use(lent, broker)).toBe(false)
      const life = await lifeOf(broker, lent.grant)
      expect(life.filter((type) => type === 'grant.revoked').length).toBeLessThanOrEqual(1)
      expect(life.filter((type) => type === 'grant.ended').length).toBe(subject.outage === undefined || !isAtOnce(subject) ? 0 : 1)
    })

    test('lets a credential end by the clock, with nobody asking', async () => {
      const subject = await stage()
      const { broker, use, look, lendGood } = subject
      const lent = await lendGood({ ttl_seconds: 60 })
      await passTime(broker, 59_000)
      expect([await use(lent, broker), (await look(lent)).state]).toEqual([true, 'active'])
      await passTime(broker, 1_000)
      if (subject.replace !== undefined) {
        expect([await use(lent, broker), (await look(lent)).state]).toEqual([true, 'ending'])
        await replaceAll(subject)
      } else if (!isAtOnce(subject)) return expect(await look(lent)).toMatchObject({ state: 'ending', may_live_until: expect.any(String) })
      expect([await use(lent, broker), (await look(lent)).state]).toEqual([false, 'expired'])
      if (subject.outage !== undefined || subject.replace !== undefined) expect(await broker.lastEvent('grant.ended')).toMatchObject({ grant: lent.grant, cause: 'expired', effect: subject.effect })
    })

    test('ends what a revocation names, and tells of each', async () => {
      const subject = await stage()
      const { broker, use, lendGood, revoke, tool, effect } = subject
      const selectors: readonly ((lent: Lent) => object)[] = [
        ({ grant }) => ({ grant }),
        () => ({ workload: 'bot' }),
        () => ({ owner: 'support' }),
        () => ({ tool }),
        () => ({ task: 'ticket-7' }),
        () => ({ task: 'ticket-7', workload: 'bot', tool }),
        () => ({ before: formatTime(broker.clock.nowMs() - 1_000) }),
        () => ({ workload: 'bot', suspend: true }),
      ]
      for (const select of selectors) {
        const lent = await lendGood({ task: 'ticket-7' })
        broker.clock.advance(2_000)
        const selector = select(lent)
        const { status, body } = await revoke({ ...selector, reason: 'a contract' })
        expect([status, body.revoked, body.more], JSON.stringify(selector)).toEqual([200, 1, false])
        const outcome = isAtOnce(subject) ? 'revoked' : lateOutcome(subject)
        expect(body.grants.find(({ grant }: Lent) => grant === lent.grant)).toMatchObject({ workload: 'bot', tool, outcome, effect })
        if (isAtOnce(subject)) expect(await use(lent, broker), JSON.stringify(selector)).toBe(false)
      }
    })

    test('leaves alive what a revocation does not name', async () => {
      const { broker, use, lendGood, revoke, agent } = await stage()
      await broker.register('other', { team: 'finance' })
      const lent = await lendGood({ task: 'ticket-7' })
      const answers = [
        await revoke({ grant: `${lent.grant.slice(0, -1)}${lent.grant.endsWith('0') ? '1' : '0'}` }),
        await revoke({ workload: 'other' }),
        await revoke({ workload: 'other', suspend: true }),
        await revoke({ owner: 'finance' }),
        await revoke({ tool: 'elsewhere' }),
        await revoke({ task: 'ticket-8' }),
        await revoke({ before: '2026-01-15T11:59:59Z' }),
        await call(broker, agent, 'POST', '/v1/tasks/ticket-8/complete'),
      ]
      expect(answers.map(({ status }) => status)).toEqual([404, 200, 200, 200, 404, 200, 200, 200])
      await passTime(broker, 5_000)
      expect(await use(lent, broker)).toBe(true)
    })

    test('ends what a workload still has that is suspended', async () => {
      const subject = await stage()
      const { broker, use, lendGood } = subject
      const lent = await lendGood()
      expect((await admin(broker, 'POST', '/v1/workloads/bot/suspend', { reason: 'a contract' })).status).toBe(200)
      await passTime(broker, 1_000)
      if (isAtOnce(subject)) expect(await use(lent, broker)).toBe(false)
      const state = (await admin(broker, 'GET', `/v1/grants/${lent.grant}`)).body.state
      // Nobody but whoever asks Stint learns of a signed token, and is told: so it need not be revoked.
      if (subject.outage !== undefined) expect(state).toBe(isAtOnce(subject) ? 'revoked' : 'ending')
    })

    test('ends all that was lent for a task that is complete, and nothing else', async () => {
      const subject = await stage()
      const { broker, agent, use, lendGood } = subject
      const [one, two, other] = [await lendGood({ task: 'ticket-7' }), await lendGood({ task: 'ticket-7' }), await lendGood({ task: 'ticket-8' })]
      const { status, body } = await call(broker, agent, 'POST', '/v1/tasks/ticket-7/complete')
      expect(status).toBe(200)
      const outcome = isAtOnce(subject) ? 'revoked' : lateOutcome(subject)
      const outcomes = Object.fromEntries(body.grants.map((answer: { readonly grant: string; readonly outcome: string }) => [answer.grant, answer.outcome]))
      expect(outcomes).toEqual({ [one.grant]: outcome, [two.grant]: outcome })
      if (isAtOnce(subject)) expect([await use(one, broker), await use(two, broker)]).toEqual([false, false])
      expect(await use(other, broker)).toBe(true)
      expect((await call(broker, agent, 'POST', '/v1/tasks/ticket-7/complete')).body.audit_index).toEqual(isAtOnce(subject) ? undefined : expect.any(Number))
    })

    test('lets a grant go on where the policy allows it, and no longer than the tool', async () => {
      const { broker, agent, use, lendGood, look, effect, replace } = await stage()
      const lent = await lendGood({ ttl_seconds: 60 })
      broker.clock.advance(30_000)
      const { status, body } = await call(broker, agent, 'POST', `/v1/grants/${lent.grant}/renew`, { ttl_seconds: 600 })
      expect([200, 201]).toContain(status)
      expect(body.expires_at).toBe('2026-01-15T12:10:30.000Z')
      if (status === 200) expect(body).toMatchObject({ grant: lent.grant, renewable_until: '2026-01-15T13:00:00.000Z' })
      else expect(body).toMatchObject({ renews: lent.grant })
      const renewed: Lent = status === 200 ? lent : body
      await passTime(broker, 9 * minuteMs)
      expect([await use(renewed, broker), (await look(renewed)).state]).toEqual([true, 'active'])
      // An hour from the first one is the end, whatever is asked for.
      const last = await call(broker, agent, 'POST', `/v1/grants/${renewed.grant}/renew`, { ttl_seconds: 3_600 })
      expect(last.body.expires_at).toBe('2026-01-15T13:00:00.000Z')
      const lastLent: Lent = last.status === 200 ? renewed : last.body
      await passTime(broker, 2 * minuteMs)
      expect(await use(lastLent, broker)).toBe(true)
      await passTime(broker, 60 * minuteMs)
      if (effect !== 'expiry' && replace === undefined) expect(await use(lastLent, broker)).toBe(false)
      expect(await call(broker, agent, 'POST', `/v1/grants/${lastLent.grant}/renew`, {})).toMatchObject({ status: 409 })
    })

    test('has its secrets nowhere but in the answer that gives them', async () => {
      const { broker, agent, lendGood, secretsOf, rootSecrets, revoke, tool, wish, outage, replace } = await stage()
      const answers: Record<string, string> = {}
      const keep = (name: string, { text, headers }: Answer) => void (answers[name] = `${JSON.stringify(Object.fromEntries(headers))} ${text}`)
      const lent = await lendGood({ task: 'ticket-7' })
      const { credential: _, environment: __, ...rest } = lent
      answers['the rest of the answer'] = JSON.stringify(rest)
      const held = await lendGood()
      keep('look', await call(broker, agent, 'GET', `/v1/grants/${lent.grant}`))
      keep('list', await admin(broker, 'GET', '/v1/grants'))
      keep('check', await admin(broker, 'POST', `/v1/tools/${tool}/check`))
      await outage?.begin()
      // Where nothing can be out of order it is lent once more, and the same value where there is but one.
      if (outage !== undefined || replace === undefined) keep('refused', await ask(broker, agent, wish))
      keep('check of a tool that is down', await admin(broker, 'POST', `/v1/tools/${tool}/check`))
      keep('not ended', await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`))
      await outage?.end()
      keep('receipt', await admin(broker, 'GET', `/v1/audit/receipts/${held.grant}`).catch((error: unknown) => ({ text: String(error), headers: new Headers() }) as Answer))
      keep('revocation', await revoke({ workload: 'bot' }))
      const canaries = [...secretsOf(lent), ...secretsOf(held)].map((secret) => watch('a secret that was lent', secret))
      canaries.push(...rootSecrets.map((secret) => ({ name: 'the root credential', hearts: [secret] })))
      expect(canaries.flatMap(({ hearts }) => hearts).every((heart) => heart.length >= 8)).toBe(true)
      for (const path of ['/v1/audit/export', '/metrics']) answers[path] = await (await broker.sendAsAdmin('GET', path)).text()
      const places = { ...answers, log: broker.logLines.join(''), ...(await dumpDatabase(broker)), ...readFiles(broker) }
      expect(search(places, canaries)).toEqual([])
      // They are found where they may be, so that the search is one.
      expect(search({ answer: JSON.stringify(lent) }, canaries.slice(0, 1))).toHaveLength(1)
    })

    test('ends what another process of the same broker has made', async () => {
      const subject = await stage()
      const { broker, agent, env, use, lendGood } = subject
      const [lent, expiring] = [await lendGood(), await lendGood({ ttl_seconds: 60 })]
      if (engine === 'sqlite') await broker.close()
      const next = await startBroker(engine, { beside: broker, env })
      expect((await call(next, agent, 'DELETE', `/v1/grants/${lent.grant}`)).body).toMatchObject({ outcome: isAtOnce(subject) ? 'revoked' : lateOutcome(subject) })
      await passTime(next, minuteMs)
      if (isAtOnce(subject)) expect([await use(lent, next), await use(expiring, next)]).toEqual([false, false])
    })

    test('ends what was lent by a policy set that is not in force any more', async () => {
      const subject = await stage()
      const { broker, agent, use, lendGood, wish } = subject
      const [lent, expiring] = [await lendGood(), await lendGood({ ttl_seconds: 60 })]
      const other = 'tool: other\nconnector: jwt\naudience: https://other.test\nsensitivity: low\nttl: { default: 1m, max: 1m }\nactions: { read: {} }\n'
      expect((await admin(broker, 'PUT', '/v1/policy', { files: { 'tools/other.yaml': other, 'rules.cedar': rules } })).status).toBe(200)
      expect(await ask(broker, agent, wish)).toMatchObject({ status: 400 })
      // Whoever asks about a signed token was named by the set that is gone.
      if (subject.outage !== undefined) expect(await use(expiring, broker)).toBe(true)
      expect((await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)).body).toMatchObject({ outcome: isAtOnce(subject) ? 'revoked' : lateOutcome(subject) })
      await passTime(broker, minuteMs)
      if (isAtOnce(subject)) expect([await use(lent, broker), await use(expiring, broker)]).toEqual([false, false])
    })

    test('leaves nothing behind where the tool is down when it is asked, or says until when something may live', async ({ skip }) => {
      const { broker, agent, wish, outage, countMade, look, lendGood } = await stage()
      if (outage === undefined) return skip('Stint is the tool')
      await outage.begin()
      const { status, body, headers } = await ask(broker, agent, wish)
      expect([502, 503]).toContain(status)
      if (status === 503) expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
      expect(body).toMatchObject({ title: expect.stringMatching(/^The tool/), detail: expect.stringMatching(/^[A-Z].+\.$/s) })
      await outage.end()
      const minting = (await broker.events()).findLast(({ type }) => type === 'grant.minting')
      const grant = minting !== undefined && 'grant' in minting ? String(minting.grant) : ''
      await passTime(broker, patienceMs)
      const seen = await look({ grant })
      if (seen.state === 'unknown') expect(seen.may_live_until).toEqual(expect.any(String))
      else expect(['failed', 'revoked', 'expired']).toContain(seen.state)
      if (seen.state !== 'unknown' && countMade !== undefined) expect(await countMade(broker)).toBe(0)
      await lendGood()
    })

    test('goes on to end what a tool that is down did not end, until it is back', async ({ skip }) => {
      const subject = await stage()
      const { broker, agent, outage, use, look, lendGood } = subject
      if (outage === undefined) return skip('Stint is the tool')
      const lent = await lendGood()
      await outage.begin()
      const { status, body } = await call(broker, agent, 'DELETE', `/v1/grants/${lent.grant}`)
      // Where nobody need be told, nothing can fail.
      if (!isAtOnce(subject)) return expect([status, body.outcome]).toEqual([200, expect.stringMatching(/^(?:lives_until|retrying)$/)])
      expect([status, body]).toMatchObject([200, { outcome: 'retrying', problem: expect.stringMatching(/\.$/) }])
      expect(await look(lent)).toMatchObject({ state: 'ending', tries: 1, next_try_at: expect.any(String), problem: body.problem })
      await passTime(broker, minuteMs)
      expect(await look(lent)).toMatchObject({ state: 'ending', tries: 2 })
      await outage.end()
      await passTime(broker, patienceMs)
      expect(await look(lent)).toMatchObject({ state: 'revoked' })
      expect(await use(lent, broker)).toBe(false)
    })

    test('shows what could not be ended in ten tries until an admin sees to it', async ({ skip }) => {
      const subject = await stage()
      const { broker, agent, outage, use, look, lendGood, tool } = subject
      if (outage === undefined || !isAtOnce(subject)) return skip('there is nothing that could be stuck')
      const [lent, other] = [await lendGood({ ttl_seconds: 3_600 }), await lendGood({ ttl_seconds: 3_600 })]
      await outage.begin()
      for (const { grant } of [lent, other]) await call(broker, agent, 'DELETE', `/v1/grants/${grant}`)
      // All of it within the hour that a token may live.
      await exhaustTries(broker, 1)
      expect(await look(lent)).toMatchObject({ state: 'stuck', tries: endTriesMax, problem: expect.stringMatching(/\.$/) })
      expect((await broker.events()).find((event) => event.type === 'grant.stuck' && event.grant === lent.grant)).toMatchObject({ tries: endTriesMax, detail: expect.any(String) })
      await passTime(broker, minuteMs)
      expect(await look(lent)).toMatchObject({ state: 'stuck', tries: endTriesMax })
      const listed = await admin(broker, 'GET', `/v1/grants?state=stuck&tool=${tool}`)
      expect(listed.body.grants.map(({ grant }: Lent) => grant).sort()).toEqual([lent.grant, other.grant].sort())
      const scrape = readExposition(await (await broker.sendAsAdmin('GET', '/metrics')).text())
      expect(scrape.value('stint_credentials', { state: 'stuck' })).toBe(2)
      expect(scrape.value('stint_end_failures_total', { tool })).toBe(2 * endTriesMax)

      const retry = (grant: string, verb = 'retry') => admin(broker, 'POST', `/v1/grants/${grant}/${verb}`, { reason: 'a contract' })
      expect((await retry(lent.grant)).body).toMatchObject({ outcome: 'retrying' })
      await outage.end()
      await passTime(broker, patienceMs)
      expect(await look(lent)).toMatchObject({ state: 'revoked' })
      expect(await use(lent, broker)).toBe(false)
      expect(await lifeOf(broker, lent.grant)).toEqual(['grant.minting', 'grant.activated', 'grant.revoked', 'grant.stuck', 'grant.retried', 'grant.ended'])
      expect(await retry(other.grant, 'write-off')).toMatchObject({ status: 200 })
      expect(await look(other)).toMatchObject({ state: 'written_off' })
      for (const grant of [lent.grant, other.grant]) expect(await retry(grant)).toMatchObject({ status: 409 })
      expect(readExposition(await (await broker.sendAsAdmin('GET', '/metrics')).text()).value('stint_credentials', { state: 'stuck' })).toBe(0)
      // What an admin has taken upon himself lives on in the tool, and is found there.
      if (!subject.lists) return
      const orphans = await admin(broker, 'POST', `/v1/tools/${tool}/orphans`, {})
      expect(orphans.body).toMatchObject({ listed: true, found: 1, orphans: [{ grant: other.grant, ended: true }] })
      expect(await use(other, broker)).toBe(false)
    })

    test('finds in the tool what no grant stands for, or says that it cannot', async () => {
      const { broker, lists, lendGood, tool, use, outage, replace, env, files } = await stage()
      const lent = await lendGood()
      const search = (on: TestBroker, json: unknown = {}) => admin(on, 'POST', `/v1/tools/${tool}/orphans`, json)
      if (outage === undefined && replace === undefined) return expect(await search(broker)).toMatchObject({ status: 409 })
      if (!lists) return expect((await search(broker)).body).toEqual({ tool, listed: false, found: 0, orphans: [] })
      // What another broker made there is not this one's to find.
      const stranger = await startBroker('sqlite', { env, policies: files })
      expect((await search(stranger)).body).toEqual({ tool, listed: true, found: 0, orphans: [] })
      expect((await search(broker)).body).toEqual({ tool, listed: true, found: 1, orphans: [] })
      expect(await use(lent, broker)).toBe(true)
    })
  })
}
