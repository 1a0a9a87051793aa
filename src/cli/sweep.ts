import type { AdminClient } from '../client/admin.ts'
import { StintError } from '../client/errors.ts'
import type { OrphanSweep } from '../client/grant-records.ts'
import { refusePositionals } from './arguments.ts'
import { parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { createProgress } from './progress.ts'
import { formatJson, formatTable, printable } from './terminal.ts'

const rowsMax = 20

/** `stint sweep --orphans`: ends what was made in tools and no live grant stands for. */
export const sweepCommand: Command = {
  name: 'sweep',
  summary: 'end what was made in tools and no live grant stands for',
  help: `Usage: stint sweep --orphans [--tool NAME] [--dry-run] [--json]

Looks through the tools for what this broker made in them and no live grant
stands for, as after the loss of a database, and ends it. Expired and revoked
grants need none of this: the broker ends them by itself.

Options:
  --orphans    look for orphans: the only thing to sweep for
  --tool NAME  this tool alone (else every tool whose credentials live outside)
  --dry-run    only list what would be ended
  --json       print what was found as JSON

Exit codes: 0 nothing is left, or --dry-run; 1 something could not be ended or
looked at, or refused; 2 wrong usage. A tool that cannot say what was made in it
is named, and no failure.

${connectionHelp}
Examples:
  stint sweep --orphans --dry-run
  stint sweep --orphans --tool warehouse
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('sweep', args, {
      ...connectionOptions,
      orphans: { type: 'boolean' },
      tool: { type: 'string' },
      'dry-run': { type: 'boolean' },
      json: { type: 'boolean' },
    })
    refusePositionals('sweep', positionals)
    if (values.orphans !== true) throw new UsageError('what shall be swept for? Give --orphans. See: stint sweep --help')
    if (values.tool === '') throw new UsageError('--tool has an empty value: nothing was swept.')
    const dryRun = values['dry-run'] === true
    const client = adminClient(values, io)
    const tools = values.tool === undefined ? (await client.listTools()).filter(({ outside }) => outside).map(({ tool }) => tool) : [values.tool]
    const swept = await sweepAll(client, tools, dryRun, io)
    if (values.json === true) io.out(formatJson({ tools: swept }))
    else if (swept.length === 0) io.err('No tool of the catalog has its credentials outside.\n')
    else io.out(swept.map((one) => describe(one, dryRun)).join(''))
    return swept.every((one) => !('error' in one) && (dryRun || one.orphans.every(({ ended }) => ended))) ? 0 : 1
  },
}

/** A tool that could not be looked through, and why. */
interface NotSwept {
  readonly tool: string
  readonly error: { readonly code: string; readonly message: string }
}

/** One tool after the other; what fails in one is told, and keeps nobody from the next. */
async function sweepAll(client: AdminClient, tools: readonly string[], dryRun: boolean, io: Io): Promise<readonly (OrphanSweep | NotSwept)[]> {
  const progress = createProgress(io, 0)
  const swept: (OrphanSweep | NotSwept)[] = []
  for (const [done, tool] of tools.entries()) {
    progress.show(() => `looking through ${printable(tool)}, ${done + 1} of ${tools.length}`)
    try {
      swept.push(await sweepOne(client, tool, dryRun, (ended) => progress.show(() => `${ended} ended in ${printable(tool)}, ${done + 1} of ${tools.length}`)))
    } catch (error) {
      // Without the broker, or the right to ask it, every other tool would fail in the same way.
      if (!(error instanceof StintError) || !isOfTool(error)) throw error
      swept.push({ tool, error: { code: error.code, message: error.message } })
    } finally {
      progress.clear()
    }
  }
  return swept
}

/** Goes on as long as that ends more: the broker answers before it has ended very many. */
async function sweepOne(client: AdminClient, tool: string, dryRun: boolean, onEnded: (ended: number) => void): Promise<OrphanSweep> {
  const ended: OrphanSweep['orphans'][number][] = []
  for (;;) {
    const swept = await client.sweepOrphans(tool, { dryRun })
    const now = swept.orphans.filter((orphan) => orphan.ended)
    const left = swept.orphans.filter((orphan) => !orphan.ended)
    if (now.length === 0 || left.length === 0) return { ...swept, found: ended.length + swept.found, orphans: [...ended, ...now, ...left] }
    ended.push(...now)
    onEnded(ended.length)
  }
}

function isOfTool({ code }: StintError): boolean {
  return ['tool_failed', 'tool_unavailable', 'conflict', 'not_found', 'timed_out', 'internal'].includes(code)
}

function describe(one: OrphanSweep | NotSwept, dryRun: boolean): string {
  const tool = printable(one.tool)
  if ('error' in one) return `${tool}: ${printable(one.error.message)}\n`
  if (!one.listed) return `${tool}: it cannot say what was made in it, so that it cannot be looked through\n`
  const { found, orphans } = one
  const ended = orphans.filter((orphan) => orphan.ended).length
  const left = orphans.length - ended
  const outcome = dryRun ? 'nothing was ended' : `${ended} ended${left === 0 ? '' : `, ${left} left`}`
  if (orphans.length === 0) return `${tool}: ${found} found, each with a live grant\n`
  const shown = [...orphans.filter((orphan) => !orphan.ended), ...orphans.filter((orphan) => orphan.ended)].slice(0, rowsMax)
  const rest = orphans.length === shown.length ? '' : `… and ${orphans.length - shown.length} more: --json lists them\n`
  const rows = shown.map((orphan) => [orphan.reference, orphan.grant, orphan.ended ? 'ended' : (orphan.problem ?? 'no live grant')])
  return `${tool}: ${found} found, ${orphans.length} without a live grant; ${outcome}\n${formatTable(['IN THE TOOL', 'GRANT', 'WHAT BECAME OF IT'], rows, undefined)}${rest}`
}
