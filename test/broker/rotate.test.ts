import { setTimeout } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { applyPolicy } from '../../src/broker/apply-policy.ts'
import type { Waypoint } from '../../src/broker/waypoints.ts'
import { dayMs, type TestBroker } from '../broker.ts'
import { describeEngines, describePostgres } from '../harness.ts'
import { lifeOf, lost, monthMs, passTime, refused, rowOf, runJobs, startBeside, startRotating, stepsOf, tickMs, wholeRun, writePolicies } from './rotating.ts'

const hourMs = 3_600_000
const iso = (broker: TestBroker, ms = 0) => new Date(broker.clock.nowMs() + ms).toISOString()
const caller = { actor: { kind: 'stint', id: 'test' } } as const

describeEngines('A secret is replaced by schedule', (engine) => {
  test('when its time has come and not before, in four steps, and what it replaced when the last grant is over', async () => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    expect(vault.calls).toEqual(['look'])
    expect(await rowOf(broker)).toMatchObject({ tool: 'billing', version: 'v1', scheduled: { everySeconds: 30 * 86_400 }, nextAtMs: (vault.current?.sinceMs ?? 0) + monthMs })
    await passTime(broker, monthMs - 60_000 - tickMs - 1)
    expect(stepsOf(vault)).toEqual([])
    await passTime(broker, tickMs)
    expect(stepsOf(vault)).toEqual(wholeRun)
    expect(new Set(vault.calls.flatMap((call) => /[0-9a-f]{8}-[0-9a-f-]{27}$/.exec(call) ?? [])).size).toBe(1)
    const [begun, finished] = (await broker.events()).slice(-2)
    const id = vault.current?.rotation
    expect(begun).toMatchObject({ type: 'rotation.begun', rotation: 'billing', id, reason: 'schedule', actor: { kind: 'stint', id: 'schedule' } })
    expect(finished).toMatchObject({ type: 'rotation.finished', rotation: 'billing', id, version: 'v2', replaced: 'v1' })
    expect(await rowOf(broker)).toMatchObject({ version: 'v2', replaced: 'v1', lastId: id, retireLeaked: false, failures: 0 })
    expect(await rowOf(broker)).not.toHaveProperty('run')
    // The tool gives an hour at most.
    await passTime(broker, hourMs - tickMs)
    expect(vault.retired.size).toBe(0)
    await passTime(broker, tickMs)
    expect([...vault.retired]).toEqual([['v1', false]])
    expect(await broker.lastEvent('rotation.retired')).toMatchObject({ rotation: 'billing', version: 'v1' })
    expect(vault.accepted).toEqual(new Set(['v2']))
    await passTime(broker, monthMs - hourMs - 2 * tickMs)
    expect(stepsOf(vault)).toEqual([...wholeRun, 'retire v1'])
    await passTime(broker, 3 * tickMs)
    expect(vault.current?.version).toBe('v3')
  })

  test('not again where it was changed by hand, and sooner where the policy says so', async () => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    broker.clock.advance(20 * dayMs)
    vault.put('v9', broker.clock.nowMs())
    await passTime(broker, 15 * dayMs)
    expect([stepsOf(vault), (await rowOf(broker)).version]).toEqual([[], 'v9'])
    vault.everySeconds = 10 * 86_400
    await applyPolicy(broker.broker, caller, writePolicies(['billing', 'other']))
    // The connector is opened with other settings, as another file would have it.
    await broker.broker.tools.close()
    await passTime(broker, tickMs)
    expect(stepsOf(vault)).toEqual(wholeRun)
    expect((await rowOf(broker, 'other')).version).toBe('v1')
  })

  test('by the process that comes first, and whoever looks at the same moment does nothing', async () => {
    const rotating = await startRotating(engine)
    const { broker, vault } = rotating
    const beside = engine === 'postgres' ? await startBeside(rotating) : broker
    await passTime(broker, tickMs)
    broker.clock.advance(monthMs)
    await Promise.all([runJobs(broker), runJobs(beside), runJobs(broker), runJobs(beside)])
    expect(stepsOf(vault)).toEqual(wholeRun)
    expect(await lifeOf(broker)).toEqual(['begun', 'finished'])
  })

  test('not while somebody else replaces it, and then if it is still due', async () => {
    const { broker, vault } = await startRotating(engine)
    vault.foreign = 'A rotation of somebody else is under way since noon.'
    await passTime(broker, tickMs)
    expect(await rowOf(broker)).not.toHaveProperty('problem')
    await passTime(broker, monthMs)
    expect([stepsOf(vault), await lifeOf(broker), (await rowOf(broker)).problem]).toEqual([[], [], vault.foreign])
    vault.foreign = undefined
    await passTime(broker, 600_000)
    expect([stepsOf(vault), await lifeOf(broker)]).toEqual([wholeRun, ['begun', 'finished']])
    expect(await rowOf(broker)).not.toHaveProperty('problem')
  })

  test('not before there is one at all', async () => {
    const { broker, vault } = await startRotating(engine)
    vault.current = undefined
    await passTime(broker, tickMs)
    expect((await rowOf(broker)).problem).toContain('an admin hands over the first one')
    vault.put('v1', broker.clock.nowMs())
    await passTime(broker, 600_000)
    expect(await rowOf(broker)).toMatchObject({ version: 'v1' })
    expect(await rowOf(broker)).not.toHaveProperty('problem')
  })
})

