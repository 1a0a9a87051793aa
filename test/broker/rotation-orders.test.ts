import { expect, test } from 'vitest'
import { applyPolicy } from '../../src/broker/apply-policy.ts'
import { dayMs, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { ask, call, admin, type Lent } from './lending.ts'
import { lifeOf, lost, monthMs, passTime, rowOf, runJobs, startRotating, stepsOf, tickMs, wholeRun, writePolicies, type Rotating } from './rotating.ts'

const hourMs = 3_600_000
const wish = { tool: 'billing', actions: ['use'], ttl_seconds: 1_800 }

async function lend({ broker, agent }: Pick<Rotating, 'broker' | 'agent'>, more: object = {}): Promise<Lent> {
  const { status, body, text } = await ask(broker, agent, { ...wish, ...more })
  if (status !== 201) throw new Error(`not lent: ${status} ${text}`)
  return body as Lent
}

async function stateOf({ broker }: Pick<Rotating, 'broker'>, { grant }: Pick<Lent, 'grant'>): Promise<string> {
  return (await admin(broker, 'GET', `/v1/grants/${grant}`)).body.state as string
}

/** A broker that has looked at its secret, and lent it. */
async function startLent(...[engine, options]: Parameters<typeof startRotating>) {
  const rotating = await startRotating(engine, options)
  await passTime(rotating.broker, tickMs)
  return { ...rotating, lent: await lend(rotating, { task: 't-1' }) }
}

const revoked = async (broker: TestBroker, target: object) => expect((await admin(broker, 'POST', '/v1/revocations', target)).status).toBe(200)

describeEngines('A revocation of what a secret was lent by', (engine) => {
  test.each([
    ['by an admin', ({ broker }, { grant }) => revoked(broker, { grant })],
    ['of all of a workload', ({ broker }) => revoked(broker, { workload: 'bot' })],
    ['of all of a tool', ({ broker }) => revoked(broker, { tool: 'billing' })],
    ['of a task, by an admin', ({ broker }) => revoked(broker, { workload: 'bot', task: 't-1' })],
    ['with a suspension', ({ broker }) => revoked(broker, { workload: 'bot', suspend: true })],
    ['for its workload is retired', async ({ broker }) => expect((await admin(broker, 'POST', '/v1/workloads/bot/retire', {})).status).toBe(200)],
  ] satisfies [string, (rotating: Rotating, lent: Lent) => Promise<void>][])('(%s) has the secret replaced, and what it was lent as opens nothing any more', async (_, revoke) => {
    const rotating = await startLent(engine)
    const { broker, vault, lent } = rotating
    await revoke(rotating, lent)
    // It is carried to the credential, then the secret is replaced, then it is seen that nothing opens any more.
    for (let i = 0; i < 3; i++) await passTime(broker, tickMs)
    expect(stepsOf(vault)).toEqual([...wholeRun, 'retire v1'])
    expect([...vault.retired]).toEqual([['v1', true]])
    expect((await broker.events()).find(({ type }) => type === 'rotation.begun')).toMatchObject({ rotation: 'billing', reason: 'revocation' })
    expect(await stateOf(rotating, lent)).toBe('revoked')
    expect(await rowOf(broker)).toMatchObject({ leaked: false, retireLeaked: false, version: 'v2' })
  })

  test.each([
    ['it is given back', ({ broker, agent }, { grant }) => call(broker, agent, 'DELETE', `/v1/grants/${grant}`)],
    ['its task is completed', ({ broker, agent }) => call(broker, agent, 'POST', '/v1/tasks/t-1/complete')],
  ] satisfies [string, (rotating: Rotating, lent: Lent) => Promise<{ status: number }>][])('is none where %s: it ends with the next version', async (_, giveBack) => {
    const rotating = await startLent(engine)
    const { broker, vault, lent } = rotating
    expect((await giveBack(rotating, lent)).status).toBe(200)
    await passTime(broker, tickMs)
    await passTime(broker, hourMs)
    expect([stepsOf(vault), await stateOf(rotating, lent)]).toEqual([[], 'ending'])
    await passTime(broker, monthMs)
    await passTime(broker, hourMs)
    await passTime(broker, tickMs)
    expect([vault.accepted, await stateOf(rotating, lent)]).toEqual([new Set(['v2']), 'revoked'])
  })

  test('500 times orders one rotation, and a bystander is lent the next version', async () => {
    const rotating = await startLent(engine)
    const { broker, vault } = rotating
    const lent = await Promise.all(Array.from({ length: 20 }, () => lend(rotating)))
    // The rest as rows: what counts is the orders, and not the requests.
    const { database, ledger } = broker.broker
    const [row] = await database.read.selectFrom('credential').selectAll().where('grant_id', '=', lent[0]?.grant ?? '').execute()
    const [grant] = await database.read.selectFrom('grants').selectAll().where('id', '=', lent[0]?.grant ?? '').execute()
    if (row === undefined || grant === undefined) throw new Error('nothing was lent')
    const ids = Array.from({ length: 480 }, (_, i) => `grant_${String(i).padStart(26, '0')}`)
    await ledger.transact({
      async apply(tx) {
        await tx.insertInto('grants').values(ids.map((id) => ({ ...grant, id }))).execute()
        await tx.insertInto('credential').values(ids.map((id) => ({ ...row, grant_id: id }))).execute()
        return { result: undefined, unrecorded: 'housekeeping' }
      },
    })
    const bystander = await broker.register('other')
    const held = await lend({ broker, agent: bystander })
    await revoked(broker, { workload: 'bot' })
    for (let i = 0; i < 3; i++) await passTime(broker, tickMs)
    // How fast so many ends are recorded is the machine's business; none of them waits for anything any more.
    const open = database.read.selectFrom('credential').select('grant_id').where('workload', '=', 'bot').where('state', '<>', 'revoked').where('owner', 'is', null)
    expect(await open.where('due_at', '>', new Date(broker.clock.nowMs()).toISOString()).execute()).toEqual([])
    expect(stepsOf(vault)).toEqual([...wholeRun, 'retire v1'])
    expect(await lifeOf(broker)).toEqual(['begun', 'finished', 'retired'])
    // Its grant stands, and what it holds opens nothing: it asks again.
    expect([held.credential['version'], vault.accepted.has('v1')]).toEqual(['v1', false])
    expect((await lend({ broker, agent: bystander })).credential['version']).toBe('v2')
    // What is revoked of a version that is gone already orders nothing.
    await revoked(broker, { workload: 'other', before: new Date(broker.clock.nowMs() - 1).toISOString() })
    await passTime(broker, tickMs)
    expect(vault.current?.version).toBe('v2')
  }, 60_000)

  test('is recorded at once where the version goes while its tool is being asked', async () => {
    const rotating = await startLent(engine)
    const { broker, vault, lent } = rotating
    let asked = 0
    vault.onRevoke = async () => {
      if (asked++ > 0) return undefined
      await passTime(broker, tickMs)
      expect(vault.accepted).toEqual(new Set(['v2']))
      return 'waits'
    }
    await revoked(broker, { grant: lent.grant })
    expect([asked, await stateOf(rotating, lent)]).toEqual([1, 'ending'])
    await passTime(broker, tickMs)
    expect(await stateOf(rotating, lent)).toBe('revoked')
  })

  test('while the secret is being replaced is served by that run; of the version that it makes, by another one', async () => {
    const rotating = await startLent(engine)
    const { broker, vault, lent } = rotating
    let then: (() => Promise<void>) | undefined = () => revoked(broker, { grant: lent.grant })
    vault.onCall = async (step) => {
      const now = step === 'test' ? then : undefined
      if (now === undefined) return
      then = undefined
      await now()
    }
    await passTime(broker, monthMs)
    await passTime(broker, tickMs)
    expect(stepsOf(vault)).toEqual([...wholeRun, 'retire v1'])
    expect([...vault.retired]).toEqual([['v1', true]])

    // It is in force before that is recorded, and lent and revoked in between.
    vault.onCall = async (step) => {
      if (step !== 'finish') return
      vault.onCall = undefined
      vault.promote(broker.clock.nowMs())
      const early = await lend(rotating)
      expect(early.credential['version']).toBe('v3')
      await revoked(broker, { grant: early.grant })
    }
    await passTime(broker, monthMs)
    for (let i = 0; i < 3; i++) await passTime(broker, tickMs)
    expect(vault.current?.version).toBe('v4')
    expect(vault.accepted).toEqual(new Set(['v4']))
    expect(await rowOf(broker)).not.toHaveProperty('again')
  })

  test('that fails is ordered again until it is carried out', async () => {
    const rotating = await startLent(engine)
    const { broker, vault, lent } = rotating
    vault.wrong = 'No.'
    await revoked(broker, { grant: lent.grant })
    await passTime(broker, tickMs)
    expect(await rowOf(broker)).toMatchObject({ run: { step: 'order', reason: 'revocation' }, leaked: true, failures: 1, dueAtMs: broker.clock.nowMs() + 300_000 })
    // More of them do not hurry it.
    await revoked(broker, { grant: (await lend(rotating)).grant })
    await passTime(broker, tickMs)
    expect(await lifeOf(broker)).toEqual(['begun', 'failed'])
    vault.wrong = undefined
    await passTime(broker, 300_000)
    await passTime(broker, tickMs)
    expect([...vault.retired]).toEqual([['v1', true]])
    expect(await stateOf(rotating, lent)).toBe('revoked')
  })

  test('of the version before retires that one early, and makes no new one', async () => {
    const rotating = await startLent(engine)
    const { broker, vault } = rotating
    await passTime(broker, monthMs - 60_000 - tickMs - 600_000)
    const lent = await lend(rotating)
    await passTime(broker, 600_000)
    expect([vault.current?.version, vault.accepted]).toEqual(['v2', new Set(['v1', 'v2'])])
    await revoked(broker, { grant: lent.grant })
    await passTime(broker, tickMs)
    await passTime(broker, tickMs)
    expect([vault.current?.version, [...vault.retired]]).toEqual(['v2', [['v1', true]]])
    expect(await stateOf(rotating, lent)).toBe('revoked')
  })

  test('of the version before, which was put in force again by hand, makes a new one', async () => {
    const rotating = await startLent(engine)
    const { broker, vault } = rotating
    await passTime(broker, monthMs)
    expect([vault.current?.version, vault.accepted]).toEqual(['v2', new Set(['v1', 'v2'])])
    vault.put('v1', broker.clock.nowMs())
    const lent = await lend(rotating)
    expect(lent.credential['version']).toBe('v1')
    await revoked(broker, { grant: lent.grant })
    for (let i = 0; i < 3; i++) await passTime(broker, tickMs)
    expect([vault.current?.version, vault.accepted]).toEqual(['v3', new Set(['v3'])])
    expect(await stateOf(rotating, lent)).toBe('revoked')
    // It is retired, and put in force once more.
    vault.put('v1', broker.clock.nowMs())
    const again = await lend(rotating)
    await revoked(broker, { grant: again.grant })
    for (let i = 0; i < 3; i++) await passTime(broker, tickMs)
    expect([vault.accepted.has('v1'), await stateOf(rotating, again)]).toEqual([false, 'revoked'])
  })

  test('of what the tool lent before another secret was named for it replaces nothing, and says so', async () => {
    const rotating = await startLent(engine)
    const { broker, vault, lent } = rotating
    const files = new Map([...writePolicies(['billing'])].map(([path, text]) => [path, text.replace('secret: billing', 'secret: other')] as const))
    await applyPolicy(broker.broker, { actor: { kind: 'stint', id: 'test' } }, files)
    await passTime(broker, tickMs)
    await revoked(broker, { grant: lent.grant })
    for (let i = 0; i < 3; i++) await passTime(broker, tickMs)
    expect(stepsOf(vault)).toEqual([])
    expect((await admin(broker, 'GET', `/v1/grants/${lent.grant}`)).body).toMatchObject({ state: 'ending', problem: expect.stringContaining('names no rotation of it any more') })
  })

  test('before the rotation was known orders it once it is', async () => {
    const rotating = await startRotating(engine)
    const { broker, vault } = rotating
    const lent = await lend(rotating)
    await revoked(broker, { grant: lent.grant })
    expect(await broker.broker.database.read.selectFrom('rotation').select('name').execute()).toEqual([])
    await passTime(broker, tickMs)
    await passTime(broker, tickMs)
    expect([vault.current?.version, [...vault.retired]]).toEqual(['v2', [['v1', true]]])
  })

  test('orders none of a tool that signs tokens, or whose secret nobody replaces', async () => {
    const rotating = await startLent(engine, { policies: writePolicies([], ['billing']) })
    const { broker, vault, lent } = rotating
    await revoked(broker, { grant: lent.grant })
    await passTime(broker, tickMs)
    expect([vault.calls, await lifeOf(broker)]).toEqual([[], []])
  })
})

describeEngines('An admin', (engine) => {
  const order = (broker: TestBroker, json: object = {}, name = 'billing') => admin(broker, 'POST', `/v1/rotations/${name}`, json)

  test('has a secret replaced now; who holds the version before keeps it for the time of his grant', async () => {
    const rotating = await startLent(engine)
    const { broker, vault } = rotating
    const { status, body, headers } = await order(broker, { reason: 'a colleague left' })
    await runJobs(broker)
    expect([status, body]).toMatchObject([202, { name: 'billing', kind: 'secret', ordered: expect.any(String), overdue: false }])
    const ordered = (await broker.events()).find(({ type }) => type === 'rotation.ordered')
    expect(ordered).toMatchObject({ actor: { kind: 'operator' }, rotation: 'billing', id: body.ordered, reason: 'request', detail: 'a colleague left', index: body.audit_index })
    expect(headers.get('stint-audit-index')).toBe(String(body.audit_index))
    expect(await lifeOf(broker)).toEqual(['ordered', 'begun', 'finished'])
    expect([vault.current?.version, vault.accepted]).toEqual(['v2', new Set(['v1', 'v2'])])
    expect((await admin(broker, 'GET', '/v1/rotations/billing')).body).toMatchObject({ state: 'idle', last_id: body.ordered, last_outcome: 'finished', version: 'v2', retires_at: expect.any(String) })
    // Another one needs the place of the version before, which was promised to whoever holds it.
    const { retireAtMs = 0 } = await rowOf(broker)
    const held = await order(broker)
    expect(held.body).toMatchObject({ problem: expect.stringContaining(new Date(retireAtMs).toISOString()) })
    await runJobs(broker)
    expect([vault.current?.version, vault.accepted]).toEqual(['v2', new Set(['v1', 'v2'])])
    expect((await admin(broker, 'GET', '/v1/rotations/billing')).body).toMatchObject({ state: 'waiting', try_at: new Date(retireAtMs).toISOString() })
    await passTime(broker, retireAtMs - broker.clock.nowMs())
    await passTime(broker, tickMs)
    expect([vault.current?.version, vault.accepted]).toEqual(['v3', new Set(['v2', 'v3'])])
    // What was opened by it must not outlive the grants.
    expect([...vault.retired]).toEqual([['v1', true]])
  })

  test('who fears a leak has the one before cut off at once', async () => {
    const { broker, vault } = await startLent(engine)
    expect((await order(broker, { leaked: true })).status).toBe(202)
    await runJobs(broker)
    expect([vault.current?.version, [...vault.retired]]).toEqual(['v2', [['v1', true]]])
    expect(await lifeOf(broker)).toEqual(['ordered', 'begun', 'finished', 'retired'])
    expect((await broker.events()).find(({ type }) => type === 'rotation.begun')).toMatchObject({ reason: 'leak' })
  })

  test('is served by the run that is under way, which he hurries', async () => {
    const { broker, vault } = await startLent(engine)
    vault.onCall = (step) => {
      if (step === 'set') throw lost()
    }
    await passTime(broker, monthMs)
    for (let i = 0; i < 5; i++) await passTime(broker, 600_000)
    const { run, tries } = await rowOf(broker)
    vault.onCall = undefined
    const { body } = await order(broker, { leaked: true })
    await runJobs(broker)
    expect([body.ordered, tries, vault.current?.version]).toEqual([run?.id, 6, 'v2'])
    expect([...vault.retired]).toEqual([['v1', true]])
    expect(await lifeOf(broker)).toEqual(['begun', 'ordered', 'finished', 'retired'])
  })

  test('is told of a rotation that is somebody else\'s, and whose turn is next', async () => {
    const { broker, vault } = await startLent(engine)
    vault.foreign = 'A rotation of somebody else is under way.'
    const { body } = await order(broker)
    await runJobs(broker)
    expect((await admin(broker, 'GET', '/v1/rotations/billing')).body).toMatchObject({ state: 'waiting', id: body.ordered, step: 'order', problem: vault.foreign, try_at: new Date(broker.clock.nowMs() + 600_000).toISOString() })
    vault.foreign = undefined
    await passTime(broker, 600_000)
    expect(vault.current?.version).toBe('v2')
  })

  test('has the broker\'s own keys replaced in the same way', async () => {
    const { broker } = await startLent(engine)
    expect(await order(broker, {}, 'signing-keys')).toMatchObject({ status: 202, body: { kind: 'signing_keys', state: 'running' } })
    expect((await broker.events()).at(-1)).toMatchObject({ type: 'key.created', use: 'token' })
    expect(await order(broker, { leaked: true }, 'signing-keys')).toMatchObject({ status: 202 })
    expect((await broker.events()).filter(({ type }) => type === 'key.replaced')).toHaveLength(2)
    const sealing = await order(broker, { reason: 'a disk was lost' }, 'sealing-keys')
    expect(sealing).toMatchObject({ status: 202, body: { kind: 'sealing_keys', state: 'running', version: '2' } })
    expect(sealing.body).not.toHaveProperty('ordered')
    expect(await order(broker, { leaked: true }, 'sealing-keys')).toMatchObject({ status: 409, body: { detail: expect.stringContaining('leave leaked out') } })
  })

  test('is told what cannot be replaced, and what is wrong with the request', async () => {
    const { broker } = await startLent(engine)
    const before = (await broker.events()).length
    expect(await order(broker, {}, 'nothing')).toMatchObject({ status: 404, body: { detail: 'There is no rotation nothing: see stint rotations.' } })
    expect(await order(broker, {}, 'tickets')).toMatchObject({ status: 409, body: { detail: expect.stringContaining('names no rotation in the catalog') } })
    for (const body of [{ leaked: 'yes' }, { reason: '' }, { now: true }, []]) expect([body, (await order(broker, body)).status]).toEqual([body, 400])
    expect((await broker.events()).slice(before).filter(({ type }) => type !== 'change.refused')).toEqual([])
    expect((await admin(broker, 'GET', '/v1/rotations/nothing')).status).toBe(404)
    for (const role of ['auditor', 'approver'] as const) {
      const credential = await broker.createOperator(role)
      expect((await broker.sendAs(credential, 'POST', '/v1/rotations/billing', {})).status).toBe(403)
      expect((await broker.sendAs(credential, 'GET', '/v1/rotations')).status).toBe(role === 'auditor' ? 200 : 403)
    }
    expect(await lifeOf(broker)).toEqual([])
  })
})

describeEngines('What long-lived secrets there are', (engine) => {
  test('shows: those that Stint replaces, with what is overdue and failed, and those that it does not', async () => {
    const policies = new Map([
      ...writePolicies(['billing'], ['mail']),
      ['tools/github.yaml', 'tool: github\nconnector: github-app\nsensitivity: low\nttl: { default: 10m, max: 1h }\ntarget: { name: repository, required: true, pattern: "[a-z/]+" }\nactions: { read: { permissions: { issues: read } } }\nconfig: { app_id: "1", private_key: { from: "sealed:app-key" } }\n'],
    ])
    const { broker, vault } = await startRotating(engine, { policies })
    await broker.sendAsAdmin('PUT', '/v1/secrets/mail', { value: 'marked' })
    const putAt = new Date(broker.clock.nowMs()).toISOString()
    await passTime(broker, tickMs)
    const list = async () => (await admin(broker, 'GET', '/v1/rotations')).body.rotations as readonly Record<string, unknown>[]
    const nextAt = new Date((vault.current?.sinceMs ?? 0) + monthMs).toISOString()
    expect(await list()).toEqual([
      { name: 'signing-keys', kind: 'signing_keys', state: 'idle', every_seconds: 30 * 86_400, overdue: false, version: expect.any(String), last_at: expect.any(String), next_at: expect.any(String) },
      { name: 'sealing-keys', kind: 'sealing_keys', state: 'idle', every_seconds: 90 * 86_400, overdue: false, version: '1', last_at: expect.any(String), next_at: expect.any(String) },
      { name: 'billing', kind: 'secret', tool: 'billing', state: 'idle', every_seconds: 30 * 86_400, overdue: false, version: 'v1', next_at: nextAt },
      { name: 'sealed:billing', kind: 'root_credential', tool: 'billing', state: 'unmanaged', overdue: false },
      { name: 'sealed:app-key', kind: 'root_credential', tool: 'github', state: 'unmanaged', overdue: false },
      { name: 'sealed:mail', kind: 'root_credential', tool: 'mail', state: 'unmanaged', overdue: false, version: '1', last_at: putAt },
    ])
    vault.wrong = 'No.'
    await passTime(broker, monthMs + 2 * dayMs)
    expect((await list()).find(({ name }) => name === 'billing')).toMatchObject({ state: 'failed', overdue: true, overdue_since: nextAt, last_outcome: 'failed', problem: expect.stringContaining('No.'), try_at: expect.any(String) })
    const metrics = await (await broker.sendAsAdmin('GET', '/metrics')).text()
    expect(metrics).toContain('stint_rotations_overdue{rotation="billing"} 1')
    expect(metrics).toContain('stint_rotations_failed{rotation="billing"} 1')
    expect(metrics).toMatch(/stint_rotations_overdue\{rotation="sealing-keys"\} 0/)
    expect(metrics).toContain('stint_rotation_steps_total{rotation="billing",step="set",outcome="done"} 1')
    vault.wrong = undefined
    await passTime(broker, 6 * hourMs)
    const after = await (await broker.sendAsAdmin('GET', '/metrics')).text()
    expect([after.includes('stint_rotations_overdue{rotation="billing"} 0'), after.includes('stint_rotations_failed{rotation="billing"} 0')]).toEqual([true, true])
  })
})
