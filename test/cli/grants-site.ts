import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { sweep } from '../../src/broker/sweep.ts'
import { endTriesMax } from '../../src/grant/lifetime.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { startRealBroker, policyFiles, type RealBroker } from '../client/real-broker.ts'
import { createSite, type Site } from '../connectors/postgres-tool.ts'
import { startProgram, type Program } from '../program.ts'
import { createFolder, runRecorded, type Recording, type Surroundings } from './recorder.ts'

/** A broker with a tool whose tokens Stint signs and one in a real PostgreSQL, the workload `bot`, and the command line of both sides. */
export interface GrantsSite extends RealBroker {
  readonly postgres: Site
  readonly folder: string
  readonly keyFile: string
  asOperator(args: readonly string[], more?: Surroundings): Promise<Recording>
  asBot(args: readonly string[], more?: Surroundings): Promise<Recording>
  /** As `bot`, in a process of its own. */
  startAsBot(args: readonly string[]): Program
  /** The names of the roles that grants have in the database at this moment. */
  roles(): Promise<readonly string[]>
  /** Breaks the root credential's right to end anything, or puts it back. */
  setRootPassword(password: string): Promise<void>
  /** What happens to requests before the broker sees them. */
  readonly network: Network
}

/** `cut`: answers nothing. `delayMs`: for requests that change something. */
export interface Network {
  readonly asked: string[]
  cut: boolean
  delayMs: number
}

export async function startGrantsSite({ ledgerTtl = '{ default: 10m, max: 1h }' }: { readonly ledgerTtl?: string } = {}): Promise<GrantsSite> {
  const postgres = await createSite()
  const ledger = `tool: ledger
connector: postgres
sensitivity: low
ttl: ${ledgerTtl}
actions:
  read: { roles: [${postgres.reader}] }
  write: { roles: [${postgres.writer}] }
config:
  url: { from: "env:LEDGER_URL" }
  reassign_to: ${postgres.heir}
  private_network: true
`
  const rule = '@id("support-lends")\npermit (principal in Team::"support", action == Action::"ledger:read", resource in Tool::"ledger");\n'
  const policies = new Map(Object.entries({ ...policyFiles, 'tools/ledger.yaml': ledger, 'ledger.cedar': rule }))
  const network: Network = { asked: [], cut: false, delayMs: 0 }
  const broker = await startRealBroker({
    policies,
    env: { LEDGER_URL: postgres.rootUrl },
    async intercept({ method, url }, response) {
      network.asked.push(`${method} ${url}`)
      if (method !== 'GET') await sleep(network.delayMs)
      if (network.cut) response.destroy()
      return network.cut
    },
  })
  const folder = createFolder()
  const keyFile = join(folder, 'bot.key')
  const made = await runRecorded(['key', 'create', keyFile])
  const asOperator = (args: readonly string[], more: Surroundings = {}) =>
    runRecorded(args, { ...more, env: { STINT_URL: broker.url, STINT_OPERATOR_TOKEN: broker.operator } })
  const env = { STINT_URL: broker.url, STINT_WORKLOAD: 'bot', STINT_KEY_FILE: keyFile }
  const owner = ['--team', 'support', '--contact', 'oncall:support', '--purpose', 'Labels tickets', '--environment', 'test']
  const registered = await asOperator(['workload', 'register', 'bot', ...owner, '--stage', 'pilot', '--review-at', '30d', '--jwks', '-'], { input: made.out })
  if (registered.code !== 0) throw new Error(registered.err)
  return {
    ...broker,
    network,
    postgres,
    folder,
    keyFile,
    asOperator,
    asBot: (args, more = {}) => runRecorded(args, { ...more, env }),
    startAsBot: (args) => startProgram(args, { cwd: folder, env }),
    async roles() {
      // The references of roles carry this broker's own name, so that tests on one server do not see each other's.
      const { grants } = await broker.admin.listGrants({ tool: 'ledger' })
      const names = grants.map(({ grant }) => grant.slice(-26))
      const rows = await postgres.admin<{ name: string }>(`select rolname as name from pg_roles where right(rolname, 26) = any($1)`, [names])
      return rows.map(({ name }) => name)
    },
    async setRootPassword(password) {
      await postgres.admin(`alter role ${postgres.root} password '${password}'`)
      // What is open already was let in by the old one.
      await postgres.admin(`select pg_terminate_backend(pid) from pg_stat_activity where usename = $1`, [postgres.root])
    },
  }
}

/** Lets the last try to end these grants be the one that is under way: what fails again is stuck. */
export async function makeStuck({ broker }: GrantsSite): Promise<void> {
  const { database } = broker.broker
  await database.maintenance.updateTable('credential').set({ tries: endTriesMax - 1, due_at: formatTime(0) }).where('state', '=', 'ending').execute()
  await sweep(broker.broker)
}