describeEngines('A rotation that fails', (engine) => {
  test('at its test leaves what is in force, says so, and is tried anew later', async () => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    vault.wrong = 'The new key was refused with 401.'
    await passTime(broker, monthMs)
    expect(stepsOf(vault)).toEqual(['create', 'set', 'test', 'abandon'])
    expect([vault.current?.version, vault.pending]).toEqual(['v1', undefined])
    const { id, detail } = (await broker.lastEvent('rotation.failed')) as { id: string; detail: string }
    expect(detail).toBe('The new key was refused with 401. Where the system behind it cannot be told so, it may go on accepting the value that is given up.')
    expect(await rowOf(broker)).toMatchObject({ failures: 1, problem: detail, lastId: id, failedAtMs: broker.clock.nowMs(), dueAtMs: broker.clock.nowMs() + 300_000 })
    await passTime(broker, 299_000)
    expect(stepsOf(vault)).toHaveLength(4)
    await passTime(broker, tickMs)
    expect([stepsOf(vault).length, await lifeOf(broker)]).toEqual([8, ['begun', 'failed', 'begun', 'failed']])
    vault.wrong = undefined
    await passTime(broker, 900_000)
    expect(await lifeOf(broker)).toEqual(['begun', 'failed', 'begun', 'failed', 'begun', 'finished'])
    expect(await rowOf(broker)).toMatchObject({ failures: 0, version: 'v4' })
    expect(await rowOf(broker)).not.toHaveProperty('problem')
  })

  test.each([
    ['create', refused, ['create'], 'v2'],
    ['set', lost, ['create', 'set'], 'v2'],
    ['test', refused, ['create', 'set', 'test'], 'v2'],
    ['finish', lost, wholeRun, 'v2'],
    ['retire v1', lost, [...wholeRun, 'retire v1'], 'v2'],
  ] as const)('at %s is tried again at that step, with longer and longer pauses', async (step, fault, before, version) => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    let faults = 3
    vault.onCall = (called) => {
      if (called === step && faults-- > 0) throw fault()
    }
    await passTime(broker, monthMs)
    if (step === 'retire v1') await passTime(broker, hourMs)
    expect(stepsOf(vault)).toEqual(before)
    const { tries, problem, dueAtMs = 0, owner } = await rowOf(broker)
    expect([tries, problem, owner]).toEqual([1, fault().adminMessage, undefined])
    expect(dueAtMs - broker.clock.nowMs()).toBeGreaterThanOrEqual(500)
    expect(dueAtMs - broker.clock.nowMs()).toBeLessThanOrEqual(1_000)
    for (const ms of [1_000, 3_000, 9_000]) await passTime(broker, ms)
    await passTime(broker, 2 * hourMs)
    expect(stepsOf(vault).filter((one) => one === step)).toHaveLength(4)
    expect([vault.current?.version, (await rowOf(broker)).tries]).toEqual([version, 0])
    expect(await lifeOf(broker)).toEqual(['begun', 'finished', 'retired'])
    expect(vault.accepted).toEqual(new Set(['v2']))
  })

  test('again and again is given up, and begun anew', async () => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    let broken = true
    vault.onCall = (step) => {
      if (step === 'set' && broken) throw lost()
    }
    await passTime(broker, monthMs)
    for (let tries = 1; tries < 10; tries++) {
      expect((await rowOf(broker)).tries).toBe(tries)
      await passTime(broker, 600_000)
    }
    expect(stepsOf(vault)).toEqual(['create', ...Array.from({ length: 10 }, () => 'set'), 'abandon'])
    expect(await broker.lastEvent('rotation.failed')).toMatchObject({ step: 'set', detail: expect.stringMatching(/^The vault did not answer\. Where /) })
    broken = false
    await passTime(broker, 300_000)
    expect(vault.current?.version).toBe('v3')
  })

  test('whose last answer was lost is not given up: what is new may be in force', async () => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    let broken = true
    vault.onCall = (step) => {
      if (step !== 'finish' || !broken) return
      vault.promote(broker.clock.nowMs())
      throw lost()
    }
    await passTime(broker, monthMs)
    for (let i = 0; i < 15; i++) await passTime(broker, 600_000)
    expect([await lifeOf(broker), (await rowOf(broker)).run?.step]).toEqual([['begun'], 'finish'])
    broken = false
    await passTime(broker, 600_000)
    expect(await broker.lastEvent('rotation.finished')).toMatchObject({ version: 'v2' })
  })

  test('for it was put by hand meanwhile gives way at once', async () => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    let isPut = false
    vault.onCall = (step) => {
      if (step !== 'finish' || isPut) return
      isPut = true
      vault.put('v7', broker.clock.nowMs())
    }
    await passTime(broker, monthMs)
    expect(vault.current?.version).toBe('v7')
    expect(await broker.lastEvent('rotation.failed')).toMatchObject({ step: 'finish', detail: expect.stringContaining('Another value was put in force meanwhile.') })
    await passTime(broker, 300_000)
    expect(await rowOf(broker)).toMatchObject({ version: 'v7', failures: 0, nextAtMs: (vault.current?.sinceMs ?? 0) + monthMs })
  })

  test('shows when it is overdue: once for each date, in the log', async () => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    const dueMs = (vault.current?.sinceMs ?? 0) + monthMs
    vault.onCall = (step) => {
      if (step === 'create') throw refused()
    }
    // A tenth of a month is more than a day.
    broker.clock.set(dueMs + dayMs - 1)
    await runJobs(broker)
    expect(await lifeOf(broker)).not.toContain('overdue')
    for (let i = 0; i < 3; i++) await passTime(broker, 10_000)
    const listOverdue = async () => (await broker.events()).filter((event) => event.type === 'rotation.overdue' && event.rotation === 'billing')
    const overdue = await listOverdue()
    expect(overdue).toMatchObject([{ rotation: 'billing', due_at: new Date(dueMs).toISOString(), actor: { kind: 'stint', id: 'schedule' } }])
    vault.onCall = undefined
    await passTime(broker, 6 * hourMs)
    expect(vault.current?.version).toBe('v2')
    vault.onCall = () => {
      throw lost()
    }
    await passTime(broker, monthMs + 2 * dayMs)
    await passTime(broker, 10_000)
    expect(await listOverdue()).toHaveLength(2)
  })
})

