import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { signCheckpoint } from '../../../src/audit/checkpoint.ts'
import { appendLeaf, rootOf, type Frontier } from '../../../src/audit/merkle.ts'
import { formatVerifierKey, parseVerifierKey } from '../../../src/audit/note.ts'
import { AnchorFailure } from '../../../src/connectors/anchors/anchor.ts'
import { createWitnessAnchor } from '../../../src/connectors/anchors/witness.ts'
import { startWitness } from '../../witness.ts'

const origin = 'stint.test/log'
const { privateKey, publicKey } = generateKeyPairSync('ed25519')
const logKey = formatVerifierKey(origin, Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url'))
const { keyId } = parseVerifierKey(logKey) ?? { keyId: Buffer.alloc(4) }

/** Two leaves, by hand: the proof from one to two is the second leaf. */
const leaves = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)]
const rootAt = (size: number) => rootOf(leaves.slice(0, size).reduce<Frontier>((frontier, leaf, i) => appendLeaf(frontier, i, leaf), []))
const noteOf = (size: number, root = rootAt(size)) => signCheckpoint({ origin, size, root }, privateKey, keyId)

async function setUp() {
  const witness = await startWitness()
  witness.trust(logKey)
  return { witness, anchor: createWitnessAnchor({ url: `${witness.url}/`, key: witness.key, timeoutMs: 500 }) }
}

describe('A witness', () => {
  test('is led from size to size, and its signatures are verified', async () => {
    const { witness, anchor } = await setUp()
    expect([anchor.name, anchor.keyName]).toEqual(['witness witness.test/w1', 'witness.test/w1'])
    expect(await anchor.addCheckpoint({ note: noteOf(1), oldSize: 0, proof: [] })).toEqual({ status: 'signed', line: expect.stringMatching(/^— witness\.test\/w1 \S+\n$/) })
    expect(await anchor.addCheckpoint({ note: noteOf(2), oldSize: 1, proof: [Buffer.alloc(32, 2)] })).toMatchObject({ status: 'signed' })
    expect(witness.sent[1]).toBe(`old 1\n${Buffer.alloc(32, 2).toString('base64')}\n\n${noteOf(2)}`)
    expect(witness.seen.get(origin)?.size).toBe(2)
  })

  test('says how far it has signed, and that a tree is another', async () => {
    const { anchor } = await setUp()
    await anchor.addCheckpoint({ note: noteOf(1), oldSize: 0, proof: [] })
    expect(await anchor.addCheckpoint({ note: noteOf(2), oldSize: 0, proof: [] })).toEqual({ status: 'elsewhere', size: 1 })
    expect(await anchor.addCheckpoint({ note: noteOf(2), oldSize: 1, proof: [] })).toEqual({ status: 'contradicted' })
    expect(await anchor.addCheckpoint({ note: noteOf(1, Buffer.alloc(32, 9)), oldSize: 1, proof: [] })).toEqual({ status: 'contradicted' })
  })

  test('that does not know the log, or its key, is told so with what to do', async () => {
    const { witness, anchor } = await setUp()
    const add = () => anchor.addCheckpoint({ note: noteOf(1), oldSize: 0, proof: [] })
    witness.trust(formatVerifierKey(origin, Buffer.alloc(32, 7)))
    await expect(add()).rejects.toThrow(/does not know the key of this log: .*stint audit key/)
    witness.answer(404)
    await expect(add()).rejects.toThrow(/does not know this log: .*stint audit key/)
  })

  test.each([
    ['nothing', 200, ''],
    ['what is no signature', 200, 'yes\n'],
    ['a signature by another key', 200, `— witness.test/w1 ${Buffer.alloc(76, 1).toString('base64')}\n`],
    ['no size', 409, ''],
    ['a size that is none', 409, '-1\n'],
    ['a size out of range', 409, '99999999999999999999\n'],
    ['an error', 500, ''],
    ['a wish to wait', 429, ''],
  ])('that answers %s has failed', async (_, status, text) => {
    const { witness, anchor } = await setUp()
    witness.answer(status, text)
    await expect(anchor.addCheckpoint({ note: noteOf(1), oldSize: 0, proof: [] })).rejects.toBeInstanceOf(AnchorFailure)
  })

  test('whose signature is of another checkpoint is not believed', async () => {
    const { witness, anchor } = await setUp()
    const signed = await anchor.addCheckpoint({ note: noteOf(1), oldSize: 0, proof: [] })
    witness.answer(200, signed.status === 'signed' ? signed.line : '')
    expect(await anchor.addCheckpoint({ note: noteOf(1), oldSize: 0, proof: [] })).toEqual(signed)
    await expect(anchor.addCheckpoint({ note: noteOf(2), oldSize: 1, proof: [] })).rejects.toThrow(/did not answer with a signature by its key/)
  })

  test('needs a key of a witness', async () => {
    const refusal = (key: string) => () => createWitnessAnchor({ url: 'https://witness.test', key })
    expect(refusal(logKey)).toThrow(/one that signs logs, not one that signs as a witness/)
    expect(refusal('witness.test+00000000+BAAA')).toThrow(/is no verifier key of Ed25519/)
  })
})
