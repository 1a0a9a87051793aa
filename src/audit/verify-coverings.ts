import { objectOf, textOf, timeOf, type Judged, type Told } from './verify-event.ts'

/** What of a grant a revocation of many is held against. */
export interface Covered {
  readonly workload: string
  readonly tool: string
  /** Empty where it has none. */
  readonly task: string
  readonly index: number
  readonly timeMs: number
}

/** The revocations of many grants, as the log has told of them so far. */
export interface Coverings {
  /** Judges a revocation of many, and takes note of it. */
  add(told: Told): Judged
  /** The entry of one that has ended a grant; `undefined` where none has. */
  find(grant: Covered): number | undefined
}

/** The newest revocation of one selector: by index, and for those of a time the latest time. */
interface Covering {
  index: number
  beforeMs: number
  beforeIndex: number
}

const names = ['workload', 'tool', 'task'] as const
const known: readonly string[] = [...names, 'before']

/** Keeps one number or two for each different selector, however often it was used. */
export function createCoverings(): Coverings {
  const coverings = new Map<string, Covering>()
  // Which of the names were ever selected by together, as bits: of the other ways there is nothing to look for.
  const ways = new Set<number>()

  return {
    add({ event, index, timeMs }) {
      const selector = objectOf(event, 'selector')
      const members = Object.entries(selector)
      if (members.length === 0) return 'selects nothing'
      const strange = members.find(([name, value]) => !known.includes(name) || typeof value !== 'string' || value === '')
      if (strange !== undefined) return `selects by ${strange[0]} in a way that this program does not know`
      if (names.some((name) => textOf(selector, name) !== textOf(event, name))) return 'selects another workload, tool or task than it names'
      if (event['owner'] !== undefined && selector['workload'] === undefined) return 'names an owner, and none of its workloads'
      const way = names.reduce((bits, name, i) => bits | (selector[name] === undefined ? 0 : 1 << i), 0)
      const key = keyOf(way, { workload: textOf(selector, 'workload'), tool: textOf(selector, 'tool'), task: textOf(selector, 'task') })
      const covering = coverings.get(key) ?? { index: -1, beforeMs: -Infinity, beforeIndex: -1 }
      if (selector['before'] === undefined) covering.index = index
      else {
        const beforeMs = timeOf(selector, 'before')
        if (beforeMs === undefined || beforeMs > timeMs) return 'covers grants of a time to come'
        if (beforeMs > covering.beforeMs) [covering.beforeMs, covering.beforeIndex] = [beforeMs, index]
      }
      ways.add(way)
      coverings.set(key, covering)
      return undefined
    },
    find(grant) {
      for (const way of ways) {
        const covering = coverings.get(keyOf(way, grant))
        if (covering === undefined) continue
        if (covering.index > grant.index) return covering.index
        if (covering.beforeMs > grant.timeMs) return covering.beforeIndex
      }
      return undefined
    },
  }
}

function keyOf(way: number, grant: Pick<Covered, (typeof names)[number]>): string {
  return `${way}${names.map((name, i) => ((way & (1 << i)) === 0 ? '' : `\n${grant[name]}`)).join('')}`
}
