import { createHash, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto'
import { signJws } from '../broker.ts'

/** Something that must stand nowhere but where it was given. */
export interface Canary {
  readonly name: string
  /** Any of these is enough to be found: the part that makes it a secret, for its beginning is often public. */
  readonly hearts: readonly (string | Buffer)[]
}

const secretPart = () => randomBytes(32).toString('base64url')

/** Text that looks like what Stint gives out, and that nobody was given. */
function forge(prefix: string): string {
  return `${prefix}_${randomBytes(8).toString('hex')}_${secretPart()}`
}

/** The heart of a credential, a code or a token: what stands behind its last `_` or `.`, of which a part is enough. */
export function watch(name: string, secret: string): Canary {
  // Fixed lengths: a `_` may stand in the secret part itself.
  const [, part] = /^stint_[a-z]+_[0-9a-f]{16}_(.{43})$/.exec(secret) ?? []
  const heart = part ?? secret.slice(secret.lastIndexOf('.') + 1)
  return { name, hearts: [heart.slice(0, 20), heart.slice(-20)] }
}

/** The private part of a key, as a JWK has it and as bytes. */
export function watchKey(name: string, d: string): Canary {
  return { name, hearts: [d.slice(0, 20), d.slice(-20), Buffer.from(d, 'base64url')] }
}

/** What strangers, and people in the wrong place, send: marked, well-formed, and known to nobody. */
export function makeMarked() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = privateKey.export({ format: 'jwk' }) as Record<string, string>
  const pem = String(privateKey.export({ format: 'pem', type: 'pkcs8' }))
  const nowSeconds = Math.floor(Date.now() / 1000)
  const texts = {
    operator: forge('stint_op'),
    session: forge('stint_os'),
    code: forge('stint_enroll'),
    jwt: signJws({ alg: 'ES256', kid: createHash('sha256').update('x').digest('base64url') }, { iss: 'https://login.example', jti: randomUUID(), iat: nowSeconds }, privateKey),
    pem,
  }
  const password = secretPart()
  const canaries = [
    watch('a forged operator credential', texts.operator),
    watch('a forged session credential', texts.session),
    watch('a forged code', texts.code),
    watch('a forged token', texts.jwt),
    watch('a password', password),
    watchKey('the private key of a JWK or a PEM', jwk['d'] ?? ''),
    // The lines of a PEM are base64 of the whole structure.
    { name: 'a PEM', hearts: pem.split('\n').slice(1, 3).map((line) => line.slice(0, 40)) },
  ]
  return { texts, password, jwk, canaries }
}

/** Every way in which the heart may stand somewhere: as it is, and in the encodings that texts and bytes are put into. */
export function listForms(heart: string | Buffer): Buffer[] {
  const bytes = Buffer.from(heart)
  const texts = [bytes.toString('hex'), bytes.toString('hex').toUpperCase()]
  // Where it stands within a longer text that was encoded as base64, it begins at one of three places of a group.
  for (const before of [0, 1, 2]) {
    const encoded = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64').replaceAll('=', '')
    const sure = encoded.slice(Math.ceil((before * 8) / 6), -2)
    texts.push(sure, sure.replaceAll('+', '-').replaceAll('/', '_'))
  }
  if (typeof heart === 'string') texts.push(encodeURIComponent(heart), JSON.stringify(heart).slice(1, -1), heart.toLowerCase(), heart.toUpperCase())
  return [bytes, ...new Set(texts.map((text) => Buffer.from(text)))]
}

export interface Found {
  readonly canary: string
  readonly place: string
  /** What stands around it. */
  readonly around: string
}

/** Where any of the canaries stands, once per place. */
export function search(places: Readonly<Record<string, Buffer | string>>, canaries: readonly Canary[]): Found[] {
  const forms = canaries.map(({ name, hearts }) => ({ name, forms: hearts.flatMap(listForms) }))
  return Object.entries(places).flatMap(([place, content]) => {
    const bytes = Buffer.from(content)
    return forms.flatMap(({ name: canary, forms }) => {
      const at = Math.max(...forms.map((form) => bytes.indexOf(form)))
      return at === -1 ? [] : [{ canary, place, around: bytes.subarray(Math.max(0, at - 160), at + 60).toString('latin1') }]
    })
  })
}
