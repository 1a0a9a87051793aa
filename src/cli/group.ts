import { nearestName } from '../kernel/nearest.ts'
import { UsageError, type Command, type Io } from './command.ts'
import { printable } from './terminal.ts'

/** A command that consists of others: `stint <group> <command> …`. Its help lists them. */
export function createGroup(init: {
  readonly name: string
  readonly summary: string
  readonly commands: readonly Command[]
  /** What stands below the list in the help: examples. */
  readonly examples: string
}): Command {
  const { name, summary, commands, examples } = init
  const width = Math.max(...commands.map((command) => command.name.length))
  const list = commands.map((command) => `  ${command.name.padEnd(width)}  ${command.summary}\n`).join('')
  const help = `Usage: stint ${name} COMMAND …

${summary}.

Commands:
${list}
Examples:
${examples}
More: stint ${name} COMMAND --help
`
  return {
    name,
    summary,
    help,
    async run(args, io) {
      const [first, ...rest] = args
      const names = commands.map((command) => command.name)
      if (first === undefined) throw new UsageError(`which command? One of: ${names.join(', ')}. See: stint ${name} --help`)
      if (isHelp(first)) return showHelp(help, io)
      const command = commands.find((candidate) => candidate.name === first)
      if (command === undefined) throw unknownCommand(`stint ${name}`, first, names)
      return runCommand(command, rest, io)
    },
  }
}

/** Runs a command, or shows its help where the arguments ask for it. */
export async function runCommand(command: Command, args: readonly string[], io: Io): Promise<number> {
  const end = args.indexOf('--')
  if ((end === -1 ? args : args.slice(0, end)).some(isHelp)) return showHelp(command.help, io)
  return command.run(args, io)
}

/** Whether an argument asks for help. */
export function isHelp(argument: string): boolean {
  return argument === '--help' || argument === '-h'
}

/** The usage error for a name that is no command, with the one that was probably meant. */
export function unknownCommand(parent: string, given: string, known: readonly string[]): UsageError {
  const near = nearestName(given, known)
  const hint = near === undefined ? `One of: ${known.join(', ')}.` : `Did you mean ${near}?`
  return new UsageError(`${parent} has no command "${printable(given.slice(0, 40))}". ${hint} See: ${parent} --help`)
}

function showHelp(help: string, io: Io): number {
  io.out(help)
  return 0
}