const points: readonly Waypoint[] = ['rotation_begun', 'rotation_called', 'rotation_answered', 'rotation_stored']
/** How often each point is passed by a whole run that a look has begun, with the retirement. */
const passes = { rotation_begun: 1, rotation_called: 7, rotation_answered: 7, rotation_stored: 7 } as Record<Waypoint, number>
const places = points.flatMap((point) => Array.from({ length: passes[point] }, (_, i) => [point, i] as const))

describeEngines('A process that dies in a rotation', (engine) => {
  test.each(places)('at %s (%i) leaves what can be gone on with', async (point, nth) => {
    const control = { armed: false, left: nth }
    const { broker, vault } = await startRotating(engine, {
      pass: (passed) => {
        if (control.armed && passed === point && control.left-- === 0) throw new Error('the process died')
      },
    })
    await passTime(broker, tickMs)
    control.armed = true
    await passTime(broker, monthMs)
    // Not before the lease is over.
    if (control.left < 0) {
      const { calls } = structuredClone({ calls: vault.calls })
      await passTime(broker, 400)
      expect(vault.calls).toEqual(calls)
    }
    await passTime(broker, 61_000)
    await passTime(broker, 2 * hourMs)
    await passTime(broker, 61_000)
    expect(control.left).toBeLessThan(0)
    expect([vault.current?.version, vault.pending, [...vault.accepted]]).toEqual(['v2', undefined, ['v2']])
    expect(await lifeOf(broker)).toEqual(['begun', 'finished', 'retired'])
    expect(await rowOf(broker)).not.toHaveProperty('run')
  })
})

