import type { GrantRecord } from '../client/grant-records.ts'
import { readCount, readSingle, refusePositionals } from './arguments.ts'
import { parseOptions, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { formatGrant, formatGrants } from './grant-record.ts'
import { formatJson, printable } from './terminal.ts'

/** `stint grants`, or `stint grants list`. */
export const listCommand: Command = {
  name: 'list',
  summary: 'list the grants that live in outside tools',
  help: `Usage: stint grants [list] [options]
       stint grants show GRANT
       stint grants retry GRANT…|--tool NAME --reason TEXT
       stint grants write-off GRANT --reason TEXT

Lists the grants whose credential lives in an outside tool, by time, with what
went wrong last. A stuck one is one that its tool refused to end so often that
nobody tries any more: see why (stint tool check NAME), then retry it, or write
it off.

Options:
  --state STATE    only these: minting, active, ending, unknown, stuck, failed,
                   revoked, expired or written_off
  --tool NAME      only those on this tool
  --workload NAME  only this workload's
  --limit N        at most this many (default 100, at most 10000)
  --after GRANT    go on after this one
  --json           print the list as JSON

${connectionHelp}
Examples:
  stint grants --state stuck
  stint grants --tool warehouse --state active --json
  stint grants retry --tool warehouse --reason "it is reachable again"
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('grants', args, {
      ...connectionOptions,
      state: { type: 'string' },
      tool: { type: 'string' },
      workload: { type: 'string' },
      limit: { type: 'string' },
      after: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('grants', positionals)
    const limit = readCount(values.limit ?? '100', 'limit', 10_000)
    const client = adminClient(values, io)
    const { state, tool, workload } = values
    const grants: GrantRecord[] = []
    let after = values.after
    do {
      const page = await client.listGrants({ state, tool, workload, after, limit: Math.min(500, limit - grants.length) })
      grants.push(...page.grants.slice(0, limit - grants.length))
      // A page without progress would be asked for without end.
      after = page.grants.length === 0 ? undefined : page.next
    } while (after !== undefined && grants.length < limit)

    if (values.json === true) io.out(formatJson({ grants, ...(after !== undefined && { next: after }) }))
    else if (grants.length === 0) io.err('No grant matches.\n')
    else io.out(formatGrants(grants, io.columns))
    if (after !== undefined && values.json !== true) io.err(`There are more: --after ${printable(after)}\n`)
    return 0
  },
}

/** `stint grants show`. */
export const showCommand: Command = {
  name: 'show',
  summary: 'show how a grant stands',
  help: `Usage: stint grants show GRANT [--json]

Shows any grant, without its credential, which nobody can show again.

Options:
  --json  print the record as JSON

${connectionHelp}
Examples:
  stint grants show grant_01kb2m4…
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('grants show', args, { ...connectionOptions, json: { type: 'boolean' } })
    const id = readSingle('grants show', positionals, "the grant's id")
    const grant = await adminClient(values, io).getGrant(id)
    io.out(values.json === true ? formatJson(grant) : formatGrant(grant))
    return 0
  },
}
