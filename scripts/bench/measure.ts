import assert from 'node:assert/strict'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Order } from './bodies.ts'
import { root, type Children } from './children.ts'
import { readCpuUs, readMachineUs, readResidentBytes } from './process-figures.ts'
import { mergeHistograms, percentileOf } from './statistics.ts'
import type { Subject } from './subject.ts'
import { sendLoad, type Generator, type LoadResult } from './wrk.ts'

/** One measurement of one case. */
export interface Sample {
  readonly tokens: number
  readonly tokensPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Processor time of all the subject's processes; absent where the system does not tell, like the next. */
  readonly cpuUsPerToken?: number
  /** The most that one of the subject's processes held at a time. */
  readonly residentBytesMax?: number
  /** How much of all cores' time others had meanwhile, 0 to 1: the load generator, a database server, and who else uses the machine. */
  readonly othersShare?: number
}

/** A sample, and from when to when it was taken: microseconds of the monotonic clock. */
export interface Measured extends Sample {
  readonly fromUs: number
  readonly toUs: number
}

export interface Bench {
  readonly children: Children
  readonly folder: string
  readonly generator: Generator
  readonly warmUpSeconds: number
  readonly seconds: number
}

/** Where a sample stops, and what its bodies are prepared for. */
export interface Pace {
  readonly connections: number
  /** More tokens a second than the subject can give: as many bodies are prepared. */
  readonly rateMax: number
}

/** The bodies ran out: the subject is faster than was thought. */
export class Exhausted extends Error {}

const script = join(root, 'scripts/bench/bodies.ts')
/** Before the warm-up, after it, and at the end: each checks one token. */
const checks = 3

/**
 * Measures a subject once, all others standing still: bodies are prepared, the subject warms up, then it is measured. Throws
 * where any answer was an error, where a token was not as it must be, or where the log lacks entries. Throws `Exhausted`
 * where too few bodies were prepared.
 */
export async function takeSample(bench: Bench, subject: Subject, pace: Pace): Promise<Measured> {
  const { children, folder, seconds, warmUpSeconds } = bench
  // Each process gets its share of the load.
  const warmUpCount = Math.ceil((pace.rateMax * warmUpSeconds) / subject.urls.length)
  const count = Math.ceil((pace.rateMax * seconds) / subject.urls.length)
  const files = await prepareBodies(children, folder, subject, checks + warmUpCount + count)
  for (const server of subject.servers) server.resume()
  try {
    const bodies = readFileSync(files[0]?.[0] ?? '', 'utf8').split('\n', checks)
    await subject.check(bodies[0] ?? '')
    await sendAll(bench, subject, pace, { files, first: checks, count: warmUpCount, seconds: warmUpSeconds })
    const { index: before } = await subject.check(bodies[1] ?? '')
    const watch = watchProcesses(subject)
    const fromUs = nowUs()
    const results = await sendAll(bench, subject, pace, { files, first: checks + warmUpCount, count, seconds })
    const toUs = nowUs()
    const { cpuUs, residentBytesMax, othersShare } = watch.end()
    const { index: after } = await subject.check(bodies[2] ?? '')
    const tokens = results.reduce((sum, result) => sum + result.requests, 0)
    if (before !== undefined && after !== undefined) {
      assert.ok(after - before - 1 >= tokens, `${tokens} tokens were given, and the log grew by ${after - before - 1} entries`)
    }
    const latency = mergeHistograms(results.map((result) => result.latency))
    return {
      fromUs,
      toUs,
      tokens,
      tokensPerSecond: results.reduce((sum, result) => sum + result.requests / result.seconds, 0),
      p50Ms: percentileOf(latency, 0.5) / 1000,
      p99Ms: percentileOf(latency, 0.99) / 1000,
      ...(cpuUs !== undefined && { cpuUsPerToken: cpuUs / tokens }),
      ...(residentBytesMax !== undefined && { residentBytesMax }),
      ...(othersShare !== undefined && { othersShare }),
    }
  } finally {
    for (const server of subject.servers) server.pause()
    for (const file of files.flat()) rmSync(file, { force: true })
  }
}

function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n)
}

/** As many processes sign as wait for it: a machine with one core alone is none to measure on. */
const signingProcesses = 2

/** Signs so many bodies for each process of the subject, and gives the files of each. */
async function prepareBodies(children: Children, folder: string, subject: Subject, count: number): Promise<string[][]> {
  const { audience, signersFile, signerCount, form, urls } = subject
  const parts = Math.max(1, Math.floor(signingProcesses / urls.length))
  const total = urls.length * parts
  const files = await Promise.all(
    Array.from({ length: total }, async (_, i) => {
      const out = join(folder, `bodies-${i}`)
      const order: Order = { signersFile, audience, form, count: Math.ceil(count / parts), firstSigner: Math.floor((signerCount * i) / total), out }
      await children.run({ script, args: [JSON.stringify(order)], logFile: join(folder, 'bodies.log') })
      return out
    }),
  )
  return urls.map((_, i) => files.slice(i * parts, (i + 1) * parts))
}

interface Run {
  /** The files of each process. */
  readonly files: readonly (readonly string[])[]
  readonly first: number
  readonly count: number
  readonly seconds: number
}

/** Sends load to each process of a subject, at the same time, by a generator for each. */
async function sendAll({ generator }: Bench, { urls, name }: Subject, { connections }: Pace, run: Run): Promise<LoadResult[]> {
  const share = { connections: connections / urls.length, seconds: run.seconds, first: run.first, count: run.count }
  const results = await Promise.all(urls.map((url, i) => sendLoad(generator, { ...share, url, files: run.files[i] ?? [] })))
  for (const { failed, exhausted } of results) {
    assert.ok(failed === 0, `${failed} requests to ${name} were not answered with a token`)
    if (exhausted) throw new Exhausted(`${name} used up ${run.count} bodies before the ${run.seconds} s were over`)
  }
  return results
}

/** Follows the processor time and the memory of a subject's processes until it is told to end. */
function watchProcesses({ servers }: Subject): { end(): { cpuUs?: number; residentBytesMax: number | undefined; othersShare?: number } } {
  const readCpu = () => sumOf(servers.map(({ pid }) => readCpuUs(pid)))
  const cpuBefore = readCpu()
  const machineBefore = readMachineUs()
  let residentBytesMax: number | undefined
  const look = () => {
    for (const { pid } of servers) {
      const bytes = readResidentBytes(pid)
      if (bytes !== undefined) residentBytesMax = Math.max(residentBytesMax ?? 0, bytes)
    }
  }
  look()
  const timer = setInterval(look, 200)
  return {
    end() {
      clearInterval(timer)
      look()
      const cpuAfter = readCpu()
      const machineAfter = readMachineUs()
      if (cpuBefore === undefined || cpuAfter === undefined || machineBefore === undefined || machineAfter === undefined) return { residentBytesMax }
      const cpuUs = cpuAfter - cpuBefore
      const othersUs = machineAfter.usedUs - machineBefore.usedUs - cpuUs
      return { cpuUs, residentBytesMax, othersShare: Math.max(0, othersUs / (machineAfter.totalUs - machineBefore.totalUs)) }
    },
  }
}

/** The sum, or `undefined` where one of them is not known. */
function sumOf(values: readonly (number | undefined)[]): number | undefined {
  return values.reduce((sum, value) => (sum === undefined || value === undefined ? undefined : sum + value), 0)
}
