/** A map that holds at most `max` entries (at least one) and forgets the one that was not used for the longest time. */
export interface Lru<K, V> {
  get(key: K): V | undefined
  set(key: K, value: V): void
}

/** Recency is the map's own order of insertion: a hit is taken out and put in again. */
export function createLru<K, V>(max: number): Lru<K, V> {
  const entries = new Map<K, V>()
  return {
    get(key) {
      const value = entries.get(key)
      if (value === undefined) return undefined
      entries.delete(key)
      entries.set(key, value)
      return value
    },
    set(key, value) {
      entries.delete(key)
      entries.set(key, value)
      if (entries.size <= max) return
      const oldest = entries.keys().next()
      if (oldest.done !== true) entries.delete(oldest.value)
    },
  }
}