describePostgres('A process that hangs in a rotation', (engine) => {
  test.each(places)('at %s (%i) loses it to another one, and does no harm when it comes back', async (point, nth) => {
    const reached = Promise.withResolvers<undefined>()
    const gate = Promise.withResolvers<undefined>()
    const control = { armed: false, left: nth }
    const rotating = await startRotating(engine, {
      pass: async (passed) => {
        if (!control.armed || passed !== point || control.left-- !== 0) return
        reached.resolve(undefined)
        await gate.promise
      },
    })
    const { broker, vault } = rotating
    const beside = await startBeside(rotating)
    await passTime(beside, tickMs)
    control.armed = true
    broker.clock.advance(monthMs)
    // The last point of each kind is that of the retirement.
    const isRetirement = nth === 6
    if (isRetirement) {
      await runJobs(broker)
      broker.clock.advance(hourMs)
    }
    void broker.scheduler.tick()
    await reached.promise
    // What it had asked for goes on: a retirement looks first.
    await setTimeout(100)
    const before = stepsOf(vault)
    await passTime(beside, 59_000)
    expect(stepsOf(vault)).toEqual(before)
    await passTime(beside, 2_000)
    await passTime(beside, 2 * hourMs)
    gate.resolve(undefined)
    await runJobs(broker)
    expect([vault.current?.version, vault.pending, [...vault.accepted]]).toEqual(['v2', undefined, ['v2']])
    expect(await lifeOf(broker)).toEqual(['begun', 'finished', 'retired'])
    expect(await rowOf(broker)).toMatchObject({ version: 'v2', tries: 0 })
  })
})

describeEngines('While a rotation is under way', (engine) => {
  test('the policy set may change: it goes on by the one under which it began', async () => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    let hit = false
    vault.onCall = async (step) => {
      if (step !== 'set' || hit) return
      hit = true
      await applyPolicy(broker.broker, caller, writePolicies([], ['billing']))
      throw lost()
    }
    await passTime(broker, monthMs)
    await passTime(broker, tickMs)
    await passTime(broker, tickMs)
    expect([stepsOf(vault), vault.current?.version]).toEqual([['create', 'set', 'set', 'test', 'finish'], 'v2'])
    await passTime(broker, hourMs)
    expect(vault.accepted).toEqual(new Set(['v2']))
    // Of what is not rotated any more the row stays, and nothing is due.
    const row = await rowOf(broker)
    expect(row).toMatchObject({ version: 'v2', replaced: 'v1' })
    for (const member of ['scheduled', 'nextAtMs', 'dueAtMs', 'run']) expect(row).not.toHaveProperty(member)
    await passTime(broker, 3 * monthMs)
    expect(await lifeOf(broker)).toEqual(['begun', 'finished', 'retired'])
    await applyPolicy(broker.broker, caller, writePolicies(['billing']))
    await passTime(broker, tickMs)
    expect(vault.current?.version).toBe('v3')
  })

  test('a broker that stops hands it on', async () => {
    const { broker, vault } = await startRotating(engine)
    await passTime(broker, tickMs)
    vault.onCall = (step) => {
      if (step === 'set') broker.beginDraining()
    }
    await passTime(broker, monthMs)
    expect(stepsOf(vault)).toEqual(['create', 'set'])
    const row = await rowOf(broker)
    expect([row.run?.step, row.owner, row.dueAtMs]).toEqual(['test', undefined, broker.clock.nowMs()])
    expect(iso(broker)).toBe(new Date(row.dueAtMs ?? 0).toISOString())
  })
})
