import { setTimeout } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import type { Meter } from '../src/kernel/meter.ts'
import { createScheduler, type Job } from '../src/scheduler.ts'
import { createTestClock, createTestLog } from './harness.ts'

/** A job that counts its runs, and by default is done at once. */
function createJob(name: string, everyMs: number, work: () => Promise<void> = async () => {}): Job & { runs: number } {
  const job = {
    name,
    everyMs,
    runs: 0,
    run() {
      job.runs++
      return work()
    },
  }
  return job
}

/** A meter that adds up what is counted, by name and labels. */
function createTestMeter(): Meter & { readonly counts: Map<string, number> } {
  const counts = new Map<string, number>()
  return {
    counts,
    count(name, labels, by = 1) {
      const key = `${name} ${JSON.stringify(labels)}`
      counts.set(key, (counts.get(key) ?? 0) + by)
    },
    observe: () => undefined,
  }
}

function setUp(...jobs: readonly Job[]) {
  const clock = createTestClock()
  const { log, lines } = createTestLog()
  return { clock, lines, scheduler: createScheduler({ clock, log, jobs }) }
}

test('a job runs when its period has passed by the clock, and not before', async () => {
  const job = createJob('sweep', 10_000)
  const { clock, scheduler } = setUp(job)
  await scheduler.tick()
  expect(job.runs).toBe(0)
  clock.advance(9_999)
  await scheduler.tick()
  expect(job.runs).toBe(0)
  clock.advance(1)
  await scheduler.tick()
  await scheduler.tick()
  expect(job.runs).toBe(1)
  clock.advance(9_999)
  await scheduler.tick()
  expect(job.runs).toBe(1)
  clock.advance(1)
  await scheduler.tick()
  expect(job.runs).toBe(2)
})

test('what was missed while the machine slept is made up for once', async () => {
  const job = createJob('sweep', 10_000)
  const { clock, scheduler } = setUp(job)
  clock.advance(1_000_000)
  await scheduler.tick()
  await scheduler.tick()
  expect(job.runs).toBe(1)
})

test.each([
  ['rejects', async () => Promise.reject(new Error('disk full'))],
  [
    'throws at once',
    () => {
      throw new Error('disk full')
    },
  ],
] as const)('a job that %s is told to the log, tried again at its next time, and stops no other', async (_, work) => {
  const [bad, good] = [createJob('bad', 1000, work), createJob('good', 1000)]
  const { clock, lines, scheduler } = setUp(bad, good)
  for (let i = 1; i <= 2; i++) {
    clock.advance(1000)
    await scheduler.tick()
    expect([bad.runs, good.runs]).toEqual([i, i])
  }
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { level: 'error', job: 'bad', error: { message: 'disk full' } },
    { level: 'error', job: 'bad', error: { message: 'disk full' } },
  ])
})

test('a job that hangs runs once at a time, and holds up no other', async () => {
  let finish = (): void => {}
  const hanging = createJob('hanging', 1000, () => new Promise((resolve) => (finish = resolve)))
  const good = createJob('good', 1000)
  const { clock, scheduler } = setUp(hanging, good)
  const ticks: Promise<void>[] = []
  for (let i = 0; i < 3; i++) {
    clock.advance(1000)
    ticks.push(scheduler.tick())
    await setTimeout(1)
  }
  expect([hanging.runs, good.runs]).toEqual([1, 3])
  finish()
  await Promise.all(ticks)
  clock.advance(1000)
  void scheduler.tick()
  expect(hanging.runs).toBe(2)
  finish()
  await scheduler.stop()
})

test('a clock that is set back puts no job off for longer than its period', async () => {
  const job = createJob('sweep', 10_000)
  const { clock, scheduler } = setUp(job)
  clock.advance(-86_400_000)
  await scheduler.tick()
  expect(job.runs).toBe(1)
  clock.advance(9_999)
  await scheduler.tick()
  expect(job.runs).toBe(1)
  clock.advance(1)
  await scheduler.tick()
  expect(job.runs).toBe(2)
})

test('once started it ticks by itself every second, and not after it was stopped', async () => {
  vi.useFakeTimers()
  try {
    const job = createJob('sweep', 1000)
    const { clock, scheduler } = setUp(job)
    scheduler.start()
    scheduler.start()
    for (let i = 1; i <= 3; i++) {
      clock.advance(1000)
      await vi.advanceTimersByTimeAsync(1000)
      expect(job.runs).toBe(i)
    }
    expect(vi.getTimerCount()).toBe(1)
    await scheduler.stop()
    expect(vi.getTimerCount()).toBe(0)
    clock.advance(1000)
    await vi.advanceTimersByTimeAsync(5000)
    expect(job.runs).toBe(3)
  } finally {
    vi.useRealTimers()
  }
})

test('to stop it waits for what is running', async () => {
  let finish = (): void => {}
  const job = createJob('slow', 1000, () => new Promise((resolve) => (finish = resolve)))
  const { clock, scheduler } = setUp(job)
  clock.advance(1000)
  void scheduler.tick()
  let stopped = false
  const stopping = scheduler.stop().then(() => (stopped = true))
  await setTimeout(5)
  expect(stopped).toBe(false)
  finish()
  await stopping
})

test('each failure is counted, and a job that never failed counts none', async () => {
  const bad = createJob('bad', 1_000, () => Promise.reject(new Error('no')))
  const good = createJob('good', 1_000)
  const clock = createTestClock()
  const { log } = createTestLog()
  const meter = createTestMeter()
  const scheduler = createScheduler({ clock, log, meter, jobs: [bad, good] })
  expect([...meter.counts]).toEqual([['job_failures {"job":"bad"}', 0], ['job_failures {"job":"good"}', 0]])
  for (let i = 0; i < 3; i++) {
    clock.advance(1_000)
    await scheduler.tick()
  }
  expect([...meter.counts]).toEqual([['job_failures {"job":"bad"}', 3], ['job_failures {"job":"good"}', 0]])
})
