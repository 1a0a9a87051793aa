import { writeFileSync, rmSync, mkdirSync } from 'node:fs'
import { availableParallelism, loadavg } from 'node:os'
import { join } from 'node:path'
import { measureBacklog, type BacklogFigures } from './bench/backlog.ts'
import { groups, planCases, type Case, type Plan, type Surroundings } from './bench/cases.ts'
import { createChildren } from './bench/children.ts'
import { createBenchFolder } from './bench/folder.ts'
import { describeMachine } from './bench/machine.ts'
import { Exhausted, takeSample, type Bench, type Measured, type Sample } from './bench/measure.ts'
import { readOptions, type Options } from './bench/options.ts'
import { startPostgres, type Postgres } from './bench/postgres.ts'
import { formatProfile, readProfile, summariseProfile } from './bench/profile.ts'
import { compareCases, formatAims, formatBacklogs, formatCases, formatComparisons, formatMachine, formatVerifier, judgeAims, warnOfOthers, type CaseResult } from './bench/report.ts'
import type { Subject } from './bench/subject.ts'
import { measureVerifier } from './bench/verify.ts'
import { findGenerator } from './bench/wrk.ts'

// `npm run bench`: how fast the broker gives tokens, beside node-oidc-provider, in one run on one machine.

const help = `Usage: npm run bench -- [options]

Measures how fast Stint gives tokens over HTTP, with the log durable and the
policies on, and beside it node-oidc-provider on its in-memory store, which does
the same job without policies and without a log. Each server is a process of its
own; one is measured at a time while the others stand still, in rounds.

backlog: a broker starts whose database has 50,000 credentials of PostgreSQL that
expired while it was down (quick: 2,000), or 2,000 (200) that are really there; new
grants are measured while it clears them, and afterwards.

Options:
  --quick       small sizes, short rounds: at most 90 s, for a first look
  --only NAMES  only these cases: ${groups.join(', ')}
  --seconds N   how long one measurement takes (default 4, quick 1)
  --rounds N    how often each case is measured (default 3, quick 1)
  --json FILE   write all figures to a file, too
  --profile     where the time goes on SQLite at 32 connections, by function and
                by file, instead of the table
  --help        this text

Examples:
  npm run bench -- --quick
  npm run bench -- --only sqlite,oidc --seconds 8 --json bench.json
  npm run bench -- --profile
`

const beganMs = performance.now()
const say = (text: string): void => console.error(`${((performance.now() - beganMs) / 1000).toFixed(0).padStart(4)} s  ${text}`)

/** First guesses of how many tokens a second are more than any subject gives; after the first round it is known better. */
const rateGuess = (connections: number): number => (connections === 1 ? 2_500 : 9_000)

async function main(options: Options): Promise<void> {
  const began = new Date().toISOString()
  const loadBefore = process.platform === 'win32' ? undefined : loadavg()[0]
  const children = createChildren()
  const folder = createBenchFolder()
  let postgres: Postgres | undefined
  let ending = false
  const cleanUp = async (): Promise<void> => {
    if (ending) return
    ending = true
    await children.stopAll()
    await postgres?.stop()
    rmSync(folder, { recursive: true, force: true })
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => void cleanUp().finally(() => process.exit(130)))
  }
  process.once('exit', () => children.killAll())
  try {
    const { advice, ...generator } = await findGenerator()
    if (advice !== undefined) say(advice)
    const bench: Bench = { children, folder, generator, warmUpSeconds: 1, seconds: options.seconds }
    if (options.profile) {
      console.log(await profile(bench))
      return
    }
    const plan = planCases(options.quick, options.only)
    const machine = describeMachine(folder, loadBefore)
    const missing: string[] = []
    if (plan.backlogs.length > 0 || plan.subjects.some(({ needsPostgres }) => needsPostgres === true)) {
      const started = await startPostgres(folder)
      if ('missing' in started) missing.push(`PostgreSQL could not be started here: ${started.missing}`)
      else postgres = started
    }
    const subjects = await startSubjects(plan, { children, folder, ...(postgres && { postgres }) })
    const results = await measureRounds(bench, plan.cases.filter(({ subject }) => subjects.has(subject)), subjects, options.rounds)
    const verified = plan.verified === undefined ? undefined : subjects.get(plan.verified)
    const verifier = verified && (await measureVerifier(children, folder, verified))
    const backlogs: BacklogFigures[] = []
    for (const one of plan.backlogs) {
      if (postgres === undefined) break
      backlogs.push(await measureBacklog(children, folder, postgres, one, Math.max(10, options.seconds)))
      say(`${one.name} is cleared`)
    }
    const comparisons = compareCases(plan.comparisons, results)
    const aims = judgeAims(results)
    const parts = [formatCases(results), formatComparisons(comparisons), formatAims(aims), verifier ? formatVerifier(verifier) : '', formatBacklogs(backlogs), formatMachine(machine), warnOfOthers(results)]
    console.log(`\n${parts.filter((part) => part !== '').join('\n\n')}`)
    console.log(`Load: ${generator.name}, ${options.rounds} × ${options.seconds} s each, the median (and the spread) of the rounds; request logs to files.`)
    for (const reason of missing) console.log(`Left out: ${reason}`)
    if (options.json !== undefined) {
      const notes = Object.fromEntries([...subjects].map(([name, { notes }]) => [name, notes]))
      const { quick, seconds, rounds } = options
      writeFileSync(options.json, `${JSON.stringify({ began, machine, generator: generator.name, quick, seconds, rounds, cases: results, comparisons, aims, verifier, backlogs, notes, missing }, undefined, 2)}\n`)
    }
  } finally {
    await cleanUp()
  }
}

