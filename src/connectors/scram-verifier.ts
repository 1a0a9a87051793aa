import { createHash, createHmac, pbkdf2, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'

const deriveKey = promisify(pbkdf2)

export interface ScramParameters {
  readonly salt?: Uint8Array
  readonly iterations?: number
}

/**
 * What PostgreSQL stores of a password for SCRAM-SHA-256 (RFC 5802 §3, RFC 7677), in the form in which its `PASSWORD` takes
 * it: so the password itself never reaches the server, nor its log. The password must be ASCII, for which SASLprep
 * (RFC 4013) changes nothing. With 4,096 iterations, the least that RFC 7677 asks for: a password of 256 random bits gains
 * nothing from more.
 */
export async function createScramVerifier(password: string, { salt = randomBytes(16), iterations = 4_096 }: ScramParameters = {}): Promise<string> {
  if (!/^[\x21-\x7e]+$/.test(password)) throw new Error('the password must be printable ASCII')
  const salted = await deriveKey(password, salt, iterations, 32, 'sha256')
  const storedKey = createHash('sha256').update(hmac(salted, 'Client Key')).digest('base64')
  const serverKey = hmac(salted, 'Server Key').toString('base64')
  return `SCRAM-SHA-256$${iterations}:${Buffer.from(salt).toString('base64')}$${storedKey}:${serverKey}`
}

function hmac(key: Uint8Array, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}
