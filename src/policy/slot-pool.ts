import { randomUUID } from 'node:crypto'
import { fillSlot } from './cedar.ts'
import type { Policy } from './policy-set.ts'

/** Slots of Cedar's memory, shared by equal slices and used again when there are more slices than slots. */
export interface SlotPool {
  /** The slot that holds these policies; filled if need be. Valid until the next call. */
  slotFor(policies: readonly Policy[]): string
}

/**
 * A pool of at most `slotsMax` slots and about `policiesMax` policies, emptied in the order of last use. Cedar never
 * forgets a slot, so their names are used again. A slice is known by its array: whoever makes slices keeps equal ones
 * as one.
 */
export function createSlotPool(slotsMax: number, policiesMax: number): SlotPool {
  // Cedar's memory is one for the whole process: two pools must not write into each other's slots.
  const prefix = randomUUID()
  const slots = new Map<readonly Policy[], string>()
  const free: string[] = []
  let named = 0
  let held = 0

  function evictOldest(): string | undefined {
    const [oldest] = slots
    if (oldest === undefined) return undefined
    const [policies, slot] = oldest
    slots.delete(policies)
    held -= policies.length
    return slot
  }

  return {
    slotFor(policies) {
      const known = slots.get(policies)
      if (known !== undefined) {
        slots.delete(policies)
        slots.set(policies, known)
        return known
      }
      const evicted: string[] = []
      while (slots.size > 0 && (slots.size >= slotsMax || held + policies.length > policiesMax)) {
        const slot = evictOldest()
        if (slot !== undefined) evicted.push(slot)
      }
      const slot = evicted.pop() ?? free.pop() ?? `${prefix}/${named++}`
      // A large slice may have taken the place of many: theirs is given back.
      for (const emptied of evicted) {
        fillSlot(emptied, {})
        free.push(emptied)
      }
      // Only what was filled is remembered as such: should this throw, the name is just not used again.
      fillSlot(slot, Object.fromEntries(policies.map(({ id, text }) => [id, text])))
      slots.set(policies, slot)
      held += policies.length
      return slot
    },
  }
}
