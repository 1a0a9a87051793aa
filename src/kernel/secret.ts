import { createHash, timingSafeEqual } from 'node:crypto'
import { inspect } from 'node:util'

/** A secret in memory: prints as `[redacted]` wherever it is logged, joined, inspected or serialised (invariant 7). */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  /** The secret itself. Call it only where it is used, never to store the result. */
  reveal(): string {
    return this.#value
  }

  toString(): string {
    return '[redacted]'
  }

  toJSON(): string {
    return '[redacted]'
  }

  [inspect.custom](): string {
    return '[redacted]'
  }
}

/** Whether both hold the same, in a time that does not tell how much of them is. */
export function isSameSecret(one: Secret, other: Secret): boolean {
  const hash = (secret: Secret): Buffer => createHash('sha256').update(secret.reveal()).digest()
  return timingSafeEqual(hash(one), hash(other))
}
