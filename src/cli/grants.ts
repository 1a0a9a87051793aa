import type { Command } from './command.ts'
import { listCommand, showCommand } from './grants-list.ts'
import { retryCommand, writeOffCommand } from './grants-stuck.ts'
import { runCommand, unknownCommand } from './group.ts'

const commands: readonly Command[] = [listCommand, showCommand, retryCommand, writeOffCommand]

/** `stint grants …`: everybody's grants, for admins; `stint grant` is for an agent's own. Lists them unless told otherwise. */
export const grantsCommand: Command = {
  ...listCommand,
  name: 'grants',
  async run(args, io) {
    const [first, ...rest] = args
    if (first === undefined || first.startsWith('-')) return runCommand(listCommand, args, io)
    const command = commands.find((candidate) => candidate.name === first)
    if (command === undefined) throw unknownCommand('stint grants', first, commands.map(({ name }) => name))
    return runCommand(command, rest, io)
  },
}
