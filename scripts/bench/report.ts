import type { BacklogFigures } from './backlog.ts'
import type { Case, Comparison } from './cases.ts'
import type { Machine } from './machine.ts'
import type { Sample } from './measure.ts'
import { medianOf, ratioOf, spreadOf, type Spread } from './statistics.ts'
import type { VerifierFigures } from './verify.ts'

/** A case with what its rounds gave. */
export interface CaseResult extends Pick<Case, 'name' | 'subject' | 'connections'> {
  readonly samples: readonly Sample[]
}

export interface ComparisonResult {
  readonly title: string
  /** Of the tokens per second. */
  readonly rate: Spread
  /** Of the processor time per token; absent where the system does not tell. */
  readonly cost?: Spread
  readonly aim?: string
  readonly met?: boolean
}

/** Compares cases round by round. The cost is processor time: on a machine that others use as well it is steadier than the rate. */
export function compareCases(comparisons: readonly Comparison[], results: readonly CaseResult[]): ComparisonResult[] {
  const byName = new Map(results.map((result) => [result.name, result.samples]))
  return comparisons.map(({ title, of, to, rateMin, costMax }) => {
    const [samples, base] = [byName.get(of) ?? [], byName.get(to) ?? []]
    const rate = ratioOf(samples.map(rateOf), base.map(rateOf))
    const [costs, baseCosts] = [samples.flatMap(costOf), base.flatMap(costOf)]
    const cost = costs.length === samples.length && baseCosts.length === base.length ? ratioOf(costs, baseCosts) : undefined
    const compared = { title, rate, ...(cost && { cost }) }
    if (rateMin !== undefined) return { ...compared, aim: `rate ≥ ${rateMin}`, met: rate.median >= rateMin }
    if (costMax !== undefined) return { ...compared, aim: `cost ≤ ${costMax}`, met: (cost?.median ?? 1 / rate.median) <= costMax }
    return compared
  })
}

/** An aim that one case alone is held against. */
export interface Aim {
  readonly title: string
  readonly measured: string
  readonly aim: string
  readonly met: boolean
}

const p99MsMax = 15
const residentMegabytesMax = 200
const megabyte = 1_000_000

/** Holds the sample set on SQLite at 32 connections against what is aimed at for it. */
export function judgeAims(results: readonly CaseResult[]): Aim[] {
  const samples = results.find(({ name }) => name === 'sqlite ×32')?.samples ?? []
  if (samples.length === 0) return []
  const p99Ms = spreadOf(samples.map((sample) => sample.p99Ms)).median
  const latency = { title: 'p99 at 32 connections', measured: `${p99Ms.toFixed(1)} ms`, aim: `≤ ${p99MsMax} ms`, met: p99Ms <= p99MsMax }
  const resident = samples.flatMap(({ residentBytesMax }) => (residentBytesMax === undefined ? [] : [residentBytesMax / megabyte]))
  if (resident.length === 0) return [latency]
  const megabytes = Math.max(...resident)
  const memory = { title: 'resident memory meanwhile', measured: `${megabytes.toFixed(0)} MB`, aim: `≤ ${residentMegabytesMax} MB`, met: megabytes <= residentMegabytesMax }
  return [latency, memory]
}

const rateOf = (sample: Sample): number => sample.tokensPerSecond
const costOf = ({ cpuUsPerToken }: Sample): number[] => (cpuUsPerToken === undefined ? [] : [cpuUsPerToken])

/** The table of the cases, for people. */
export function formatCases(results: readonly CaseResult[]): string {
  if (results.length === 0) return ''
  const rows = results.map(({ name, samples }) => {
    const figure = (read: (sample: Sample) => number | undefined, digits = 0): string => {
      const values = samples.flatMap((sample) => read(sample) ?? [])
      return values.length === 0 ? '-' : format(spreadOf(values), digits)
    }
    return [
      name,
      figure(rateOf),
      figure(({ p50Ms }) => p50Ms, 1),
      figure(({ p99Ms }) => p99Ms, 1),
      figure(({ cpuUsPerToken }) => cpuUsPerToken),
      figure(({ residentBytesMax }) => residentBytesMax && residentBytesMax / megabyte),
    ]
  })
  return formatTable(['case', 'tokens/s', 'p50 ms', 'p99 ms', 'CPU µs/token', 'memory MB'], rows)
}

