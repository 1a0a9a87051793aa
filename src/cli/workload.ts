import type { Command } from './command.ts'
import { createGroup } from './group.ts'
import { resumeCommand, retireCommand, suspendCommand, updateCommand } from './workload-change.ts'
import { cancelEnrolmentCommand, enrollWorkloadCommand, enrolmentsCommand } from './workload-enrolment.ts'
import { addKeyCommand, removeKeyCommand } from './workload-keys.ts'
import { registerCommand } from './workload-register.ts'
import { listCommand, showCommand } from './workload-show.ts'

/** `stint workload …`: the registry of the agents that may ask. */
export const workloadCommand: Command = createGroup({
  name: 'workload',
  summary: 'Register, show and change the agents that may ask',
  commands: [
    registerCommand,
    showCommand,
    listCommand,
    updateCommand,
    suspendCommand,
    resumeCommand,
    retireCommand,
    addKeyCommand,
    removeKeyCommand,
    enrollWorkloadCommand,
    enrolmentsCommand,
    cancelEnrolmentCommand,
  ],
  examples: `  stint workload list --stage production
  stint workload show triage-bot
  stint workload suspend triage-bot --reason "behaves oddly"
`,
})
