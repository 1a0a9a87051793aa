// The field and the curve of RFC 8032 §5.1: -x² + y² = 1 + d·x²·y² modulo p.
const p = 2n ** 255n - 19n
const d = 37095705934669439343138083508754565189542113879843219016388785533085940283555n

/**
 * What is wrong with a 32-byte Ed25519 public key (RFC 8032 §5.1.3), or `undefined` when nothing is. Importing a key
 * checks none of this; a point of small order would accept signatures that anybody can make.
 */
export function judgeEd25519Point(encoded: Uint8Array): 'not_canonical' | 'not_on_curve' | 'low_order' | undefined {
  // Little-endian; the highest bit is the sign of x.
  const y = BigInt(`0x${Buffer.from(encoded).reverse().toString('hex')}`) & (2n ** 255n - 1n)
  if (y >= p) return 'not_canonical'
  const y2 = (y * y) % p
  // Order 1 or 2 where y² = 1, order 4 where y = 0, and order 8 where doubling leads there: d·y⁴ + 2y² - 1 = 0.
  if (y === 0n || y2 === 1n || (d * y2 * y2 + 2n * y2 - 1n) % p === 0n) return 'low_order'
  // x² = (y² - 1) / (d·y² + 1). By Euler's criterion a quotient is a square exactly when the product is one.
  const product = ((y2 - 1n + p) * (d * y2 + 1n)) % p
  return raise(product, (p - 1n) / 2n) === 1n ? undefined : 'not_on_curve'
}

/** `base` to the power of `exponent` modulo p. Not in constant time: it only ever sees public keys. */
function raise(base: bigint, exponent: bigint): bigint {
  let result = 1n
  let square = base % p
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % p
    square = (square * square) % p
  }
  return result
}
