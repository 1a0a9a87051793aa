import type { IssuedOperator, Lifetime, Recorded, Role } from '../client/records.ts'
import { systemClock } from '../kernel/clock.ts'
import { readReviewTime, readSingle, refusePositionals, requireOption } from './arguments.ts'
import { parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { printOperator } from './operator-show.ts'
import { formatJson, printable } from './terminal.ts'

const lifetimeHelp = `  --expires-in WHEN  how long the credential lasts: a duration from now, such as
                     90d, or up to a date, YYYY-MM-DD`

/** `stint operator create`. */
export const createCommand: Command = {
  name: 'create',
  summary: 'make an operator with a credential of its own',
  help: `Usage: stint operator create NAME --role ROLE [--expires-in WHEN] [--json]

Makes an operator and prints its credential, once: the broker keeps only a hash.
A name is never used twice.

Options:
  --role ROLE        admin: may do everything; approver: sees workloads and
                     rules; auditor: sees these, the operators and the log
${lifetimeHelp}; else for ever
  --json             print the record with the credential as JSON

${connectionHelp}
Examples:
  stint operator create ada --role admin
  (umask 077; stint operator create ci-audit --role auditor --expires-in 90d \\
    > ci-audit.token)
`,
  async run(args, io) {
    const command = 'operator create'
    const { values, positionals } = parseOptions(command, args, {
      ...connectionOptions,
      role: { type: 'string' },
      'expires-in': { type: 'string' },
      json: { type: 'boolean' },
    })
    const name = readSingle(command, positionals, "the operator's name")
    // Which roles there are is the broker's to say; a wrong one is refused with the list.
    const role = requireOption(command, values, 'role') as Role
    const lifetime = readLifetime(values['expires-in'])
    printCredential(await adminClient(values, io).createOperator({ name, role, ...lifetime }), values.json === true, io)
    return 0
  },
}

/** `stint operator rotate`. */
export const rotateCommand: Command = {
  name: 'rotate',
  summary: "replace an operator's credential, or your own",
  help: `Usage: stint operator rotate NAME [--expires-in WHEN] [--json]
       stint operator rotate --self [--json]

Prints a new credential, once, and ends the old one at once. The new one expires
when the old one would have, unless an admin says otherwise.

Options:
  --self             your own, whatever your role is
${lifetimeHelp}
  --json             print the record with the credential as JSON

${connectionHelp}
Examples:
  stint operator rotate ci-audit --expires-in 90d
  stint operator rotate --self
`,
  async run(args, io) {
    const command = 'operator rotate'
    const { values, positionals } = parseOptions(command, args, {
      ...connectionOptions,
      self: { type: 'boolean' },
      'expires-in': { type: 'string' },
      json: { type: 'boolean' },
    })
    const client = adminClient(values, io)
    if (values.self === true) {
      refusePositionals(command, positionals)
      if (values['expires-in'] !== undefined) {
        throw new UsageError('your own credential lasts as long as it did: only an admin, by your name, gives it another end.')
      }
      printCredential(await client.rotateOwnCredential(), values.json === true, io)
      return 0
    }
    const name = readSingle(command, positionals, "the operator's name, or --self,")
    printCredential(await client.rotateOperator(name, readLifetime(values['expires-in'])), values.json === true, io)
    return 0
  },
}

/** `stint operator revoke`. */
export const revokeCommand: Command = {
  name: 'revoke',
  summary: 'end an operator for good',
  help: `Usage: stint operator revoke NAME [--reason TEXT] [--json]

Ends an operator's credential at once and for good; its name stays taken. The
last admin whose credential does not expire cannot be revoked: make another
first.

Options:
  --reason TEXT  why, for the log
  --json         print the record as JSON

${connectionHelp}
Examples:
  stint operator revoke ada --reason "left the team"
`,
  async run(args, io) {
    const command = 'operator revoke'
    const { values, positionals } = parseOptions(command, args, {
      ...connectionOptions,
      reason: { type: 'string' },
      json: { type: 'boolean' },
    })
    const name = readSingle(command, positionals, "the operator's name")
    printOperator(await adminClient(values, io).revokeOperator(name, values.reason), values.json === true, io)
    return 0
  },
}

function readLifetime(text: string | undefined): Lifetime {
  return text === undefined ? {} : { expires_at: readReviewTime(text, 'expires-in', systemClock.nowMs()) }
}

/** The credential alone goes to the output, so that it can go into a file; about it is told beside. */
function printCredential(operator: Recorded<IssuedOperator>, json: boolean, io: Io): void {
  if (json) {
    io.out(formatJson(operator))
    return
  }
  const { name, role, expires_at: expiresAt, audit_index: index, credential } = operator
  const until = expiresAt === undefined ? 'which does not expire' : `good until ${expiresAt}`
  const entry = index === undefined ? '' : `, audit entry ${index}`
  io.err(printable(`The credential of ${name} (${role}), ${until}, shown this once (only its hash is kept)${entry}:`) + '\n')
  io.out(`${printable(credential)}\n`)
}
