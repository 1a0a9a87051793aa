import { readVersion } from '../kernel/version.ts'
import { UsageError, type Command, type Io } from './command.ts'
import { reportFailure } from './failure.ts'
import { isHelp, runCommand, unknownCommand } from './group.ts'
import { createProcessIo } from './process-io.ts'

interface Entry {
  readonly name: string
  readonly summary: string
  readonly audience: (typeof audiences)[number]
  /** Has commands of its own, which have help of their own. */
  readonly nested: boolean
  /** Loads the command's code only when it runs: an agent that asks for a token does not wait for the server's code. */
  load(): Promise<Command>
}

const audiences = ['agents', 'admins', 'auditors', 'operators'] as const

const entries: readonly Entry[] = [
  {
    name: 'token',
    summary: 'get a token for some actions; introspect or revoke one',
    audience: 'agents',
    nested: true,
    load: async () => (await import('./token.ts')).tokenCommand,
  },
  {
    name: 'grant',
    summary: 'get a credential for a tool, or run a command with one',
    audience: 'agents',
    nested: true,
    load: async () => (await import('./grant.ts')).grantCommand,
  },
  {
    name: 'aws',
    summary: 'hand credentials to AWS programs',
    audience: 'agents',
    nested: true,
    load: async () => (await import('./aws.ts')).awsCommand,
  },
  {
    name: 'task',
    summary: 'end everything that was granted under a task',
    audience: 'agents',
    nested: true,
    load: async () => (await import('./task.ts')).taskCommand,
  },
  {
    name: 'key',
    summary: "make a workload's key; show its public half; replace it",
    audience: 'agents',
    nested: true,
    load: async () => (await import('./key.ts')).keyCommand,
  },
  {
    name: 'enroll',
    summary: 'register a key of its own by a one-time code',
    audience: 'agents',
    nested: false,
    load: async () => (await import('./enroll.ts')).enrollCommand,
  },
  {
    name: 'workload',
    summary: 'register, show and change the agents that may ask',
    audience: 'admins',
    nested: true,
    load: async () => (await import('./workload.ts')).workloadCommand,
  },
  {
    name: 'operator',
    summary: 'make, show and end operators and their credentials',
    audience: 'admins',
    nested: true,
    load: async () => (await import('./operator.ts')).operatorCommand,
  },
  {
    name: 'whoami',
    summary: 'show as whom you operate, and until when',
    audience: 'admins',
    nested: false,
    load: async () => (await import('./whoami.ts')).whoamiCommand,
  },
  {
    name: 'login',
    summary: 'sign in to operate a broker with the account of your company',
    audience: 'admins',
    nested: false,
    load: async () => (await import('./login.ts')).loginCommand,
  },
  {
    name: 'logout',
    summary: 'end the session that stint login began',
    audience: 'admins',
    nested: false,
    load: async () => (await import('./logout.ts')).logoutCommand,
  },
  {
    name: 'session',
    summary: 'list and end the sessions of people who signed in',
    audience: 'admins',
    nested: true,
    load: async () => (await import('./session.ts')).sessionCommand,
  },
  {
    name: 'keys',
    summary: "show and replace the broker's own keys, which sign tokens",
    audience: 'admins',
    nested: true,
    load: async () => (await import('./keys.ts')).keysCommand,
  },
  {
    name: 'secret',
    summary: 'hand the broker secrets, to be kept sealed',
    audience: 'admins',
    nested: true,
    load: async () => (await import('./secret.ts')).secretCommand,
  },
  {
    name: 'rotations',
    summary: 'show what lives long: when it was replaced, and is next',
    audience: 'admins',
    nested: false,
    load: async () => (await import('./rotations.ts')).rotationsCommand,
  },
  {
    name: 'rotate',
    summary: 'replace a long-lived secret now, with progress',
    audience: 'admins',
    nested: false,
    load: async () => (await import('./rotate.ts')).rotateCommand,
  },
  {
    name: 'tool',
    summary: 'list the tools of the catalog; check their root credentials',
    audience: 'admins',
    nested: true,
    load: async () => (await import('./tool.ts')).toolCommand,
  },
  {
    name: 'policy',
    summary: 'check, test and apply the rules',
    audience: 'admins',
    nested: true,
    load: async () => (await import('./policy.ts')).policyCommand,
  },
  {
    name: 'grants',
    summary: 'list what lives in outside tools; see to what is stuck',
    audience: 'admins',
    nested: true,
    load: async () => (await import('./grants.ts')).grantsCommand,
  },
  {
    name: 'revoke',
    summary: 'end grants at once',
    audience: 'admins',
    nested: false,
    load: async () => (await import('./revoke.ts')).revokeCommand,
  },
  {
    name: 'sweep',
    summary: 'end what was made in tools and no live grant stands for',
    audience: 'admins',
    nested: false,
    load: async () => (await import('./sweep.ts')).sweepCommand,
  },
  {
    name: 'audit',
    summary: 'read the log: who got what, when and why',
    audience: 'auditors',
    nested: true,
    load: async () => (await import('./audit.ts')).auditCommand,
  },
  {
    name: 'serve',
    summary: 'run the broker',
    audience: 'operators',
    nested: false,
    load: async () => (await import('./serve.ts')).serveCommand,
  },
  {
    name: 'migrate',
    summary: 'bring the database to the schema of this version',
    audience: 'operators',
    nested: false,
    load: async () => (await import('./migrate.ts')).migrateCommand,
  },
  {
    name: 'config',
    summary: 'list every option of stint.yaml, or check one',
    audience: 'operators',
    nested: false,
    load: async () => (await import('./config.ts')).configCommand,
  },
]

