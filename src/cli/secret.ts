import type { SecretRecord } from '../client/secret-records.ts'
import { readPrivateFile } from '../kernel/private-file.ts'
import { secretNamePattern } from '../kernel/secret-source.ts'
import { readCount, readSingle, refusePositionals } from './arguments.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { createGroup } from './group.ts'
import { versionsCommand } from './secret-versions.ts'
import { formatJson, formatTable, printable } from './terminal.ts'

const putCommand: Command = {
  name: 'put',
  summary: 'hand over a secret, or a fresh one in place of the old',
  help: `Usage: stint secret put NAME [--file FILE] [--json]

Reads a secret from standard input, or from a file, and hands it to the broker,
which keeps it sealed and never shows it again. A tool of the catalog names it
as sealed:NAME, or lends it (connector sealed-secret). The one that the name had
before is erased, and whoever was lent it is taken to hold nothing any more: so
first have the system behind it refuse the old one, or change both at once. A
rotation that is under way is given up. A tool that needs reconnection works
again once it has a fresh refresh token.

One line break at the end is taken off; the rest is kept as it is, at most
64 KiB of text. A secret is never an argument: every user of the machine can
read those.

Options:
  --file FILE  read it from this file, of mode 0600
  --json       print the record as JSON

${connectionHelp}
Examples:
  stint secret put github-app --file app.private-key.pem
  pass show crm/refresh-token | stint secret put crm
`,
  async run(args, io) {
    const command = 'secret put'
    const { values, positionals } = parseOptions(command, args, { ...connectionOptions, file: { type: 'string' }, json: { type: 'boolean' } })
    const name = readSingle(command, positionals, "the secret's name")
    // Before anything is read: somebody may have given the secret itself.
    if (!secretNamePattern.test(name)) throw new UsageError("the secret's name must be 1 to 63 of a-z, 0-9 and dashes, and begin with a letter.")
    const client = adminClient(values, io)
    const secret = await client.putSecret(name, await readValue(values.file, io))
    if (values.json === true) {
      io.out(formatJson(secret))
      return 0
    }
    const entry = secret.audit_index === undefined ? '' : ` Audit entry ${secret.audit_index}.`
    io.out(`${printable(secret.name)} is kept, version ${secret.version}. Tools name it as sealed:${printable(secret.name)}.${entry}\n`)
    return 0
  },
}

const listCommand: Command = {
  name: 'list',
  summary: 'list the secrets that the broker keeps, without their values',
  help: `Usage: stint secret list [options]

Shows each secret's name, its version, since when, and which tool needs a fresh
one. Nobody can show the secrets themselves.

Options:
  --limit N     at most this many (default 100, at most 1000)
  --after NAME  go on after this one
  --json        print the list as JSON

${connectionHelp}
Examples:
  stint secret list
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('secret list', args, {
      ...connectionOptions,
      limit: { type: 'string' },
      after: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('secret list', positionals)
    const limit = readCount(values.limit ?? '100', 'limit', 1000)
    const client = adminClient(values, io)
    const secrets: SecretRecord[] = []
    let after = values.after
    do {
      const page = await client.listSecrets({ after, limit: Math.min(100, limit - secrets.length) })
      secrets.push(...page.secrets.slice(0, limit - secrets.length))
      // A page without progress would be asked for without end.
      after = page.secrets.length === 0 ? undefined : page.next
    } while (after !== undefined && secrets.length < limit)

    if (values.json === true) io.out(formatJson({ secrets, ...(after !== undefined && { next: after }) }))
    else if (secrets.length === 0) io.err('The broker keeps no secret.\n')
    else io.out(formatTable(['NAME', 'VERSION', 'SINCE', 'STATUS'], secrets.map(toRow), io.columns))
    if (after !== undefined && values.json !== true) io.err(`There are more: --after ${printable(after)}\n`)
    return 0
  },
}

function toRow({ name, version, created_at: createdAt, needs_reconnection: reconnection }: SecretRecord): readonly string[] {
  const status = reconnection === undefined ? 'kept' : `the tool ${reconnection.tool} needs reconnection: ${reconnection.problem}`
  return [name, String(version), createdAt.slice(0, 10), status]
}

async function readValue(file: string | undefined, io: Io): Promise<string> {
  // What is typed at a terminal would be seen, and stay on the screen.
  if (file === undefined && io.ask !== undefined) throw new UsageError('the secret is read from a pipe or a file: give --file FILE, or write … | stint secret put NAME')
  const text = file === undefined ? await io.readInput() : decode(readPrivateFile(file, 'the secret'), file)
  const value = text.replace(/\r?\n$/, '')
  if (value === '') throw new CommandError(`${file ?? 'standard input'} holds no secret: it is empty`)
  if (Buffer.byteLength(value) > 64 * 1024) throw new CommandError('the secret is too large: at most 64 KiB are kept')
  return value
}

function decode(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new CommandError(`${file} is not UTF-8 text`)
  }
}

/** `stint secret …`: the secrets that the broker keeps sealed, for tools and to be lent. */
export const secretCommand: Command = createGroup({
  name: 'secret',
  summary: 'Hand over and list the secrets that the broker keeps sealed',
  commands: [putCommand, listCommand, versionsCommand],
  examples: `  stint secret put crm --file refresh-token.txt
  stint secret list
  stint secret versions crm
`,
})
