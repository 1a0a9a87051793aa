import { hash } from 'node:crypto'
import { objectOf, textOf, timeOf, type Judged, type Rules } from './verify-event.ts'

/** What is known of a grant until it expires: what ends it must belong to it. */
interface LiveGrant {
  readonly workload: string
  readonly tool: string
  readonly task: string
  readonly index: number
  readonly timeMs: number
  readonly expiresAtMs: number
  endedBy?: number
}

/** The grants and what has ended them, as the log has told of them so far. */
export interface KnownGrants {
  readonly rules: Rules
  issue(id: string, grant: Omit<LiveGrant, 'endedBy'>): Judged
  /** Whether a grant of this id was ever issued. */
  has(id: string): boolean
  readonly issued: number
  /** Revocations of one grant. */
  readonly revoked: number
}

/** The newest revocation of many of one selector: by index, and for those of a time the latest time. */
interface Covering {
  index: number
  beforeMs: number
  beforeIndex: number
}

/** Keeps 12 bytes in a table of at most twice as many places for each grant for ever, and the rest until it expires. */
export function createKnownGrants(): KnownGrants {
  const ids = createIdSet()
  const live = new Map<string, LiveGrant>()
  const coverings = new Map<string, Covering>()
  let [issued, revoked, sweepAt] = [0, 0, 10_000]

  function sweep(timeMs: number): void {
    for (const [id, { expiresAtMs }] of live) if (expiresAtMs <= timeMs) live.delete(id)
    sweepAt = Math.max(10_000, 2 * live.size)
  }

  /** The revocation of many that has ended a grant, if one has. */
  function findCovering({ workload, task, index, timeMs }: LiveGrant): number | undefined {
    const selectors = [selectorKey('', ''), selectorKey(workload, ''), ...(task === '' ? [] : [selectorKey('', task), selectorKey(workload, task)])]
    for (const key of selectors) {
      const covering = coverings.get(key)
      if (covering === undefined) continue
      if (covering.index > index) return covering.index
      if (covering.beforeMs > timeMs) return covering.beforeIndex
    }
    return undefined
  }

  return {
    issue(id, grant) {
      if (!ids.add(id)) return `issues the grant ${id} once more`
      issued++
      if (live.size >= sweepAt) sweep(grant.timeMs)
      live.set(id, grant)
      return undefined
    },
    has: ids.has,
    rules: {
      'grant.revoked': ({ event, index, timeMs }) => {
        const id = textOf(event, 'grant')
        if (!ids.has(id)) return `ends the grant ${id}, which was not issued before`
        const grant = live.get(id)
        if (grant === undefined || grant.expiresAtMs <= timeMs) return `ends the grant ${id}, which had expired`
        const endedBy = grant.endedBy ?? findCovering(grant)
        if (endedBy !== undefined) return `ends the grant ${id}, which entry ${endedBy} had ended`
        grant.endedBy = index
        revoked++
        const actor = objectOf(event, 'actor')
        if (textOf(actor, 'kind') === 'workload' && textOf(actor, 'id') !== grant.workload) return `ends the grant ${id} by the word of another workload`
        for (const member of ['workload', 'tool', 'task'] as const) {
          if (textOf(event, member) !== grant[member]) return `ends the grant ${id} with another ${member} than entry ${grant.index} issued it with`
        }
        return undefined
      },
      'grants.revoked': ({ event, index, timeMs }) => {
        const selector = objectOf(event, 'selector')
        const [workload, task] = [textOf(selector, 'workload'), textOf(selector, 'task')]
        if (Object.keys(selector).length === 0) return 'selects nothing'
        if (workload !== textOf(event, 'workload') || task !== textOf(event, 'task')) return 'selects another workload or task than it names'
        const key = selectorKey(workload, task)
        const covering = coverings.get(key) ?? { index: -1, beforeMs: -Infinity, beforeIndex: -1 }
        if (selector['before'] === undefined) covering.index = index
        else {
          const beforeMs = timeOf(selector, 'before')
          if (beforeMs === undefined || beforeMs > timeMs) return 'covers grants of a time to come'
          if (beforeMs > covering.beforeMs) [covering.beforeMs, covering.beforeIndex] = [beforeMs, index]
        }
        coverings.set(key, covering)
        return undefined
      },
    },
    get issued() {
      return issued
    },
    get revoked() {
      return revoked
    },
  }
}

function selectorKey(workload: string, task: string): string {
  return `${workload} ${task}`
}

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz'
const usual = /^grant_[0-9a-hjkmnp-tv-z]{26}$/

/** A set of grants' ids by 90 bits of each: 80 that the broker has drawn at random, and the last ones of its time. */
function createIdSet() {
  let places = new Uint32Array(3 * 4096)
  let size = 0
  const words = new Uint32Array(3)

  function digest(id: string): void {
    if (!usual.test(id)) {
      words.set(new Uint32Array(new Uint8Array(hash('sha256', id, 'buffer')).buffer, 0, 3))
    } else {
      for (let word = 0; word < 3; word++) {
        let bits = 0
        for (let at = 14 + 6 * word; at < 20 + 6 * word; at++) bits = bits * 32 + alphabet.indexOf(id.charAt(at))
        words[word] = bits
      }
    }
    // Zero is a place that is free.
    words[0] = ((words[0] ?? 0) | 0x80000000) >>> 0
  }

  /** The place of the three words, or the free one where they would go. */
  function find(table: Uint32Array, [a = 0, b = 0, c = 0]: Uint32Array): number {
    const count = table.length / 3
    for (let at = (b ^ c) % count; ; at = (at + 1) % count) {
      const place = 3 * at
      if (table[place] === 0 || (table[place] === a && table[place + 1] === b && table[place + 2] === c)) return place
    }
  }

  function grow(): void {
    const larger = new Uint32Array(2 * places.length)
    for (let place = 0; place < places.length; place += 3) {
      if (places[place] !== 0) larger.set(places.subarray(place, place + 3), find(larger, places.subarray(place, place + 3)))
    }
    places = larger
  }

  return {
    /** Whether it was not in it. */
    add(id: string): boolean {
      digest(id)
      const place = find(places, words)
      if (places[place] !== 0) return false
      places.set(words, place)
      size++
      if (6 * size > places.length) grow()
      return true
    },
    has(id: string): boolean {
      digest(id)
      return places[find(places, words)] !== 0
    },
  }
}