/** The table of the ratios. */
export function formatComparisons(results: readonly ComparisonResult[]): string {
  if (results.length === 0) return ''
  const rows = results.map(({ title, rate, cost, aim = '', met }) => {
    return [title, format(rate, 2), cost === undefined ? '-' : format(cost, 2), aim, met === undefined ? '' : sayMet(met)]
  })
  return formatTable(['compared', 'tokens/s', 'CPU/token', 'aim', ''], rows)
}

/** The table of the aims. */
export function formatAims(aims: readonly Aim[]): string {
  if (aims.length === 0) return ''
  return formatTable(['sample set on SQLite', 'measured', 'aim', ''], aims.map(({ title, measured, aim, met }) => [title, measured, aim, sayMet(met)]))
}

function sayMet(met: boolean): string {
  return met ? 'met' : 'missed'
}

/** What the verifier gave, in a line. */
export function formatVerifier({ entries, exportSeconds, seconds, entriesPerSecond, entriesPerCoreSecond, residentBytesMax }: VerifierFigures): string {
  const core = entriesPerCoreSecond === undefined ? '' : `, ${entriesPerCoreSecond.toFixed(0)} entries/s and core (aim ≥ 100000)`
  const memory = residentBytesMax === undefined ? '' : `, ${(residentBytesMax / megabyte).toFixed(0)} MB`
  return `stint audit verify: ${entries} entries in ${seconds.toFixed(1)} s, ${entriesPerSecond.toFixed(0)} entries/s${core}${memory}; the export took ${exportSeconds.toFixed(1)} s`
}

/** How new grants fared while what had expired was cleared, and afterwards. */
export function formatBacklogs(results: readonly BacklogFigures[]): string {
  if (results.length === 0) return ''
  const rows = results.flatMap(({ name, grants, clearedSeconds, meanwhile, afterwards }) =>
    (['token', 'credential'] as const).map((kind) => {
      const [during, after] = [meanwhile[kind], afterwards[kind]]
      const cleared = `${clearedSeconds.toFixed(1)} (${(grants / clearedSeconds).toFixed(0)}/s)`
      return [`${name}: a ${kind}`, cleared, ...[during, after].flatMap(({ p50Ms, p99Ms }) => [p50Ms.toFixed(1), p99Ms.toFixed(1)])]
    }),
  )
  return formatTable(['expired while it was down', 'cleared in s', 'p50 ms meanwhile', 'p99', 'p50 ms afterwards', 'p99'], rows)
}

const othersShareMax = 0.35

/** A warning where others used the machine as well; the load generator alone has a tenth or two of two cores. */
export function warnOfOthers(results: readonly CaseResult[]): string {
  const shares = results.flatMap(({ samples }) => samples.flatMap(({ othersShare }) => (othersShare === undefined ? [] : [othersShare])))
  const share = shares.length === 0 ? 0 : medianOf(shares)
  if (share <= othersShareMax) return ''
  return `Others had ${(share * 100).toFixed(0)} % of the processors meanwhile: the rates and latencies say little, the processor time per token is inflated.`
}

export function formatMachine({ cpu, cores, memoryGiB, disk, node, kernel, loadBefore }: Machine): string {
  const load = loadBefore === undefined ? '' : `; load before the run ${loadBefore.toFixed(1)}`
  return `${cpu}, ${cores} cores, ${memoryGiB} GiB, ${disk}, Node ${node}, ${kernel}${load}`
}

/** The median, and between what the rounds lie where there were several. */
function format({ median, min, max }: Spread, digits: number): string {
  const middle = median.toFixed(digits)
  return min === max ? middle : `${middle} (${min.toFixed(digits)}–${max.toFixed(digits)})`
}

/** Columns of text, the first to the left and the others to the right. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)))
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ').trimEnd()
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}
