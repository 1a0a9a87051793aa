import type { SigningKeyRotated } from '../client/records.ts'
import { refusePositionals } from './arguments.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { createGroup } from './group.ts'
import { formatJson, formatTable, printable } from './terminal.ts'

const listCommand: Command = {
  name: 'list',
  summary: 'show the keys that sign and verify tokens',
  help: `Usage: stint keys list [--json]

Shows the broker's own keys, in the order of their lives: next (published, and
signs later), signing, verifying (signs no more, its tokens are still good),
ended. They replace each other by themselves, as token_keys.rotate_days says.

Options:
  --json  print the list as JSON

${connectionHelp}
Examples:
  stint keys list
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('keys list', args, { ...connectionOptions, json: { type: 'boolean' } })
    refusePositionals('keys list', positionals)
    const list = await adminClient(values, io).listSigningKeys()
    if (values.json === true) io.out(formatJson(list))
    else {
      const rows = list.keys.map((key) => [key.kid, key.status, formatShort(key.signs_from), key.verifies_until === undefined ? '-' : formatShort(key.verifies_until)])
      io.out(formatTable(['KEY', 'STATUS', 'SIGNS FROM', 'VERIFIES UNTIL'], rows, io.columns))
      io.err(`The next rotation is due at ${formatShort(list.next_rotation_at)}.\n`)
    }
    return 0
  },
}

const rotateCommand: Command = {
  name: 'rotate',
  summary: 'replace the key that signs tokens, before its time or at once',
  help: `Usage: stint keys rotate [--now] [--reason TEXT] [--yes] [--json]

Publishes a new key, which signs tokens as soon as everybody's cached key set
has run out. Live tokens stay good until they expire, and then the old key goes.

With --now, for a key that somebody else may have: the new key signs at once and
no other is accepted any more. Every live token ends: whoever introspects it is
told at once. Who verifies offline may accept it, and refuse new tokens, until
its cached key set has run out. Agents ask for new tokens.

Options:
  --now          replace the key at once, and end every live token
  --reason TEXT  why, for the log
  --yes          do not ask before --now
  --json         print the answer as JSON

${connectionHelp}
Examples:
  stint keys rotate
  stint keys rotate --now --reason "a backup with the root key was lost"
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('keys rotate', args, {
      ...connectionOptions,
      now: { type: 'boolean' },
      reason: { type: 'string' },
      yes: { type: 'boolean' },
      json: { type: 'boolean' },
    })
    refusePositionals('keys rotate', positionals)
    const now = values.now === true
    if (values.yes === true && !now) throw new UsageError('--yes goes with --now: without it nothing ends, and nothing is asked.')
    const client = adminClient(values, io)
    if (now && values.yes !== true) await confirm('This ends every live token of every agent, at once.', io)
    const rotated = await client.rotateSigningKeys({ now, reason: values.reason })
    io.out(values.json === true ? formatJson(rotated) : describeRotation(rotated))
    return 0
  },
}

/** Asks a person at a terminal. Throws where nobody is there to ask, and where the answer is not yes. */
async function confirm(consequence: string, io: Io): Promise<void> {
  if (io.ask === undefined) throw new UsageError(`${consequence} Give --yes if that is what you want.`)
  const answer = await io.ask(`${consequence} Go on? [y/N] `)
  if (!/^y(?:es)?$/i.test(answer.trim())) throw new CommandError('nothing was changed.')
}

/** Says what happened and what becomes of live tokens, and no more than can be claimed (invariant 8). */
function describeRotation({ kid, signs_from: from, replaces, ended_tokens: ended, audit_index: index }: SigningKeyRotated): string {
  const entry = `Audit entry ${index}.\n`
  if (ended === undefined) {
    const ends = replaces.map((key) => `${printable(key.kid)} verifies what it signed, until ${formatShort(key.verifies_until)} at the latest.\n`)
    return `${printable(kid)} is published, and signs from ${formatShort(from)}.\n${ends.join('')}Nothing happens to live tokens. ${entry}`
  }
  const others = replaces.map((key) => printable(key.kid)).join(', ')
  const tokens = `${ended.more ? 'More than ' : ''}${ended.count} live ${ended.count === 1 && !ended.more ? 'token has' : 'tokens have'} ended with ${others}.`
  return `${printable(kid)} signs from now on, and no other key is accepted.
${tokens}
Whoever introspects them is told at once. Who verifies offline may keep the old
keys until ${formatShort(ended.cached_until)}: until then it may accept those tokens,
as long as they have not expired, and refuse new ones.
${entry}`
}

/** Seconds are enough to read. */
function formatShort(time: string): string {
  return printable(time.replace(/\.\d+Z$/, 'Z'))
}

/** `stint keys …`: the broker's own keys; `stint key` is for an agent's. */
export const keysCommand: Command = createGroup({
  name: 'keys',
  summary: "Show and replace the broker's own keys, which sign tokens",
  commands: [listCommand, rotateCommand],
  examples: `  stint keys list
  stint keys rotate
`,
})
