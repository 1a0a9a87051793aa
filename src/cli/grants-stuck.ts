import type { AdminClient } from '../client/admin.ts'
import type { EndedGrant } from '../client/grant-records.ts'
import { readSingle, requireOption } from './arguments.ts'
import { parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { exitCodeOf, formatEnded } from './ended-grants.ts'
import { reportFailure } from './failure.ts'
import { createProgress } from './progress.ts'
import { formatJson, printable } from './terminal.ts'

/** `stint grants retry`: what is stuck is tried again. */
export const retryCommand: Command = {
  name: 'retry',
  summary: 'try again to end grants that are stuck',
  help: `Usage: stint grants retry GRANT… --reason TEXT [--json]
       stint grants retry --tool NAME --reason TEXT [--json]

Tries again to end grants that are stuck: these, or all of a tool. What fails
again is tried on by itself, ten times more.

Options:
  --tool NAME    all of this tool
  --reason TEXT  why it should work now, for the log
  --json         print what became of them as JSON

Exit codes: 0 all of them have ended, 1 refused, or one has not ended yet,
2 wrong usage.

${connectionHelp}
Examples:
  stint grants retry --tool warehouse --reason "it is reachable again"
  stint grants retry grant_01kb2m4… --reason "the right is back"
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('grants retry', args, {
      ...connectionOptions,
      tool: { type: 'string' },
      reason: { type: 'string' },
      json: { type: 'boolean' },
    })
    const reason = requireOption('grants retry', values, 'reason')
    const { tool } = values
    if ((tool === undefined) === (positionals.length === 0) || tool === '' || positionals.includes('')) {
      throw new UsageError('which grants? Give their ids, or --tool NAME for all that are stuck in it. See: stint grants retry --help')
    }
    const client = adminClient(values, io)
    const ids = tool === undefined ? positionals : await listStuck(client, tool)
    const { ended, failed } = await retryAll(client, ids, reason, io)
    if (values.json === true) io.out(formatJson({ grants: ended }))
    else if (ids.length === 0) io.err(`Nothing is stuck in ${printable(tool ?? '')}.\n`)
    else if (ended.length > 0) io.out(formatEnded(ended))
    return failed ? 1 : exitCodeOf(ended)
  },
}

async function retryAll(client: AdminClient, ids: readonly string[], reason: string, io: Io): Promise<{ readonly ended: readonly EndedGrant[]; readonly failed: boolean }> {
  const ended: EndedGrant[] = []
  let failed = false
  const progress = createProgress(io)
  for (const [done, id] of ids.entries()) {
    progress.show(() => `${done} of ${ids.length} tried again`)
    try {
      ended.push(await client.retryGrant(id, reason))
    } catch (error) {
      // The others are to be tried all the same.
      progress.clear()
      reportFailure(error, io)
      failed = true
    }
  }
  progress.clear()
  return { ended, failed }
}

/** All that is stuck in a tool at this moment. */
async function listStuck(client: AdminClient, tool: string): Promise<readonly string[]> {
  const ids: string[] = []
  let after: string | undefined
  do {
    const page = await client.listGrants({ state: 'stuck', tool, after, limit: 500 })
    ids.push(...page.grants.map(({ grant }) => grant))
    // A page without progress would be asked for without end.
    after = page.grants.length === 0 ? undefined : page.next
  } while (after !== undefined)
  return ids
}

/** `stint grants write-off`: nobody looks after it any more. */
export const writeOffCommand: Command = {
  name: 'write-off',
  summary: 'take it upon yourself that a stuck grant may live',
  help: `Usage: stint grants write-off GRANT --reason TEXT [--json]

Takes it upon you that a grant which is stuck may live in its tool: nobody tries
to end it any more, and the log says that you decided so. Right where you have
ended it by hand, or the tool is gone.

Options:
  --reason TEXT  why, for the log
  --json         print the answer as JSON

${connectionHelp}
Examples:
  stint grants write-off grant_01kb2m4… --reason "the server is scrapped"
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('grants write-off', args, { ...connectionOptions, reason: { type: 'string' }, json: { type: 'boolean' } })
    const id = readSingle('grants write-off', positionals, "the grant's id")
    const reason = requireOption('grants write-off', values, 'reason')
    const written = await adminClient(values, io).writeOffGrant(id, reason)
    const entry = written.audit_index === undefined ? '' : ` Audit entry ${written.audit_index}.`
    if (values.json === true) io.out(formatJson(written))
    else io.out(`${printable(written.grant)} is written off: it may live in ${printable(written.tool)}, and nobody looks after it any more.${entry}\n`)
    return 0
  },
}
