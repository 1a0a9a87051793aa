import { generateKeyPairSync, sign } from 'node:crypto'
import { parseCheckpoint } from '../src/audit/checkpoint.ts'
import { findSignature, formatSignature, formatVerifierKey, parseNote, parseVerifierKey } from '../src/audit/note.ts'
import { verifyConsistency } from '../src/audit/proof.ts'
import { listen } from './listen.ts'

interface Answer {
  readonly status: number
  readonly text: string
  readonly type?: string
}

interface Seen {
  size: number
  root: Uint8Array
}

/** A witness by the letter of https://c2sp.org/tlog-witness, over HTTP, for logs that it is told of. */
export interface TestWitness {
  readonly url: string
  /** Its verifier key. */
  readonly key: string
  /** What it has signed, by origin. */
  readonly seen: Map<string, Seen>
  /** The bodies that it was sent, oldest first. */
  readonly sent: string[]
  trust(verifierKey: string): void
  /** From now on answers like this instead; `undefined` as usual again. */
  answer(status?: number, text?: string): void
}

const emptyRoot = Buffer.from('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', 'hex')

export async function startWitness(name = 'witness.test/w1'): Promise<TestWitness> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const key = formatVerifierKey(name, Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url'), 'cosignature')
  const { keyId } = parseVerifierKey(key) ?? { keyId: Buffer.alloc(4) }
  const trusted = new Map<string, NonNullable<ReturnType<typeof parseVerifierKey>>>()
  const seen = new Map<string, Seen>()
  const sent: string[] = []
  let other: Answer | undefined

  function cosign(text: string): string {
    const time = Buffer.alloc(8)
    time.writeBigUInt64BE(1_768_478_400n)
    const signature = sign(null, Buffer.from(`cosignature/v1\ntime 1768478400\n${text}`), privateKey)
    return formatSignature({ name, keyId, signature: Buffer.concat([time, signature]) })
  }

  function add(body: string): Answer {
    const [, old, lines = '', note = ''] = /^old (0|[1-9]\d*)\n((?:[A-Za-z0-9+/]{43}=\n){0,63})\n([^]*)$/.exec(body) ?? []
    const signed = parseNote(note)
    const checkpoint = signed && parseCheckpoint(signed.text)
    if (old === undefined || signed === undefined || checkpoint === undefined) return { status: 400, text: 'malformed\n' }
    const verifier = trusted.get(checkpoint.origin)
    if (verifier === undefined) return { status: 404, text: 'unknown log\n' }
    if (findSignature(signed, verifier) === undefined) return { status: 403, text: 'not signed\n' }
    const oldSize = Number(old)
    if (oldSize > checkpoint.size) return { status: 400, text: 'old size beyond the checkpoint\n' }
    const known = seen.get(checkpoint.origin) ?? { size: 0, root: emptyRoot }
    if (known.size !== oldSize) return { status: 409, text: `${known.size}\n`, type: 'text/x.tlog.size' }
    const proof = lines.split('\n').slice(0, -1).map((line) => Buffer.from(line, 'base64'))
    if (oldSize === 0 && proof.length > 0) return { status: 422, text: 'a proof from nothing\n' }
    if (!verifyConsistency(known, checkpoint, proof)) return { status: 422, text: 'no consistency\n' }
    seen.set(checkpoint.origin, { size: checkpoint.size, root: checkpoint.root })
    return { status: 200, text: cosign(signed.text) }
  }

  const origin = await listen((request, response) => {
    const pieces: Buffer[] = []
    request.on('data', (piece: Buffer) => pieces.push(piece))
    request.on('end', () => {
      const body = Buffer.concat(pieces).toString()
      sent.push(body)
      const right = request.method === 'POST' && request.url === '/submit/add-checkpoint'
      const { status, text, type = 'text/plain' } = other ?? (right ? add(body) : { status: 405, text: '' })
      response.writeHead(status, { 'content-type': type }).end(text)
    })
  })
  return {
    url: `${origin}/submit`,
    key,
    seen,
    sent,
    trust(verifierKey) {
      const verifier = parseVerifierKey(verifierKey)
      if (verifier !== undefined) trusted.set(verifier.name, verifier)
    },
    answer(status, text = '') {
      other = status === undefined ? undefined : { status, text }
    },
  }
}
