import type { Clock } from './kernel/clock.ts'
import type { Log } from './kernel/log.ts'
import { silentMeter, type Meter } from './kernel/meter.ts'

/** Something that has to happen again and again without anybody remembering it (invariant 11). */
export interface Job {
  readonly name: string
  readonly everyMs: number
  run(): Promise<void>
}

export interface Scheduler {
  /** Runs what is due by the clock, each job by itself: one that fails or hangs does not hold up the others. */
  tick(): Promise<void>
  /** Ticks four times a second from now on. */
  start(): void
  /** Stops ticking and waits for what is running. */
  stop(): Promise<void>
}

const tickMs = 250

export interface SchedulerOptions {
  readonly clock: Clock
  readonly log: Log
  readonly meter?: Meter
  readonly jobs: readonly Job[]
}

export function createScheduler({ clock, log, meter = silentMeter, jobs }: SchedulerOptions): Scheduler {
  const dueMs = new Map(jobs.map((job) => [job.name, clock.nowMs() + job.everyMs]))
  const running = new Map<string, Promise<void>>()
  let timer: NodeJS.Timeout | undefined
  // An alarm on a rate needs a first value that is not yet the fault.
  for (const { name } of jobs) meter.count('job_failures', { job: name }, 0)

  async function runJob(job: Job): Promise<void> {
    try {
      await job.run()
    } catch (error) {
      meter.count('job_failures', { job: job.name })
      log.error('a scheduled job failed; it is tried again at its next time', { job: job.name, error })
    }
  }

  async function tick(): Promise<void> {
    const nowMs = clock.nowMs()
    for (const job of jobs) {
      const due = dueMs.get(job.name) ?? 0
      // A clock that was set back must not put a job off for longer than its period.
      const isDue = due <= nowMs || due > nowMs + job.everyMs
      if (!isDue || running.has(job.name)) continue
      dueMs.set(job.name, nowMs + job.everyMs)
      // Taken out behind the promise, and so never before it was put in, as a job that throws at once would be.
      running.set(job.name, runJob(job).finally(() => running.delete(job.name)))
    }
    await Promise.all(running.values())
  }

  return {
    tick,
    start() {
      timer ??= setInterval(() => void tick(), tickMs)
    },
    async stop() {
      clearInterval(timer)
      timer = undefined
      if (running.size > 0) log.info('waiting for scheduled jobs', { jobs: [...running.keys()] })
      await Promise.all(running.values())
    },
  }
}
