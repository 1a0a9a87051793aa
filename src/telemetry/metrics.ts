import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Counters, Gauges, Measures, Meter, Metrics, Reading } from '../kernel/meter.ts'
import { watchProcess } from './process.ts'

export interface MetricsOptions {
  readonly version: string
  /** Reads what is counted only when somebody asks. May hang or fail with the database. */
  readFigures(): Promise<readonly Reading[]>
  readonly readMsMax?: number
}

interface Description<L> {
  readonly help: string
  readonly labels: readonly (keyof L & string)[]
}

const counters: { readonly [N in keyof Counters]: Description<Counters[N]> } = {
  tokens_issued: { help: 'Tokens that were given out.', labels: ['tool'] },
  credentials_lent: { help: 'Credentials of outside tools that were given out.', labels: ['tool'] },
  end_failures: { help: 'Tries to end a credential that its tool refused or did not answer.', labels: ['tool'] },
  rotation_steps: { help: 'Steps of rotations, by what came of them.', labels: ['rotation', 'step', 'outcome'] },
  deny_failures: { help: 'Tries to write a list of what is denied that came to nothing.', labels: ['tool'] },
  deny_repairs: { help: 'How often a list of what is denied was found changed by somebody else.', labels: ['tool'] },
  requests_denied: { help: 'Requests of proven workloads that ended without a token.', labels: ['reason'] },
  refusals: { help: 'Callers who were not believed, replays among them.', labels: ['realm', 'reason'] },
  requests_limited: { help: 'Requests that were told to wait.', labels: ['scope'] },
  policy_reloads: { help: 'How often the policy folder was read again.', labels: ['outcome'] },
  job_failures: { help: 'Scheduled jobs that failed.', labels: ['job'] },
  anchor_failures: { help: 'Tries to keep checkpoints in an anchor that failed.', labels: ['kind'] },
  ledger_failures: { help: 'Transactions of the ledger that came to nothing as a whole.', labels: [] },
}

const measures: { readonly [N in keyof Measures]: Description<Measures[N]> & { readonly buckets: number[] } } = {
  http_request_seconds: {
    help: 'From the arrival of a request until its answer begins.',
    labels: ['method', 'route', 'status'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
  },
  ledger_batch_changes: { help: 'Changes that share one transaction of the ledger.', labels: [], buckets: [1, 2, 4, 8, 16, 32, 64, 128] },
  ledger_wait_seconds: {
    help: 'From the arrival of a change at the ledger until its transaction begins.',
    labels: [],
    buckets: [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5],
  },
  ledger_commit_seconds: {
    help: 'One transaction of the ledger, its commit included.',
    labels: [],
    buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5],
  },
}

const gauges: { readonly [N in keyof Gauges]: Description<Gauges[N]> } = {
  epoch: { help: 'The epoch on the head of the log.', labels: [] },
  log_entries: { help: 'Entries in the log.', labels: [] },
  log_halted: { help: '1 while nothing can be committed any more.', labels: [] },
  log_writable: { help: '0 if the last transaction of the ledger came to nothing as a whole, or none is tried any more.', labels: [] },
  anchor_behind_entries: { help: 'Entries of checkpoints that an anchor did not have when it was tried last.', labels: ['kind'] },
  clock_behind_seconds: { help: 'How far the clock is behind the log.', labels: [] },
  database_answers: { help: '1 if the database answered this scrape; without it, what is read from it is missing.', labels: [] },
  policy_set_age_seconds: { help: 'For how long the policy set has been in force.', labels: [] },
  policies: { help: 'Policies in the set in force.', labels: [] },
  tools: { help: 'Tools in the catalog in force.', labels: [] },
  workloads: { help: 'Registered workloads.', labels: ['status'] },
  credentials: { help: 'Grants whose credential lives in an outside tool and is not over.', labels: ['state'] },
  credentials_overdue: { help: 'Credentials that should have been looked at a minute ago.', labels: [] },
  denials: { help: 'Grants that are over and have to be denied in the tool until their session dies.', labels: ['tool'] },
  denials_max: { help: 'How many grants can be denied in the tool at a time.', labels: ['tool'] },
  reviews_due: { help: 'Active workloads that suspend themselves within 14 days.', labels: [] },
  reviews_overdue: { help: 'Workloads, retired ones aside, whose review date has passed.', labels: [] },
  rotations_overdue: { help: '1 where a long-lived secret should have been replaced for some time.', labels: ['rotation'] },
  rotations_failed: { help: '1 where the last rotation came to nothing; what was in force still is.', labels: ['rotation'] },
  operators: { help: 'Operators whose credential is neither expired nor revoked.', labels: ['role'] },
  operators_expiring: { help: 'Operators whose credential expires within 14 days.', labels: ['role'] },
}

