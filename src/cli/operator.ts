import type { Command } from './command.ts'
import { createGroup } from './group.ts'
import { createCommand, revokeCommand, rotateCommand } from './operator-change.ts'
import { listCommand, showCommand } from './operator-show.ts'

/** `stint operator …`: who may operate the broker. */
export const operatorCommand: Command = createGroup({
  name: 'operator',
  summary: 'Make, show and end the operators and their credentials',
  commands: [createCommand, showCommand, listCommand, rotateCommand, revokeCommand],
  examples: `  stint operator create ci-audit --role auditor --expires-in 90d
  stint operator list --status active
  stint operator rotate --self
`,
})
