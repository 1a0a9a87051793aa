// `npm run crash`: brokers under load are killed with SIGKILL and started again. `npm run crash -- --help` tells more.
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Engine } from '../src/storage/engine.ts'
import { emulatorMissing } from '../test/aws/emulator.ts'
import { runAwsRounds, type AwsReport } from '../test/crash/aws-rounds.ts'
import { runLendingRounds, type LendingReport } from '../test/crash/lending-rounds.ts'
import { runCrashRounds, type CrashReport } from '../test/crash/rounds.ts'

const help = `Usage: npm run crash -- [--connectors|--aws] [--engine both] [--rounds 200] [--seconds 1800] [--seed N] [--json FILE]

Runs a broker in production mode, uses it hard, kills it with SIGKILL at a random
moment (from 5 ms to 2 s after its first answer, while it starts, while it
migrates), starts it again, and compares what its clients were told with what is
there:

  - every token that a client has read is in the log, by its jti and audit index
  - every change that was answered is in the log once, and in force: revocations,
    suspensions, registrations, keys, policy sets; nothing is there twice
  - the tree is that of the bodies, and so are the head and every checkpoint that
    was ever stored or given to anybody
  - no assertion that was accepted is accepted again, also with the clock set back
  - the broker starts within a minute and says that it is ready

SIGKILL ends the process and nothing else: what it had written the operating
system still has. So this does not test that what is committed survives a loss of
power: for that, trust fsync (SQLite runs with synchronous=FULL; PostgreSQL is
refused with fsync or synchronous_commit off).

With --connectors the broker lends roles of a real PostgreSQL, renews them and ends
them, and dies at random and at every point between the steps of lending and ending
(each as often as any other), also while it clears what the one before has left; now
and then its connections to the tool are cut. After each start and one sweep:

  - no role and no session of one is there without a live grant
  - every credential that a client has read is in the log; it works while its grant
    is alive, and is refused from the answer on that says that it was ended
  - of one idempotency key no two credentials are alive
  - no grant is left between two states, and none is stuck
  - the offline verifier accepts the log

With --aws the broker lends sessions of a role of AWS (an emulator), denies those that
are over, and lends and replaces two secrets, which are passwords of a real PostgreSQL:
one in Secrets Manager, one that it keeps itself. It dies at every point of that as
well, and AWS's answers are lost now and then. After each kill, before the next start:

  - every session of which an answer said that it was ended is denied in the role
  - each secret has one version in force, and it logs in

After the start and one sweep, while the clock goes on:

  - every session that AWS was asked for is in the log before it; it is alive there,
    or denied in the role, or dead; and no session that is alive is denied
  - no rotation and no grant is left half-way; a value that was ended logs in no more,
    and one that is lent afresh does
  - the deny policies hold nothing else, and the offline verifier accepts the log

AWS itself is not there: that it enforces what its policies say is not tested.

Options:
  --connectors   lending and ending roles of PostgreSQL, as above
  --aws          sessions of AWS, and secrets that are replaced, as above
  --engine E     sqlite, postgres, or both (default; PostgreSQL is started for it)
  --rounds N     kills under load for each engine (default 200); with --connectors
                 and --aws the engine is that of Stint's own database
  --seconds S    begins no round after so many for each engine (default 1800)
  --seed N       what is done when; the same again for the same number, but for
                 what the speed of the machine decides
  --json FILE    also writes the figures there

Ends with 1 where something was wrong; the database is kept then.
`

const options = {
  connectors: { type: 'boolean', default: false },
  aws: { type: 'boolean', default: false },
  engine: { type: 'string', default: 'both' },
  rounds: { type: 'string', default: '200' },
  seconds: { type: 'string', default: '1800' },
  seed: { type: 'string' },
  json: { type: 'string' },
  help: { type: 'boolean', short: 'h', default: false },
} as const
const { values } = readOptions()

function readOptions() {
  try {
    return parseArgs({ options })
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error))
  }
}

function readCount(name: 'rounds' | 'seconds' | 'seed', text: string): number {
  if (!/^\d{1,9}$/.test(text) || (name === 'rounds' && Number(text) === 0)) fail(`--${name} takes a whole number, not ${text}`)
  return Number(text)
}

function fail(message: string): never {
  console.error(`crash: ${message}. See: npm run crash -- --help`)
  process.exit(2)
}

