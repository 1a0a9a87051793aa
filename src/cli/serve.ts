import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseConfig } from '../config-file.ts'
import type { Config } from '../config.ts'
import { formatTime, systemClock } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { createLog, type Log, type LogLevel } from '../kernel/log.ts'
import { startDevelopment, startProduction, type RunningBroker } from '../main.ts'
import { countOperators } from '../storage/operators.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { formatProblem, problemsOf } from './failure.ts'
import { introduce } from './introduction.ts'
import type { Broker } from '../broker/broker.ts'
import { startWarehouse, type Warehouse } from './sample/warehouse.ts'
import { createPlainLog } from './plain-log.ts'

export const serveCommand: Command = {
  name: 'serve',
  summary: 'run the broker',
  help: `Usage: stint serve --config FILE
       stint serve --dev [--port 7846] [--data .stint] [--policies policies]

Runs the broker until it is told to stop (Ctrl-C, SIGTERM); it then finishes
what was begun. The policy folder comes into force whenever it changes
(production: as policies.reload says). SIGHUP reads it again at once; it stops a
broker in development, and one whose output is a terminal: that one has closed.

Options:
  --config FILE   production: everything as stint.yaml says, nothing made up
                  (\`stint config\` lists every option)
  --dev           development: loopback without TLS, SQLite, keys made when missing
  --port N        development: the port (default 7846)
  --data DIR      development: where everything is kept (default .stint)
  --policies DIR  development: the policy files (default policies)

Examples:
  stint serve --dev
  stint serve --config /etc/stint/stint.yaml
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('serve', args, {
      config: { type: 'string' },
      dev: { type: 'boolean' },
      port: { type: 'string' },
      data: { type: 'string' },
      policies: { type: 'string' },
    })
    if (positionals.length > 0) throw new UsageError(`serve takes no ${positionals[0] ?? ''}. See: stint serve --help`)
    if ((values.config === undefined) === (values.dev !== true)) {
      throw new UsageError('give either --config FILE (production) or --dev (development).')
    }
    if (values.config === undefined) return serveDevelopment(values, io)
    if (values.port !== undefined || values.data !== undefined || values.policies !== undefined) {
      throw new UsageError('--port, --data and --policies are for --dev; in production the configuration says them.')
    }
    const config = readConfig(values.config)
    const log = createGatheredLog(io, config.log.level)
    try {
      const running = await startProduction(config, io.env, log).catch(refuseFirstPolicies)
      const attached = io.columns !== undefined
      const stopped = listenForStop(attached ? undefined : () => void reloadPolicies(running, log))
      // By the key that stands here, an auditor makes sure of the one that came over the network.
      log.info('Stint is ready', { url: running.url, log_key: running.composition.broker.checkpointKey.verifierKey })
      const operators = await countOperators(running.composition.broker.database.read)
      if (operators === 0) log.warn('there is no operator yet: make the first one with `stint migrate --config FILE --admin NAME`')
      await stopWhen(stopped, running, () => log.info('stopping: finishing what was begun'))
      return 0
    } finally {
      log.end()
    }
  },
}

interface DevelopmentValues {
  readonly port?: string | undefined
  readonly data?: string | undefined
  readonly policies?: string | undefined
}

async function serveDevelopment({ port = '7846', data = '.stint', policies = 'policies' }: DevelopmentValues, io: Io): Promise<number> {
  if (!/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65_535) {
    throw new UsageError(`--port ${port} is not a port: give a number from 1 to 65535.`)
  }
  const beganMs = performance.now()
  const folder = resolve(data)
  // The sample database adds its root credential, and where it is depends on the start.
  const env = { ...io.env }
  const running = await startDevelopment({
    env,
    folder,
    policyFolder: resolve(policies),
    port: Number(port),
    log: createPlainLog(io),
  }).catch(refuseFirstPolicies)
  const readyMs = Math.round(performance.now() - beganMs)
  io.out(`Stint is ready at ${running.url} (development mode, ${readyMs} ms). Everything is kept in ${data}; delete it to start afresh.\n`)
  const stopped = listenForStop()
  const warehouse = await openWarehouse(running.composition.broker, env, io)
  try {
    await introduce({ running, warehouse, keyFile: join(folder, 'triage-bot.key'), shownKeyFile: join(data, 'triage-bot.key') }, io)
  } catch (error) {
    // A policy set of one's own need not know the sample agent: the broker is well all the same.
    io.err(`The sample agent could not be shown: ${error instanceof Error ? error.message : String(error)}\n`)
  }
  io.out('Ctrl-C stops it.\n')
  await stopWhen(stopped, running, () => io.out('\nStopping: finishing what was begun.\n'))
  await warehouse?.stop()
  return 0
}

/**
 * Starts the sample database, where the catalog has the sample tool and nobody has brought a database for it. Without one the
 * broker is well all the same.
 */
async function openWarehouse({ knowledge }: Broker, env: Record<string, string | undefined>, io: Io): Promise<Warehouse | undefined> {
  const { policySet } = await knowledge.current()
  if (policySet?.catalog.get('warehouse')?.connector !== 'postgres' || env['WAREHOUSE_URL'] !== undefined) return undefined
  try {
    const warehouse = await startWarehouse()
    env['WAREHOUSE_URL'] = warehouse.rootUrl
    return warehouse
  } catch (error) {
    io.err(`The sample database is left out: ${error instanceof Error ? error.message : String(error)}. Set WAREHOUSE_URL to a PostgreSQL of your own to try the tool warehouse.\n`)
    return undefined
  }
}

/** A set that does not load is fatal only while none is in force: there is nothing to stay with. */
function refuseFirstPolicies(error: unknown): never {
  const problems = error instanceof BrokerError && error.code === 'policy_invalid' ? problemsOf(error) : []
  if (problems.length === 0) throw error
  const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`
  throw new CommandError([`the policy folder has ${count}, and no set is in force yet:`, ...problems.map(formatProblem)].join('\n'))
}