/** Runs one command line (`args` begins after the program's name) and returns the exit code; never throws. */
export async function runCli(args: readonly string[], io: Io): Promise<number> {
  try {
    const [first, ...rest] = args
    if (first === undefined) throw new UsageError('which command? See: stint --help')
    if (isHelp(first)) return print(helpText(), io)
    if (first === '--version' || first === '-V') return print(`stint ${readVersion()}\n`, io)
    const asksHelp = first === 'help'
    if (asksHelp && rest.length === 0) return print(helpText(), io)
    const name = asksHelp ? (rest[0] ?? '') : first
    const entry = entries.find((candidate) => candidate.name === name)
    if (entry === undefined) throw unknownCommand('stint', name, entries.map((candidate) => candidate.name))
    const command = await entry.load()
    const given = asksHelp ? [...rest.slice(1), '--help'] : rest
    const own = entry.nested && given[0] !== undefined && !isHelp(given[0])
    return await (own ? command.run(given, io) : runCommand(command, given, io))
  } catch (error) {
    return reportFailure(error, io)
  }
}

/** Runs the command line of this process, and sets its exit code. */
export async function runProgram(): Promise<void> {
  process.exitCode = await runCli(process.argv.slice(2), createProcessIo(process))
}

function helpText(): string {
  const width = Math.max(...entries.map((entry) => entry.name.length))
  const lists = audiences.map((audience) => {
    const lines = entries.filter((entry) => entry.audience === audience)
    return `For ${audience}:\n${lines.map((entry) => `  ${entry.name.padEnd(width)}  ${entry.summary}\n`).join('')}`
  })
  return `Usage: stint COMMAND …

Stint gives AI agents credentials for one spell of work, no wider and no longer
than policy allows, and proves afterwards what it gave.

${lists.join('\n')}
Examples:
  stint workload register triage-bot --environment prod --stage pilot \\
    --team support --contact oncall:support --purpose "Labels tickets" \\
    --review-at 90d --enroll
  stint enroll CODE --key triage-bot.key
  stint token tickets:read --workload triage-bot --key triage-bot.key
  stint grant warehouse read --workload triage-bot --key triage-bot.key -- psql
  stint revoke --workload triage-bot --reason "behaves oddly"
  stint audit list --workload triage-bot

Options:
  -h, --help     this text, or a command's
  -V, --version  the version

More: stint COMMAND --help
Exit codes: 0 done, 1 refused or failed, 2 wrong usage. STINT_DEBUG=1 shows stacks.
`
}

function print(text: string, io: Io): number {
  io.out(text)
  return 0
}

if (import.meta.main) await runProgram()