const onTerminal = process.stdout.isTTY

function tellRound({ engine, rounds, counts, tried, kills }: CrashReport): void {
  const line = `${engine}: round ${rounds}, ${sum(kills)} kills, ${counts.tokens} tokens received, ${counts.unanswered} requests unanswered, ${tried.entries} entries checked, ${tried.replays} replays tried`
  if (onTerminal) process.stdout.write(`\r\x1b[K${line}`)
  else if (rounds % 10 === 0) console.log(line)
}

function sum(numbers: Readonly<Record<string, number>>): number {
  return Object.values(numbers).reduce((total, n) => total + n, 0)
}

function tellLendingRound({ engine, rounds, kills, orphans, counts }: LendingReport): void {
  const line = `${engine}: round ${rounds}, ${sum(kills)} kills, ${counts.received} credentials received, ${orphans.found} orphans found and ${orphans.cleared} cleared`
  if (onTerminal) process.stdout.write(`\r\x1b[K${line}`)
  else if (rounds % 10 === 0) console.log(line)
}

function tellLendingEnd(report: LendingReport): void {
  const { engine, seed, rounds, databases, kills, killsWhileRecovering, missed, clockMoves, entries, orphans, slowestStartMs, counts, seconds, problems } = report
  if (onTerminal) process.stdout.write('\r\x1b[K')
  const byPoint = Object.entries(kills).map(([point, count]) => `${count} ${point.replaceAll('_', ' ')}`)
  console.log(`
${engine}: ${rounds} rounds on ${databases} databases in ${seconds.toFixed(0)} s (seed ${seed})
  killed         ${sum(kills)} times: ${byPoint.join(', ')}
                 ${killsWhileRecovering} of them while clearing what the one before had left; ${missed} points were not reached in time
  clock moved    ${clockMoves} times under load, and over the leases after each start
  grants         ${counts.asked} asked for, ${counts.received} received, ${counts.unanswered} requests of all kinds unanswered, ${counts.repeated} sent again under their key
  in use         ${counts.logins} logins, ${counts.renewed} renewals, ${counts.givenBack} given back, ${counts.revocations} orders by an admin, ${counts.refusedLogins} logins refused of what was ended
  cut            ${counts.cuts} connections to the tool, ${counts.toolFailures} requests failed by it
  orphans        ${orphans.found} roles found after a start without a live grant, ${orphans.cleared} cleared by the sweep (${counts.sweepsMore} more sweeps for what was put off)
  checked        ${entries} entries
  slowest start  ${slowestStartMs} ms
  ${problems.length === 0 ? 'nothing lost, nothing left' : `WRONG:\n    ${problems.join('\n    ')}`}`)
}

function tellAwsRound({ engine, rounds, kills, sessions, rotations, counts }: AwsReport): void {
  const line = `${engine}: round ${rounds}, ${sum(kills)} kills, ${counts.received} credentials received, ${sessions.opened} sessions opened, ${rotations.ordered} rotations ordered`
  if (onTerminal) process.stdout.write(`\r\x1b[K${line}`)
  else if (rounds % 10 === 0) console.log(line)
}

function tellAwsEnd(report: AwsReport): void {
  const { engine, seed, rounds, databases, kills, killsWhileRecovering, missed, clockMoves, entries, sessions, rotations, slowestStartMs, counts, seconds, problems } = report
  if (onTerminal) process.stdout.write('\r\x1b[K')
  const byPoint = Object.entries(kills).map(([point, count]) => `${count} ${point.replaceAll('_', ' ')}`)
  console.log(`
${engine}: ${rounds} rounds on ${databases} databases in ${seconds.toFixed(0)} s (seed ${seed})
  killed         ${sum(kills)} times: ${byPoint.join(', ')}
                 ${killsWhileRecovering} of them while clearing what the one before had left; ${missed} points were not reached in time
  clock moved    ${clockMoves} times under load, and over the leases after each start
  grants         ${counts.asked} asked for, ${counts.received} received, ${counts.unanswered} requests of all kinds unanswered, ${counts.repeated} sent again under their key
  in use         ${counts.logins} logins, ${counts.givenBack} given back, ${counts.revocations} orders by an admin, ${counts.refusedLogins} logins refused of what was ended
  cut            ${counts.cuts} times calls to AWS lost their answers, ${counts.toolFailures} requests failed by it
  sessions       ${sessions.opened} opened, ${sessions.lost} of them given to nobody; ${sessions.denied} found denied (${counts.sweepsMore} more sweeps for what was put off)
  rotations      ${rotations.ordered} ordered by an admin, ${rotations.begun} begun, ${rotations.finished} finished, ${rotations.failed} failed, ${rotations.resumed} resumed after a kill, ${rotations.retired} versions retired
  checked        ${entries} entries
  slowest start  ${slowestStartMs} ms
  ${problems.length === 0 ? 'no session without a record, no secret without a version in force' : `WRONG:\n    ${problems.join('\n    ')}`}`)
}

