import { createPrivateKey, randomUUID, sign, type webcrypto } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'

/** A workload's side of the benchmark: whom its assertions are from. */
export interface Signer {
  readonly clientId: string
  readonly kid: string
  readonly jwk: Readonly<webcrypto.JsonWebKey>
}

/** What is to be signed: so many bodies, by the signers in turn, from the one of that number on. */
export interface Order {
  /** A JSON file of signers. */
  readonly signersFile: string
  readonly audience: string
  /** The rest of the form, encoded. */
  readonly form: string
  readonly count: number
  readonly firstSigner: number
  readonly out: string
}

const assertionType = encodeURIComponent('urn:ietf:params:oauth:client-assertion-type:jwt-bearer')
/** Just below the five minutes that an assertion may live. */
const lifetimeSeconds = 295

/** Writes the bodies of token requests to a file, one a line, each with an assertion of its own. */
function writeBodies({ signersFile, audience, form, count, firstSigner, out }: Order): void {
  // Of our own making.
  const asserts = (JSON.parse(readFileSync(signersFile, 'utf8')) as Signer[]).map((signer) => createAsserter(signer, audience))
  const lines: string[] = []
  for (let i = 0; i < count; i++) {
    const assert = asserts[(firstSigner + i) % asserts.length]
    if (assert === undefined) throw new Error(`${signersFile} holds no signers`)
    lines.push(`${form}&client_assertion_type=${assertionType}&client_assertion=${assert()}\n`)
  }
  writeFileSync(out, lines.join(''))
}

/** Gives an assertion after another, each of its own, that lives for nearly five minutes. */
export function createAsserter({ clientId, kid, jwk }: Signer, audience: string): () => string {
  const key = createPrivateKey({ key: jwk, format: 'jwk' })
  const header = encode({ alg: 'ES256', kid })
  return () => {
    const nowSeconds = Math.floor(Date.now() / 1000)
    const claims = { iss: clientId, sub: clientId, aud: audience, jti: randomUUID(), iat: nowSeconds, exp: nowSeconds + lifetimeSeconds }
    const input = `${header}.${encode(claims)}`
    return `${input}.${sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
  }
}

function encode(part: unknown): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url')
}

// A process of its own, for signing takes as much time as the server that is measured.
if (import.meta.main) {
  const [, , order = ''] = process.argv
  // Of our own making.
  writeBodies(JSON.parse(order) as Order)
}
