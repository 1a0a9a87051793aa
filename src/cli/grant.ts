import type { Command } from './command.ts'
import { getGrantCommand } from './grant-get.ts'
import { giveBackCommand, renewCommand, showCommand } from './grant-held.ts'
import { runCommand } from './group.ts'

const commands: readonly Command[] = [showCommand, renewCommand, giveBackCommand]

/**
 * `stint grant TOOL ACTION…`, `stint grant show|renew|give-back`. A tool of one of these names is asked for by the whole names
 * of its actions: they have a colon, a command has none.
 */
export const grantCommand: Command = {
  ...getGrantCommand,
  async run(args, io) {
    const [first, ...rest] = args
    const command = commands.find((candidate) => candidate.name === first)
    return command === undefined ? runCommand(getGrantCommand, args, io) : runCommand(command, rest, io)
  },
}
