import { introspectCommand, revokeTokenCommand } from './token-held.ts'
import { getTokenCommand } from './token-get.ts'
import type { Command } from './command.ts'
import { runCommand } from './group.ts'

const commands: readonly Command[] = [introspectCommand, revokeTokenCommand]

/** `stint token ACTION…`, `stint token introspect`, `stint token revoke`: an action has a colon, a command has none. */
export const tokenCommand: Command = {
  ...getTokenCommand,
  async run(args, io) {
    const [first, ...rest] = args
    const command = commands.find((candidate) => candidate.name === first)
    return command === undefined ? runCommand(getTokenCommand, args, io) : runCommand(command, rest, io)
  },
}
