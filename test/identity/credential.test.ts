import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { createCredential, parseCredential, secretMatches } from '../../src/identity/credential.ts'
import { systemRandom } from '../../src/kernel/ids.ts'

const kinds = ['operator', 'session', 'enrolment'] as const

describe('a credential', () => {
  test('has the id, 256 random bits, and a hash of the secret part', () => {
    let next = 0
    const { id, credential, secretHash } = createCredential((bytes) => new Uint8Array(bytes).fill(++next), 'operator')
    const secret = Buffer.alloc(32, 2).toString('base64url')
    expect(id).toBe('01'.repeat(8))
    expect(credential.reveal()).toBe(`stint_op_${id}_${secret}`)
    expect(secretHash).toBe(createHash('sha256').update(secret).digest('hex'))
  })

  test.each(kinds)('is parsed back to its kind (%s), id and hash', (kind) => {
    const { id, credential, secretHash } = createCredential(systemRandom, kind)
    expect(parseCredential(credential.reveal(), kinds)).toEqual({ kind, id, secretHash })
    expect(parseCredential(credential.reveal(), kinds.filter((other) => other !== kind))).toBeUndefined()
  })

  test('in place of an earlier one keeps its id alone', () => {
    const first = createCredential(systemRandom, 'operator')
    const second = createCredential(systemRandom, 'operator', first.id)
    expect(second.id).toBe(first.id)
    expect(second.secretHash).not.toBe(first.secretHash)
    expect(parseCredential(second.credential.reveal(), kinds)).toMatchObject({ id: first.id, secretHash: second.secretHash })
  })

  test('does not show itself', () => {
    const made = createCredential(systemRandom, 'operator')
    expect(`${JSON.stringify(made)} ${made.credential}`).not.toContain(made.credential.reveal().slice(26))
  })

  const id = '0123456789abcdef'
  const secret = 'A'.repeat(43)
  const malformed: [string, string][] = [
    ['nothing', ''],
    ['another prefix', `stint_ag_${id}_${secret}`],
    ['an id too short', `stint_op_${id.slice(1)}_${secret}`],
    ['an id in upper case', `stint_op_${id.toUpperCase()}_${secret}`],
    ['a secret too short', `stint_op_${id}_${secret.slice(1)}`],
    ['a secret too long', `stint_op_${id}_${secret}A`],
    ['unused bits that are not zero', `stint_op_${id}_${secret.slice(1)}B`],
    ['no border', `stint_enroll_${id}${secret}`],
    ['padding', `stint_op_${id}_${secret}=`],
    ['white space before', ` stint_op_${id}_${secret}`],
    ['a line break after', `stint_op_${id}_${secret}\n`],
  ]
  test.each(malformed)('is refused with %s', (_name, text) => {
    expect(parseCredential(text, kinds)).toBeUndefined()
    expect(parseCredential(`stint_op_${id}_${secret}`, kinds)).toBeDefined()
  })
})

describe('secretMatches', () => {
  const hash = createHash('sha256').update('a').digest('hex')
  const zeros = '00'.repeat(32)
  const cases: [string, string, string | undefined, boolean][] = [
    ['the same hash', hash, hash, true],
    ['another hash', hash, createHash('sha256').update('b').digest('hex'), false],
    ['the last digit', hash, `${hash.slice(0, -1)}${hash.endsWith('0') ? '1' : '0'}`, false],
    ['no such operator', hash, undefined, false],
    ['no such operator, and a hash of zeros', zeros, undefined, false],
    ['a damaged hash', hash, hash.slice(2), false],
    ['two damaged hashes', 'ab', 'ab', false],
    ['two empty hashes', '', '', false],
  ]
  test.each(cases)('%s', (_name, given, stored, expected) => {
    expect(secretMatches(given, stored)).toBe(expected)
  })
})
