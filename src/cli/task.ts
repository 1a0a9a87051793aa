import { readSingle } from './arguments.ts'
import { openAsWorkload } from './as-workload.ts'
import { parseOptions, type Command } from './command.ts'
import { agentHelp, agentOptions } from './connection.ts'
import { exitCodeOf, formatEnded } from './ended-grants.ts'
import { createGroup } from './group.ts'
import { formatJson, printable } from './terminal.ts'

const completeCommand: Command = {
  name: 'complete',
  summary: 'end everything that was granted to you under a task',
  help: `Usage: stint task complete TASK [--json]

Ends everything that was granted to this workload under the task, also what is
being made at this moment. The task can be used again afterwards.

Options:
  --json  print the answer as JSON

Exit codes: 0 everything has ended, 1 refused, or some of it has not ended yet,
2 wrong usage.

${agentHelp}
Examples:
  stint task complete ticket-4711
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('task complete', args, { ...agentOptions, json: { type: 'boolean' } })
    const task = readSingle('task complete', positionals, 'the name of the task')
    const client = await openAsWorkload(values, io)
    const completed = await client.completeTask(task)
    if (values.json === true) io.out(formatJson(completed))
    else if (completed.grants.length === 0) io.err(`Nothing that was granted under ${printable(task)} was alive.\n`)
    else io.out(formatEnded(completed.grants))
    return exitCodeOf(completed.grants)
  },
}

/** `stint task …`: a piece of work under which grants were asked for. */
export const taskCommand: Command = createGroup({
  name: 'task',
  summary: 'End what was granted under a task',
  commands: [completeCommand],
  examples: `  stint task complete ticket-4711
`,
})
