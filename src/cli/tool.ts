import type { ToolRecord } from '../client/grant-records.ts'
import { formatDuration } from '../kernel/duration.ts'
import { readSingle, refusePositionals } from './arguments.ts'
import { parseOptions, type Command } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { createGroup } from './group.ts'
import { cutOffCommand } from './tool-cut-off.ts'
import { formatJson, formatTable, printable } from './terminal.ts'

const listCommand: Command = {
  name: 'list',
  summary: 'list the tools of the catalog in force',
  help: `Usage: stint tool list [--json]

Shows what agents can be given access to: each tool's connector, the longest
life of a grant, what a target is, and its actions.

Options:
  --json  print the list as JSON

${connectionHelp}
Examples:
  stint tool list
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('tool list', args, { ...connectionOptions, json: { type: 'boolean' } })
    refusePositionals('tool list', positionals)
    const tools = await adminClient(values, io).listTools()
    if (values.json === true) io.out(formatJson({ tools }))
    else if (tools.length === 0) io.err('The catalog in force has no tool.\n')
    else io.out(formatTable(['TOOL', 'CONNECTOR', 'LONGEST', 'TARGET', 'ACTIONS'], tools.map(toRow), io.columns))
    return 0
  },
}

function toRow({ tool, connector, ttl_seconds_max: seconds, target = '-', actions }: ToolRecord): readonly string[] {
  const verbs = actions.map((action) => action.replace(`${tool}:`, ''))
  return [tool, connector, formatDuration(seconds), target, verbs.join(' ')]
}

const checkCommand: Command = {
  name: 'check',
  summary: 'see whether a tool is reachable and its root credential is right',
  help: `Usage: stint tool check NAME [--json]

Asks the tool, with its root credential, and says in words whether it is
reachable and whether the credential has the rights that it needs, and no
others. What agents have been given stays as it is.

At AWS only a try shows some of it: for an aws-sts tool a session of the role is
opened that is denied everything, and the policies of its kill switch are
written again, with what they have to say anyway. CloudTrail shows both.

Options:
  --json  print the findings as JSON

Exit codes: 0 all is right, 1 something is not, or refused, 2 wrong usage.

${connectionHelp}
Examples:
  stint tool check warehouse
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('tool check', args, { ...connectionOptions, json: { type: 'boolean' } })
    const name = readSingle('tool check', positionals, "the tool's name")
    const check = await adminClient(values, io).checkTool(name)
    if (values.json === true) io.out(formatJson(check))
    else io.out(check.findings.map(({ ok, sentence }) => `${ok ? '✓' : '✗'} ${printable(sentence)}\n`).join(''))
    return check.ok ? 0 : 1
  },
}

/** `stint tool …`: what agents are given access to. */
export const toolCommand: Command = createGroup({
  name: 'tool',
  summary: 'List the tools of the catalog, and check their root credentials',
  commands: [listCommand, checkCommand, cutOffCommand],
  examples: `  stint tool list
  stint tool check warehouse
  stint tool cut-off reports --reason "the build runner was broken into"
`,
})
