import { setTimeout } from 'node:timers/promises'
import type { AdminClient } from '../client/admin.ts'
import type { BegunRotation, RotationRecord } from '../client/rotation-records.ts'
import { readDuration, readSingle } from './arguments.ts'
import { parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatInstant, formatJson, printable } from './terminal.ts'

const askMs = 250

/** `stint rotate NAME`: has a long-lived secret replaced now, and shows how it goes. */
export const rotateCommand: Command = {
  name: 'rotate',
  summary: 'replace a long-lived secret now, with progress',
  help: `Usage: stint rotate NAME [--leaked] [--reason TEXT] [--no-wait] [--timeout TIME]
                    [--json]

Has the secret behind a tool replaced now: the broker makes a new value, has the
system behind it accept it, tries it out, and puts it in force. Where one of
these fails, the value before stays in force. Whoever was lent the value before
can use it until the grant is over. NAME is as stint rotations shows it;
signing-keys and sealing-keys are the broker's own.

With --leaked, for a secret that somebody else may have, the value before opens
nothing any more as soon as the new one is in force: whoever holds it, bystanders
too, has to ask again. For signing-keys it ends every live token.

Options:
  --leaked        the value before is in wrong hands, or may be
  --reason TEXT   why, for the log
  --no-wait       order it, and do not wait; it goes on by itself
  --timeout TIME  wait no longer than that (default 5m)
  --json          print how it stands at the end as JSON

Exit codes: 0 it is replaced, or ordered with --no-wait; 1 it failed, or takes
longer, or refused; 2 wrong usage.

${connectionHelp}
Examples:
  stint rotate billing-api
  stint rotate warehouse --leaked --reason "it was in a build log"
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('rotate', args, {
      ...connectionOptions,
      leaked: { type: 'boolean' },
      reason: { type: 'string' },
      'no-wait': { type: 'boolean' },
      timeout: { type: 'string' },
      json: { type: 'boolean' },
    })
    const name = readSingle('rotate', positionals, "the rotation's name")
    const waits = values['no-wait'] !== true
    if (!waits && values.timeout !== undefined) throw new UsageError('--timeout goes without --no-wait: nothing is waited for.')
    const timeoutMs = 1000 * readDuration(values.timeout ?? '5m', 'timeout')
    const client = adminClient(values, io)
    const begun = await client.rotate(name, { leaked: values.leaked, reason: values.reason })
    if (begun.ordered === undefined || !waits) {
      io.out(values.json === true ? formatJson(begun) : describeBegun(begun))
      return 0
    }
    const end = await follow(client, begun, begun.ordered, timeoutMs, io)
    if (values.json === true) io.out(formatJson(end.rotation))
    else if (end.outcome === 'finished') io.out(describeFinished(end.rotation))
    else io.err(describeFailed(end))
    return end.outcome === 'finished' ? 0 : 1
  },
}

function describeBegun({ name, ordered, kind, audit_index: index }: BegunRotation): string {
  if (ordered !== undefined) return `${printable(name)} is being replaced: stint rotations shows how it goes. Audit entry ${index}.\n`
  const more = kind === 'signing_keys' ? 'stint keys list shows which one signs from when' : 'what the one before has sealed is sealed anew in the background'
  return `${printable(name)}: a new key was made; ${more}. Audit entry ${index}.\n`
}

interface End {
  readonly outcome: 'finished' | 'failed' | 'waits' | 'late'
  readonly rotation: RotationRecord
}

const steps = ['create', 'set', 'test', 'finish']
const doing: Readonly<Record<string, string>> = {
  create: 'making a new value',
  set: 'having the system behind it accept the new value',
  test: 'trying the new value out',
  finish: 'putting the new value in force',
}

/** Looks at it until the run is over, or until it waits for somebody, and says on standard error what is done. */
async function follow(client: AdminClient, begun: RotationRecord, id: string, timeoutMs: number, io: Io): Promise<End> {
  const untilMs = performance.now() + timeoutMs
  let told = 0
  let problem: string | undefined
  /** Also the steps that were done between two looks. */
  const tell = (upTo: number): void => {
    for (const step of steps.slice(told, upTo)) io.err(`${doing[step] ?? step} …\n`)
    told = Math.max(told, upTo)
  }
  for (let rotation = begun; ; rotation = await client.getRotation(begun.name)) {
    const isOver = rotation.last_id === id
    if (isOver && rotation.last_outcome === 'finished') {
      tell(steps.length)
      return { outcome: 'finished', rotation }
    }
    if (isOver) return { outcome: 'failed', rotation }
    if (rotation.id === id) tell(steps.indexOf(rotation.step ?? '') + 1)
    if (rotation.problem !== undefined && rotation.problem !== problem && rotation.state === 'waiting') {
      problem = rotation.problem
      // What was not tried waits for somebody else, and not for another try.
      if (rotation.tries === undefined) return { outcome: 'waits', rotation }
      io.err(`it did not work, and is tried again: ${printable(problem)}\n`)
    }
    // Nobody can say what became of a run that others have followed.
    if (performance.now() >= untilMs || (rotation.id !== id && rotation.last_id !== begun.last_id)) return { outcome: 'late', rotation }
    await setTimeout(askMs)
  }
}

function describeFinished({ name, version, retires_at: retiresAt }: RotationRecord): string {
  const what = version === undefined ? 'the new value' : `version ${printable(version)}`
  const before = retiresAt === undefined ? '' : ` The one before is good until ${formatInstant(retiresAt)}, for whoever holds it by a grant.`
  return `${printable(name)} is replaced: ${what} is in force.${before}\n`
}

function describeFailed({ outcome, rotation: { name, problem = 'nobody knows why', try_at: tryAt } }: End): string {
  const again = tryAt === undefined ? 'It goes on by itself' : `It is tried again at ${formatInstant(tryAt)}`
  const hint = `${again}: stint rotations shows how it goes.\n`
  switch (outcome) {
    case 'failed':
      return `stint: ${printable(name)} is not replaced, and the value that was in force still is: ${printable(problem)}\n${hint}`
    case 'waits':
      return `stint: ${printable(name)} is not replaced yet: ${printable(problem)}\n${hint}`
    default:
      return `stint: ${printable(name)} takes longer than this command waits.\n${hint}`
  }
}
