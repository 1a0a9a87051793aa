import type { RotationRecord } from '../client/rotation-records.ts'
import { formatDuration } from '../kernel/duration.ts'
import { refusePositionals } from './arguments.ts'
import { parseOptions, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatInstant, formatJson, formatTable, printable } from './terminal.ts'

/** `stint rotations`: what lives long, and when it is replaced. */
export const rotationsCommand: Command = {
  name: 'rotations',
  summary: 'show what lives long: when it was replaced, and is next',
  help: `Usage: stint rotations [--json]

Lists every long-lived secret: the keys of the broker, the secrets that it
replaces by schedule, and the root credentials that it does not replace, by where
they come from. Nobody can show the secrets themselves.

  idle       it is replaced at its next time
  running    it is being replaced now
  waiting    it is tried again, or waits for somebody; the reason is below
  failed     the last run came to nothing: what was in force still is
  OVERDUE    its time has passed, and it was not replaced
  by hand    nobody but you replaces it

Options:
  --json  print the list as JSON

Exit codes: 0 listed, also with something overdue; 1 refused; 2 wrong usage.

${connectionHelp}
Examples:
  stint rotations
  stint rotations --json
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('rotations', args, { ...connectionOptions, json: { type: 'boolean' } })
    refusePositionals('rotations', positionals)
    const rotations = await adminClient(values, io).listRotations()
    if (values.json === true) {
      io.out(formatJson({ rotations }))
      return 0
    }
    io.out(formatTable(['NAME', 'EVERY', 'LAST', 'NEXT', 'STATUS'], rotations.map(toRow), io.columns))
    for (const { name, problem, try_at: tryAt } of rotations) {
      if (problem !== undefined) io.err(`${printable(name)}: ${printable(problem)}${tryAt === undefined ? '' : ` It is tried again at ${formatInstant(tryAt)}.`}\n`)
    }
    return 0
  },
}

function toRow({ name, tool, kind, every_seconds: every, last_at: last, next_at: next, ...rest }: RotationRecord): readonly string[] {
  const shown = kind === 'root_credential' && tool !== undefined ? `${name} (${tool})` : name
  return [shown, every === undefined ? '-' : formatDuration(every), last === undefined ? '-' : formatInstant(last), next === undefined ? '-' : formatInstant(next), describeState(rest)]
}

function describeState({ state, step, overdue }: Pick<RotationRecord, 'state' | 'step' | 'overdue'>): string {
  const word = state === 'unmanaged' ? 'by hand' : state === 'running' && step !== undefined ? `running (${step})` : state
  return overdue ? `OVERDUE, ${word}` : word
}
