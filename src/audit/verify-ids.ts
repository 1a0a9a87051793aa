import { hash } from 'node:crypto'

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz'
const usual = /^grant_[0-9a-hjkmnp-tv-z]{26}$/

/** Which grants there ever were. */
export interface IdSet {
  /** Whether it was not in it. */
  add(id: string): boolean
  has(id: string): boolean
}

/**
 * A set of grants' ids by 90 bits of each: 80 that the broker has drawn at random, and the last ones of its time. It keeps 12
 * bytes for each, in a table of at most twice as many places.
 */
export function createIdSet(): IdSet {
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
    add(id) {
      digest(id)
      const place = find(places, words)
      if (places[place] !== 0) return false
      places.set(words, place)
      size++
      if (6 * size > places.length) grow()
      return true
    },
    has(id) {
      digest(id)
      return places[find(places, words)] !== 0
    },
  }
}
