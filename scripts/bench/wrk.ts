import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Histogram } from './statistics.ts'

const run = promisify(execFile)
const script = fileURLToPath(new URL('load.lua', import.meta.url))

/** What sends the load: a program of its own, cheaper than any server. */
export interface Generator {
  readonly name: string
  readonly command: string
  /** What stands before the options, which are those of wrk. */
  readonly before: readonly string[]
}

/** What there is without wrk. */
export const ownGenerator: Generator = {
  name: 'scripts/bench/load.ts',
  command: process.execPath,
  before: [fileURLToPath(new URL('load.ts', import.meta.url))],
}

/** wrk, or where there is none our own generator, with the advice how to get wrk. */
export async function findGenerator(): Promise<Generator & { readonly advice?: string }> {
  // Without a URL it prints its version and its options, and ends with 1.
  const version = await run('wrk', ['-v']).catch((error: unknown) => error)
  const text = typeof version === 'object' && version !== null && 'stdout' in version ? String(version.stdout) : ''
  const [, name] = /^(wrk \S+)/.exec(text) ?? []
  if (name !== undefined) return { name, command: 'wrk', before: [] }
  const advice = 'wrk is not installed (apt-get install wrk, brew install wrk): the load comes from a generator of our own, which costs more'
  return { ...ownGenerator, advice }
}

/** What is sent to one server. */
export interface Load {
  readonly url: string
  readonly connections: number
  readonly seconds: number
  /** Files with one body a line, and which of all their lines are for this run. */
  readonly files: readonly string[]
  readonly first: number
  readonly count: number
}

/** What came of it. */
export interface LoadResult {
  readonly requests: number
  readonly seconds: number
  /** Answers with a status of 400 and above, and requests without an answer. */
  readonly failed: number
  /** Whether the bodies ran out before the time did: the run says nothing then. */
  readonly exhausted: boolean
  readonly latency: Histogram
}

/** Sends a load to its end. Throws with what the generator said where it gave no figures. */
export async function sendLoad({ command, before }: Generator, load: Load): Promise<LoadResult> {
  const { url, connections, seconds, files, first, count } = load
  const options = ['-t', '1', '-c', String(connections), '-d', `${seconds}s`, '--timeout', '5s', '-s', script]
  const { stdout } = await run(command, [...before, ...options, url, '--', String(first), String(count), ...files], {
    maxBuffer: 64 * 1024 * 1024,
    timeout: (seconds + 60) * 1000,
  })
  return parseResult(stdout)
}

/** Reads the two lines that load.lua (and load.ts) print, among whatever else is there. Throws where they are missing. */
export function parseResult(text: string): LoadResult {
  const [, figures = ''] = /^bench (.*)$/m.exec(text) ?? []
  const [, latencies] = /^latency_us (.*)$/m.exec(text) ?? []
  const values = new Map(figures.split(' ').map((pair): [string, number] => [pair.split('=')[0] ?? '', Number(pair.split('=')[1])]))
  const read = (name: string): number => {
    const value = values.get(name)
    if (value === undefined || !Number.isFinite(value)) throw new Error(`the load generator gave no ${name}: ${text.slice(0, 2_000)}`)
    return value
  }
  if (latencies === undefined) throw new Error(`the load generator gave no latencies: ${text.slice(0, 2_000)}`)
  const latency = new Map<number, number>()
  for (const [, us, times] of latencies.matchAll(/(\d+):(\d+)/g)) latency.set(Number(us), Number(times))
  return {
    requests: read('requests'),
    seconds: read('duration_us') / 1_000_000,
    failed: ['connect', 'read', 'write', 'timeout', 'status'].reduce((sum, name) => sum + read(name), 0),
    exhausted: read('exhausted') !== 0,
    latency,
  }
}
