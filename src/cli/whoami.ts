import type { CallerRecord } from '../client/records.ts'
import { systemClock } from '../kernel/clock.ts'
import { refusePositionals } from './arguments.ts'
import { parseOptions, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatFields, formatJson, printable } from './terminal.ts'

/** `stint whoami`: the operator whose credential is used, as the broker sees it. */
export const whoamiCommand: Command = {
  name: 'whoami',
  summary: 'show as whom you operate, and until when',
  help: `Usage: stint whoami [--json]

Asks the broker whose credential it is that your commands use.

Options:
  --json  print the answer as JSON

${connectionHelp}
Examples:
  stint whoami
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('whoami', args, { ...connectionOptions, json: { type: 'boolean' } })
    refusePositionals('whoami', positionals)
    const caller = await adminClient(values, io).getCaller()
    if (values.json === true) {
      io.out(formatJson(caller))
      return 0
    }
    io.out(
      formatFields([
        ['name', caller.name],
        ['id', caller.id],
        ['role', caller.role],
        ['session', caller.session],
        ['expires', caller.expires_at ?? 'never'],
      ]),
    )
    const hint = describeEnd(caller, systemClock.nowMs())
    if (hint !== undefined) io.err(hint)
    return 0
  },
}

const soonDays = 14
const dayMs = 86_400_000

/** What to do about a credential that ends soon. A sign-in always does, and is begun anew by its holder. */
function describeEnd({ name, session, expires_at: expiresAt }: CallerRecord, nowMs: number): string | undefined {
  if (session !== undefined || expiresAt === undefined) return undefined
  const leftMs = Date.parse(expiresAt) - nowMs
  if (!(leftMs < soonDays * dayMs)) return undefined
  return `It expires soon. An admin renews it: stint operator rotate ${printable(name)} --expires-in 90d\n`
}
