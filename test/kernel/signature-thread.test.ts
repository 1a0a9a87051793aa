import { generateKeyPairSync, sign, verify, type KeyObject } from 'node:crypto'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createSignatureThread } from '../../src/kernel/signature-thread.ts'
import { inlineSignatures, verifySignature, type SignatureAlgorithm, type VerifyJob } from '../../src/kernel/signatures.ts'

const input = 'header.payload'
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const ed25519 = generateKeyPairSync('ed25519')
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })

function makeJob(alg: SignatureAlgorithm, { privateKey, publicKey }: { privateKey: KeyObject; publicKey: KeyObject }, options: object, digest: string | null = 'sha256'): VerifyJob {
  return { alg, key: publicKey, input, signature: sign(digest, Buffer.from(input), { key: privateKey, ...options }) }
}

const es256 = makeJob('ES256', ec, { dsaEncoding: 'ieee-p1363' })
const jobs: readonly VerifyJob[] = [
  es256,
  makeJob('Ed25519', ed25519, {}, null),
  makeJob('EdDSA', ed25519, {}, null),
  makeJob('RS256', rsa, {}),
  // RSA_PKCS1_PSS_PADDING, with a salt as long as the digest.
  makeJob('PS256', rsa, { padding: 6, saltLength: 32 }),
]

function startThread() {
  const thread = createSignatureThread()
  onTestFinished(() => thread.close())
  return thread
}

describe('A signature', () => {
  test.for(jobs.map((job) => [job.alg, job] as const))('by %s is good for its input alone', ([, job]) => {
    expect(verifySignature(job)).toBe(true)
    expect(verifySignature({ ...job, input: `${input}x` })).toBe(false)
    const changed = Buffer.from(job.signature)
    changed.writeUInt8(changed.readUInt8(9) ^ 1, 9)
    expect(verifySignature({ ...job, signature: changed })).toBe(false)
    expect(verifySignature({ ...job, signature: new Uint8Array() })).toBe(false)
    expect(verifySignature({ ...job, signature: Buffer.concat([job.signature, Buffer.of(0)]) })).toBe(false)
  })

  test('by ES256 is the pair of numbers and not its DER form', () => {
    expect(verifySignature({ ...es256, signature: sign('sha256', Buffer.from(input), ec.privateKey) })).toBe(false)
  })

  test('is never checked with a key of another kind', () => {
    expect(() => verifySignature({ ...es256, key: ed25519.publicKey })).toThrow('a key of type ed25519 verifies no ES256')
    expect(() => verifySignature({ ...es256, alg: 'RS256' })).toThrow(TypeError)
  })
})

describe('The thread for signatures', () => {
  test('answers each who asked, in whatever number', async () => {
    const thread = startThread()
    for (const count of [1, 2, 7, 8, 9, 40]) {
      const answers = await Promise.all(
        Array.from({ length: count }, (_, i) => {
          const job = jobs[i % jobs.length] ?? es256
          return thread.verify(i % 3 === 0 ? { ...job, input: 'another' } : job)
        }),
      )
      expect(answers).toEqual(answers.map((_, i) => i % 3 !== 0))
    }
  })

  test('signs what the key verifies, between jobs of the other kind', async () => {
    const thread = startThread()
    const inputs = Array.from({ length: 20 }, (_, i) => `input ${i}`)
    const [signatures] = await Promise.all([
      Promise.all(inputs.map((text) => thread.sign({ key: ec.privateKey, input: text }))),
      Promise.all(jobs.map((job) => thread.verify(job))),
    ])
    const good = signatures.map((signature, i) => verify('sha256', Buffer.from(inputs[i] ?? ''), { key: ec.publicKey, dsaEncoding: 'ieee-p1363' }, signature))
    expect(good).toEqual(inputs.map(() => true))
  })

  test('fails for the one whose key is of another kind, and for nobody else', async () => {
    const thread = startThread()
    const asked = [...jobs, { ...es256, key: ed25519.publicKey }, ...jobs].map((job) => thread.verify(job))
    const results = await Promise.allSettled(asked)
    expect(results.map(({ status }) => status === 'fulfilled')).toEqual([...jobs.map(() => true), false, ...jobs.map(() => true)])
    // The thread that died of it is replaced.
    expect(await Promise.all(jobs.map((job) => thread.verify(job)))).toEqual(jobs.map(() => true))
  })

  test('leaves nobody without an answer when it is closed', async () => {
    const thread = startThread()
    const asked = Array.from({ length: 30 }, () => thread.verify(es256))
    const closed = thread.close()
    const late = Array.from({ length: 3 }, () => thread.verify(es256))
    await closed
    expect(await Promise.all([...asked, ...late])).toEqual(Array.from({ length: 33 }, () => true))
  })

  test('does the same as this one', async () => {
    const thread = startThread()
    for (const job of jobs) expect(await inlineSignatures.verify(job)).toBe(await thread.verify(job))
  })
})
