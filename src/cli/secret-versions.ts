import type { SecretVersionRecord } from '../client/secret-records.ts'
import { readCount, readSingle } from './arguments.ts'
import { parseOptions, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatInstant, formatJson, formatTable } from './terminal.ts'

/** `stint secret versions`. */
export const versionsCommand: Command = {
  name: 'versions',
  summary: 'list the versions that a secret has had, without their values',
  help: `Usage: stint secret versions NAME [options]

Shows the versions of a secret, the newest first: since when there is one, who
made it, and what it is now. Nobody can show the values.

  current   in use
  pending   to be the next, once the rotation that made it is finished
  previous  replaced, and may still open something for whoever was lent it
  erased    opens nothing any more

Options:
  --limit N   at most this many (default 100, at most 1000)
  --before N  go on before this version
  --json      print the list as JSON

${connectionHelp}
Examples:
  stint secret versions billing-api
`,
  async run(args, io) {
    const command = 'secret versions'
    const { values, positionals } = parseOptions(command, args, { ...connectionOptions, limit: { type: 'string' }, before: { type: 'string' }, json: { type: 'boolean' } })
    const name = readSingle(command, positionals, "the secret's name")
    const limit = readCount(values.limit ?? '100', 'limit', 1000)
    const client = adminClient(values, io)
    const versions: SecretVersionRecord[] = []
    let before = values.before === undefined ? undefined : readCount(values.before, 'before', 2 ** 31)
    do {
      const page = await client.listSecretVersions(name, { before, limit: Math.min(100, limit - versions.length) })
      versions.push(...page.versions.slice(0, limit - versions.length))
      // A page without progress would be asked for without end.
      before = page.versions.length === 0 ? undefined : page.next
    } while (before !== undefined && versions.length < limit)

    if (values.json === true) io.out(formatJson({ versions, ...(before !== undefined && { next: before }) }))
    else io.out(formatTable(['VERSION', 'STAGE', 'SINCE', 'ROTATION'], versions.map(toRow), io.columns))
    if (before !== undefined && values.json !== true) io.err(`There are more: --before ${before}\n`)
    return 0
  },
}

function toRow({ version, stage, created_at: createdAt, rotation }: SecretVersionRecord): readonly string[] {
  return [String(version), stage, formatInstant(createdAt), rotation ?? 'none: it was put']
}