/** Starts all subjects, a few at a time, and lets them stand still. */
async function startSubjects(plan: Plan, surroundings: Surroundings): Promise<Map<string, Subject>> {
  const subjects = new Map<string, Subject>()
  const waiting = plan.subjects.filter(({ needsPostgres }) => needsPostgres !== true || surroundings.postgres !== undefined)
  const startNext = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const subject = await next.start(surroundings)
      for (const server of subject.servers) server.pause()
      subjects.set(next.name, subject)
      say(`${next.name} is ready${Object.entries(subject.notes).map(([note, value]) => `, ${note.replaceAll('_', ' ')}: ${value}`).join('')}`)
    }
  }
  await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, startNext))
  return subjects
}

/** Measures the cases in turn, round after round, so that what disturbs the machine for a while disturbs them all. */
async function measureRounds(bench: Bench, cases: readonly Case[], subjects: ReadonlyMap<string, Subject>, rounds: number): Promise<CaseResult[]> {
  const measured = cases.map((one) => ({ ...one, rateMax: rateGuess(one.connections), samples: [] as Sample[] }))
  for (let round = 1; round <= rounds; round++) {
    for (const one of measured) {
      const subject = subjects.get(one.subject)
      if (subject === undefined) throw new Error(`${one.subject} was not started`)
      const { fromUs: _from, toUs: _to, ...sample } = await takeEnough(bench, subject, one)
      one.samples.push(sample)
      one.rateMax = Math.max(1_000, sample.tokensPerSecond * 1.6)
      say(`round ${round}: ${one.name}: ${sample.tokensPerSecond.toFixed(0)} tokens/s`)
    }
  }
  return measured.map(({ name, subject, connections, samples }) => ({ name, subject, connections, samples }))
}

/** Takes a sample, again with more bodies where they ran out. */
async function takeEnough(bench: Bench, subject: Subject, { connections, rateMax }: { readonly connections: number; readonly rateMax: number }): Promise<Measured> {
  try {
    return await takeSample(bench, subject, { connections, rateMax })
  } catch (error) {
    if (!(error instanceof Exhausted)) throw error
    return takeSample(bench, subject, { connections, rateMax: rateMax * 3 })
  }
}

/** Measures the first case with V8's profiler on, and tells where the time went meanwhile. */
async function profile(bench: Bench): Promise<string> {
  const profiles = join(bench.folder, 'profiles')
  mkdirSync(profiles)
  const [plan] = planCases(true, ['sqlite']).subjects
  if (plan === undefined) throw new Error('there is nothing to profile')
  const subject = await plan.start({ children: bench.children, folder: bench.folder, nodeOptions: ['--cpu-prof', `--cpu-prof-dir=${profiles}`] })
  const { fromUs, toUs, ...sample } = await takeEnough(bench, subject, { connections: 32, rateMax: rateGuess(32) })
  for (const server of subject.servers) await server.stop()
  return `${formatCases([{ name: 'sqlite ×32, profiled', subject: 'sqlite', connections: 32, samples: [sample] }])}\n\n${formatProfile(summariseProfile(readProfile(profiles), fromUs, toUs))}`
}

try {
  const options = readOptions(process.argv.slice(2), groups)
  if (options.help) console.log(help)
  else await main(options)
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
