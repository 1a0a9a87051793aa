import type { AbandonedCheckpoint, AnchorList, RestoredAccepted } from '../client/log-records.ts'
import { refusePositionals, requireOption } from './arguments.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatJson, printable } from './terminal.ts'

/** `stint audit accept-restored`: lets a broker go on that holds itself since its database is not the one that was anchored. */
export const acceptRestoredCommand: Command = {
  name: 'accept-restored',
  summary: 'let the broker go on after a backup was restored',
  help: `Usage: stint audit accept-restored --reason TEXT [--size N] [--json]

A broker that finds a checkpoint in its anchors that its log does not lead to
issues nothing: the database is an older backup, or another one. Put the right
one back if you can. If not, this lets the broker go on with what it has.

What it does, at once and for good:
  - a new key signs tokens, and every token that is alive ends; who verifies
    offline may accept them until its cached key set has run out
  - every session of a person ends, and every open enrolment code
  - assertions and ID tokens that were signed before are refused: for 5 seconds
    agents, and for 30 people, are told so who sign just now; an agent whose
    assertions have no iat waits up to 5 minutes
  - what was lost is named in the log for ever, in an entry log.restored

What it cannot do: whatever came after the backup is gone. Workloads that were
suspended or retired, keys that were removed, operators that were ended, grants
that were revoked, rules that were put in force since are as they were before:
look at them again, with \`stint workload list\`, \`stint operator list\` and
\`stint policy check\`. What was made in other systems since is not known here.

Options:
  --reason TEXT  why, for the log
  --size N       accept without being asked: the size of the largest checkpoint
                 that is given up, as the broker's log and this command name it
  --json         print the answer as JSON

${connectionHelp}
Examples:
  stint audit accept-restored --reason "disk failed, backup of Sunday restored"
  stint audit accept-restored --reason "moved to a copy" --size 48211
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('audit accept-restored', args, {
      ...connectionOptions,
      reason: { type: 'string' },
      size: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('audit accept-restored', positionals)
    const reason = requireOption('audit accept-restored', values, 'reason')
    if (values.size !== undefined && !/^\d{1,15}$/.test(values.size)) throw new UsageError('--size must be a number of entries.')
    const client = adminClient(values, io)
    const list = await client.listAnchors()
    const abandoned = list.anchors.flatMap(({ anchor, contradiction }) => (contradiction === undefined ? [] : [toAbandoned(anchor, contradiction)]))
    if (abandoned.length === 0) {
      throw new CommandError(`there is nothing to accept: ${list.held ? 'the log is held since it contradicts itself, as the log of the broker says' : 'the broker is not held'}.`)
    }
    io.err(describeLoss(list))
    await confirm(Math.max(...abandoned.map(({ size }) => size)), values.size, io)
    const accepted = await client.acceptRestored({ reason, abandoned })
    io.out(values.json === true ? formatJson(accepted) : describeAccepted(accepted))
    return 0
  },
}

function toAbandoned(anchor: string, { size, root }: { readonly size: number; readonly root?: string }): AbandonedCheckpoint {
  return { anchor, size, ...(root !== undefined && { root }) }
}

function describeLoss({ log_size: size, anchors }: AnchorList): string {
  const lines = anchors.flatMap(({ contradiction }) => {
    if (contradiction === undefined) return []
    const { why, kept_at: at } = contradiction
    return [`  ${printable(why)}${at === undefined ? '' : ` (kept at ${printable(at)})`}\n`]
  })
  return `The log of this broker has ${size} entries, and:\n${lines.join('')}`
}

/** The size is what a person types who has read what is lost. */
async function confirm(size: number, given: string | undefined, io: Io): Promise<void> {
  if (given !== undefined) {
    if (Number(given) !== size) throw new CommandError(`the largest checkpoint that is given up has ${size} entries, not ${given}: nothing was changed.`)
    return
  }
  const question = `This ends every live token and session, and gives up a checkpoint of ${size} entries.`
  if (io.ask === undefined) throw new UsageError(`${question} Give --size ${size} if that is what you want.`)
  const answer = await io.ask(`${question}\nType ${size} to accept it: `)
  if (answer.trim() !== String(size)) throw new CommandError('nothing was changed.')
}

function describeAccepted({ log_size: size, proofs_from: from, kid, ended_sessions: sessions, cancelled_enrolments: codes, audit_index: index }: RestoredAccepted): string {
  return `The log goes on from ${size} entries. Audit entry ${index}.
${printable(kid)} signs tokens from now on, and every token that was alive has ended.
${count(sessions, 'session')} and ${count(codes, 'open enrolment code')} have ended.
Proofs that were signed before ${printable(from.replace(/\.\d+Z$/, 'Z'))} are refused: agents sign new ones.
What came after the backup is lost. Look again at suspended and retired
workloads, removed keys, ended operators, revoked grants and the rules in force.
`
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}