/** What somebody has caught and sent again: the first one is worth an alarm. */
const replays: readonly Counters['refusals'][] = [
  { realm: 'workload', reason: 'replayed' },
  { realm: 'enrolment', reason: 'replayed' },
  { realm: 'sign_in', reason: 'id_token_replayed' },
]

/**
 * The broker's figures in a registry of its own, so that two brokers in one process do not mix. The sets of labels are
 * closed: what a stranger sends makes no series.
 */
export function createMetrics({ version, readFigures, readMsMax = 2_000 }: MetricsOptions): Metrics & { readonly meter: Meter; close(): void } {
  const registry = new Registry()
  const registers = [registry]
  const made = {
    counters: mapNames(counters, (name, { help, labels }) => new Counter({ name: `stint_${name}_total`, help, labelNames: labels, registers })),
    measures: mapNames(measures, (name, { help, labels, buckets }) => new Histogram({ name: `stint_${name}`, help, labelNames: labels, buckets, registers })),
  }
  // An alarm on a rate needs a first value that is not yet the fault.
  for (const outcome of ['changed', 'unchanged', 'failed']) made.counters.policy_reloads.inc({ outcome }, 0)
  for (const scope of ['address', 'workload']) made.counters.requests_limited.inc({ scope }, 0)
  for (const labels of replays) made.counters.refusals.inc(labels, 0)
  new Gauge({ name: 'stint_build_info', help: 'Always 1.', labelNames: ['version', 'node'], registers }).set({ version, node: process.version }, 1)
  const stopWatching = watchProcess(registry)

  // One at a time: scrapes must not pile up on a database that hangs.
  let reading: Promise<readonly Reading[]> | undefined

  async function readInTime(): Promise<readonly Reading[]> {
    reading ??= readFigures().finally(() => (reading = undefined))
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('the figures were not read in time')), readMsMax)
    })
    return Promise.race([reading, late]).finally(() => clearTimeout(timer))
  }

  return {
    contentType: registry.contentType,
    meter: {
      count: (name, labels, by) => made.counters[name].inc(labels, by),
      observe: (name, value, labels) => made.measures[name].observe(labels, value),
    },
    async read() {
      const readings = await readInTime().catch((): Reading[] => [{ name: 'database_answers', labels: {}, value: 0 }])
      return `${await registry.metrics()}${await describeReadings(readings)}`
    },
    close: stopWatching,
  }
}

/** In a registry of their own, made anew each time: what is not read now must not show as it was. */
function describeReadings(readings: readonly Reading[]): Promise<string> {
  const registry = new Registry()
  const made = new Map<string, Gauge>()
  for (const { name, labels, value } of readings) {
    const { help, labels: labelNames } = gauges[name]
    const gauge = made.get(name) ?? new Gauge({ name: `stint_${name}`, help, labelNames, registers: [registry] })
    made.set(name, gauge)
    gauge.set(labels, value)
  }
  return registry.metrics()
}

/** The same names with other values. */
function mapNames<N extends string, D, R>(described: Readonly<Record<N, D>>, make: (name: N, description: D) => R): Record<N, R> {
  // Object.keys forgets the type of the keys.
  return Object.fromEntries((Object.keys(described) as N[]).map((name) => [name, make(name, described[name])])) as Record<N, R>
}
