import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './children.ts'
import { formatTable } from './report.ts'

/** What V8 writes with `--cpu-prof`: which node of the call tree was on top at each sample. Times are microseconds of the monotonic clock. */
export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }[]
  readonly startTime: number
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

/** How much of the time was spent in something itself, without what it called. */
export interface SelfTime {
  readonly name: string
  readonly us: number
  /** Of the time in which the thread did anything. */
  readonly share: number
}

/** Self times, the largest first. */
export interface ProfileSummary {
  readonly functions: readonly SelfTime[]
  readonly files: readonly SelfTime[]
  readonly idleUs: number
}

/** Self times between two instants of the monotonic clock (microseconds), by function and by file. */
export function summariseProfile(profile: CpuProfile, fromUs: number, toUs: number): ProfileSummary {
  const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]))
  const functions = new Map<string, number>()
  const files = new Map<string, number>()
  let atUs = profile.startTime
  let idleUs = 0
  profile.samples.forEach((id, i) => {
    // A delta is the time since the sample before: that is when the one before was on top.
    atUs += profile.timeDeltas[i] ?? 0
    const us = profile.timeDeltas[i + 1] ?? 0
    const frame = frames.get(id)
    if (frame === undefined || atUs < fromUs || atUs > toUs) return
    const { functionName, url, lineNumber } = frame
    if (functionName === '(idle)') {
      idleUs += us
      return
    }
    const file = shorten(url)
    const place = file === '' ? '' : ` ${file}:${lineNumber + 1}`
    add(functions, `${functionName === '' ? '(anonymous)' : functionName}${place}`, us)
    add(files, file === '' ? functionName.startsWith('(') ? functionName : '(native)' : file, us)
  })
  return { functions: rank(functions), files: rank(files), idleUs }
}

/** The forty largest of each, for people. */
export function formatProfile({ functions, files, idleUs }: ProfileSummary): string {
  const busyUs = files.reduce((sum, { us }) => sum + us, 0)
  const list = (times: readonly SelfTime[]) =>
    formatTable(['self time', 'ms', 'share'], times.slice(0, 40).map(({ name, us, share }) => [name, (us / 1000).toFixed(0), `${(share * 100).toFixed(1)} %`]))
  return `${list(files)}\n\n${list(functions)}\n\nBusy ${(busyUs / 1000).toFixed(0)} ms, idle ${(idleUs / 1000).toFixed(0)} ms of the main thread.`
}

/** The one profile in a folder. */
export function readProfile(folder: string): CpuProfile {
  const [name, ...more] = readdirSync(folder).filter((file) => file.endsWith('.cpuprofile'))
  if (name === undefined || more.length > 0) throw new Error(`${folder} should hold one profile`)
  // As V8 writes it.
  return JSON.parse(readFileSync(join(folder, name), 'utf8')) as CpuProfile
}

function add(times: Map<string, number>, name: string, us: number): void {
  times.set(name, (times.get(name) ?? 0) + us)
}

function rank(times: ReadonlyMap<string, number>): SelfTime[] {
  const total = [...times.values()].reduce((sum, us) => sum + us, 0)
  return [...times].map(([name, us]) => ({ name, us, share: us / total })).sort((a, b) => b.us - a.us)
}

function shorten(url: string): string {
  const path = url.replace(/^file:\/\//, '')
  return path.startsWith(`${root}/`) ? path.slice(root.length + 1) : path
}