/**
 * Resolves once the process was told to stop. A second signal ends it at once. Begun before anybody is told how to stop it.
 * SIGHUP calls `reload` where there is one, and else is told when the terminal was closed.
 */
function listenForStop(reload?: () => void): Promise<void> {
  return new Promise<void>((resolveStop) => {
    const stopSignals = reload === undefined ? (['SIGINT', 'SIGTERM', 'SIGHUP'] as const) : (['SIGINT', 'SIGTERM'] as const)
    if (reload !== undefined) process.on('SIGHUP', reload)
    const stop = (): void => {
      if (reload !== undefined) process.off('SIGHUP', reload)
      for (const signal of stopSignals) process.off(signal, stop)
      // A terminal that closes says so more than once: by the kernel and by the shell.
      process.on('SIGHUP', () => undefined)
      resolveStop()
    }
    for (const signal of stopSignals) process.on(signal, stop)
  })
}

/** Reads the policy folder again, if there is one. */
async function reloadPolicies({ composition }: RunningBroker, log: Log): Promise<void> {
  const { policyFolder } = composition.broker
  if (policyFolder === undefined) {
    log.warn('there is nothing to read again: the configuration names no policy folder; use `stint policy apply`')
    return
  }
  try {
    await policyFolder.reload()
  } catch (error) {
    log.error('the policy folder could not be read again; the set in force stays', { error })
  }
}

/** Drains the broker once the process was told to stop. */
async function stopWhen(stopped: Promise<void>, running: RunningBroker, say: () => void): Promise<void> {
  await stopped
  say()
  await running.close()
}

/** Reads and parses a configuration file. */
export function readConfig(file: string): Config {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    throw new CommandError(`cannot read the configuration ${file} (${reason}); \`stint config --example\` prints one to start from`)
  }
  return parseConfig(text, file)
}

/** The operator's log, on standard error. */
export function createStderrLog({ err }: Pick<Io, 'err'>, level: LogLevel): Log {
  return createLog(err, level, () => formatTime(systemClock.nowMs()))
}

/**
 * The same, with the lines of one turn of the event loop in one write, for a write holds up every request. Warnings and
 * errors are written at once, with what came before them, and the rest is written when the process ends: only one that is
 * killed outright loses what its last turn had to tell.
 */
export function createGatheredLog({ err }: Pick<Io, 'err'>, level: LogLevel): Log & { end(): void } {
  let lines = ''
  const flush = (): void => {
    const text = lines
    lines = ''
    if (text !== '') err(text)
  }
  const gather = (line: string): void => {
    if (lines === '') setImmediate(flush)
    lines += line
  }
  const atOnce = (tell: Log['warn']): Log['warn'] => (message, fields) => {
    tell(message, fields)
    flush()
  }
  process.on('exit', flush)
  const log = createStderrLog({ err: gather }, level)
  return {
    ...log,
    warn: atOnce(log.warn),
    error: atOnce(log.error),
    end() {
      process.off('exit', flush)
      flush()
    },
  }
}
