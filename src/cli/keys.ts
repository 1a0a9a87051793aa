import type { SigningKeyList, SigningKeyRotated } from '../client/records.ts'
import type { SealingKeyList, SealingKeysRewrapped } from '../client/sealing-keys.ts'
import { StintError } from '../client/errors.ts'
import { refusePositionals } from './arguments.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { createGroup } from './group.ts'
import { formatJson, formatTable, printable } from './terminal.ts'

const listCommand: Command = {
  name: 'list',
  summary: "show the broker's own keys",
  help: `Usage: stint keys list [--json]

Shows the keys that sign tokens, in the order of their lives: next (published,
and signs later), signing, verifying (signs no more, its tokens are still good),
ended. They replace each other by themselves, as token_keys.rotate_days says.

Then, for admins and auditors, the keys that seal what the database keeps
secret, and which root key wraps them: next, sealing, replaced (what it sealed
is sealed anew), erased. They replace each other as sealing_keys.rotate_days says.

Options:
  --json  print the list as JSON

${connectionHelp}
Examples:
  stint keys list
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('keys list', args, { ...connectionOptions, json: { type: 'boolean' } })
    refusePositionals('keys list', positionals)
    const client = adminClient(values, io)
    const signing = await client.listSigningKeys()
    const sealing = await client.listSealingKeys().catch((error: unknown) => {
      // An approver may see the others all the same.
      if (error instanceof StintError && error.code === 'forbidden') return undefined
      throw error
    })
    if (values.json === true) io.out(formatJson({ ...signing, ...(sealing && { sealing }) }))
    else {
      io.out(describeSigningKeys(signing, io) + (sealing === undefined ? '' : `\n${describeSealingKeys(sealing, io)}`))
      io.err(`The next key to sign tokens is due at ${formatShort(signing.next_rotation_at)}.\n`)
      if (sealing !== undefined) io.err(`The next key to seal is due at ${formatShort(sealing.next_rotation_at)}.\n${describeUnfinished(sealing)}`)
    }
    return 0
  },
}

function describeSigningKeys({ keys }: SigningKeyList, io: Io): string {
  const rows = keys.map((key) => [key.kid, key.status, formatShort(key.signs_from), key.verifies_until === undefined ? '-' : formatShort(key.verifies_until)])
  return formatTable(['KEY', 'STATUS', 'SIGNS FROM', 'VERIFIES UNTIL'], rows, io.columns)
}

function describeSealingKeys({ keys }: SealingKeyList, io: Io): string {
  const rows = keys.map((key) => [String(key.version), key.status, formatShort(key.seals_from), key.root ?? '-'])
  return formatTable(['VERSION', 'STATUS', 'SEALS FROM', 'WRAPPED BY'], rows, io.columns)
}

function describeUnfinished({ remaining }: SealingKeyList): string {
  if (remaining === 0) return ''
  return `${remaining} sealed ${remaining === 1 ? 'value is' : 'values are'} still under a replaced key, and sealed anew in the background.\n`
}

const rewrapCommand: Command = {
  name: 'rewrap',
  summary: 'move the sealing keys to the root key of the configuration',
  help: `Usage: stint keys rewrap [--json]

Wraps the keys that seal the broker's secrets by its root key, in place of the
one that root_key.previous names. What they have sealed stays as it is. A broker
that was given a previous root key does it by itself, soon after its start: this
does it now, and says whether the previous one can go from the configuration.

To change the root key: name the new one as root_key and the old one as
root_key.previous, restart every process, run this, take root_key.previous out.
A process that still has the old configuration runs on, but cannot start again.

Options:
  --json  print the answer as JSON

${connectionHelp}
Examples:
  stint keys rewrap
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('keys rewrap', args, { ...connectionOptions, json: { type: 'boolean' } })
    refusePositionals('keys rewrap', positionals)
    const rewrapped = await adminClient(values, io).rewrapSealingKeys()
    io.out(values.json === true ? formatJson(rewrapped) : describeRewrap(rewrapped))
    return rewrapped.elsewhere.length === 0 && !rewrapped.previous_is_needed ? 0 : 1
  },
}

function describeRewrap({ root, previous, moved, elsewhere, previous_is_needed: isNeeded, audit_index: index }: SealingKeysRewrapped): string {
  const name = printable(root)
  const versions = moved.length === 1 ? `version ${moved[0]} is` : `versions ${moved.join(', ')} are`
  const first = moved.length === 0 ? `Nothing was to be moved to the root key ${name}.\n` : `The sealing key of ${versions} wrapped by ${name} now. Audit entry ${index}.\n`
  const others = elsewhere.map(
    (key) => `Version ${key.version} is wrapped by ${printable(key.root)}, which this process was not given: restart it with the configuration of now.\n`,
  )
  if (previous === undefined) return first + others.join('')
  const last = isNeeded ? `${printable(previous)} still wraps one: run this again.\n` : `${printable(previous)} wraps nothing any more: take root_key.previous out of the configuration.\n`
  return first + others.join('') + last
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
  summary: "Show and replace the broker's own keys, which sign tokens and seal secrets",
  commands: [listCommand, rotateCommand, rewrapCommand],
  examples: `  stint keys list
  stint keys rotate
  stint keys rewrap
`,
})