function tellEnd(report: CrashReport): void {
  const { engine, seed, rounds, databases, kills, clockMoves, counts, tried, slowestStartMs, seconds, problems } = report
  if (onTerminal) process.stdout.write('\r\x1b[K')
  console.log(`
${engine}: ${rounds} rounds on ${databases} databases in ${seconds.toFixed(0)} s (seed ${seed})
  killed         ${sum(kills)} times: ${kills.serving} under load, ${kills.justStarted} just after the start, ${kills.starting} while starting, ${kills.migrating} while migrating
  clock moved    ${clockMoves} times, 5 to 15 minutes ahead under load and back behind the kill
  answered       ${counts.answered} requests: ${counts.tokens} tokens, ${counts.denials} denials, ${counts.revocations} revocations, ${counts.changes} changes by an admin
  unanswered     ${counts.unanswered} requests, of which ${tried.retries} were sent again; ${counts.unavailable} were told that it could not be done just then
  checked        ${tried.entries} entries, ${counts.checkpoints} checkpoints as given, ${tried.introspections} tokens by introspection
  replays tried  ${tried.replays}
  slowest start  ${slowestStartMs} ms
  ${problems.length === 0 ? 'nothing lost, nothing twice' : `WRONG:\n    ${problems.join('\n    ')}`}`)
}

if (values.help) {
  process.stdout.write(help)
} else {
  if (values.aws && values.connectors) fail('--aws and --connectors are two runs: give one of them')
  if (values.aws && emulatorMissing !== '') fail(`--aws needs an emulator: ${emulatorMissing}`)
  const engines: Record<string, readonly Engine[]> = { sqlite: ['sqlite'], postgres: ['postgres'], both: ['sqlite', 'postgres'] }
  const chosen = engines[values.engine] ?? fail(`--engine is sqlite, postgres or both, not ${values.engine}`)
  const limits = { rounds: readCount('rounds', values.rounds), seconds: readCount('seconds', values.seconds) }
  const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000) : readCount('seed', values.seed)
  const folder = mkdtempSync(join(tmpdir(), 'stint-crash-'))
  const stopping = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      // What it started ends with it, also now.
      if (stopping.signal.aborted) process.exit(130)
      console.log('\nStopping after this round; once more stops at once.')
      stopping.abort()
    })
  }
  // Run by root, a PostgreSQL has a user of its own, who must be able to walk through to its data.
  chmodSync(folder, 0o711)
  const reports: (CrashReport | LendingReport | AwsReport)[] = []
  for (const engine of chosen) {
    if (stopping.signal.aborted) break
    // Either may have a PostgreSQL: for the log, or as the tool.
    const own = join(folder, engine)
    mkdirSync(own)
    const run = { engine, ...limits, seed, folder: own, signal: stopping.signal }
    if (values.aws) {
      const report = await runAwsRounds({ ...run, onRound: tellAwsRound })
      reports.push(report)
      tellAwsEnd(report)
    } else if (values.connectors) {
      const report = await runLendingRounds({ ...run, onRound: tellLendingRound })
      reports.push(report)
      tellLendingEnd(report)
    } else {
      const report = await runCrashRounds({ ...run, onRound: tellRound })
      reports.push(report)
      tellEnd(report)
    }
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(reports, undefined, 2)}\n`)
  const wrong = reports.some(({ problems }) => problems.length > 0)
  if (wrong) console.log(`\nThe database is kept in ${folder}. Again: npm run crash --${values.connectors ? ' --connectors' : ''}${values.aws ? ' --aws' : ''} --seed ${seed}`)
  else rmSync(folder, { recursive: true })
  process.exitCode = wrong ? 1 : 0
}
