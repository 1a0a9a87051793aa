import { randomBytes } from 'node:crypto'

/** Fills a fresh buffer of that many unpredictable bytes. Injected, so that a test can fix it. */
export type RandomBytes = (bytes: number) => Uint8Array

export const systemRandom: RandomBytes = createRandom()

const pooledBytes = 4_096

/**
 * Unpredictable bytes, fetched by the page: a call for 16 of them costs as much as one for thousands. What was handed out
 * is never handed out again.
 */
function createRandom(): RandomBytes {
  let pool = Buffer.alloc(0)
  return (bytes) => {
    if (bytes > pooledBytes / 4) return randomBytes(bytes)
    if (bytes > pool.length) pool = randomBytes(pooledBytes)
    const taken = pool.subarray(0, bytes)
    pool = pool.subarray(bytes)
    return taken
  }
}

// Crockford's base 32 in lower case: no letter that is read as another, safe in names of roles, sessions and files.
const alphabet = '0123456789abcdefghjkmnpqrstvwxyz'

/**
 * A new id: the prefix, then 10 characters of time (ms) and 16 of randomness (80 bits). Ids sort by the time they were
 * made, so that an index on them grows at its end. `grant_01kb…` is 32 characters and fits every tool's name rules.
 */
export function newId(prefix: string, nowMs: number, random: RandomBytes): string {
  let id = ''
  let rest = nowMs
  for (let i = 0; i < 10; i++) {
    id = alphabet.charAt(rest % 32) + id
    rest = Math.floor(rest / 32)
  }
  for (const byte of random(16)) id += alphabet.charAt(byte & 31)
  return `${prefix}_${id}`
}

/** When an id was made, in milliseconds, to the extent that its maker's clock was right; `undefined` for what is no id. */
export function readIdTime(id: string): number | undefined {
  const [, time] = /^[a-z]+_([0-9a-z]{10})[0-9a-z]{16}$/.exec(id) ?? []
  if (time === undefined) return undefined
  const digits = [...time].map((character) => alphabet.indexOf(character))
  return digits.includes(-1) ? undefined : digits.reduce((ms, digit) => ms * 32 + digit, 0)
}
