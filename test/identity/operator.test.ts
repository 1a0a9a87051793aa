import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  createOperatorCredential,
  operatorMatches,
  operatorNamePattern,
  operatorStatus,
  parseOperatorCredential,
  type OperatorStatus,
} from '../../src/identity/operator.ts'
import { systemRandom } from '../../src/kernel/ids.ts'

describe('an operator credential', () => {
  test('has the id, 256 random bits, and a hash of the secret part', () => {
    let next = 0
    const { id, credential, secretHash } = createOperatorCredential((bytes) => new Uint8Array(bytes).fill(++next))
    const secret = Buffer.alloc(32, 2).toString('base64url')
    expect(id).toBe('01'.repeat(8))
    expect(credential.reveal()).toBe(`stint_op_${id}_${secret}`)
    expect(secretHash).toBe(createHash('sha256').update(secret).digest('hex'))
  })

  test.each(['operator', 'session'] as const)('is parsed back to its kind (%s), id and hash', (kind) => {
    const { id, credential, secretHash } = createOperatorCredential(systemRandom, { kind })
    expect(parseOperatorCredential(credential.reveal())).toEqual({ kind, id, secretHash })
  })

  test('in place of an earlier one keeps its id alone', () => {
    const first = createOperatorCredential(systemRandom)
    const second = createOperatorCredential(systemRandom, { id: first.id })
    expect(second.id).toBe(first.id)
    expect(second.secretHash).not.toBe(first.secretHash)
    expect(parseOperatorCredential(second.credential.reveal())).toMatchObject({ id: first.id, secretHash: second.secretHash })
  })

  test('does not show itself', () => {
    const made = createOperatorCredential(systemRandom)
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
    ['padding', `stint_op_${id}_${secret}=`],
    ['white space before', ` stint_op_${id}_${secret}`],
    ['a line break after', `stint_op_${id}_${secret}\n`],
  ]
  test.each(malformed)('is refused with %s', (_name, text) => {
    expect(parseOperatorCredential(text)).toBeUndefined()
    expect(parseOperatorCredential(`stint_op_${id}_${secret}`)).toBeDefined()
  })
})

describe('operatorStatus', () => {
  const cases: [string, Parameters<typeof operatorStatus>[0], OperatorStatus][] = [
    ['neither', {}, 'active'],
    ['a time to come', { expiresAtMs: 1001 }, 'active'],
    ['this very moment', { expiresAtMs: 1000 }, 'expired'],
    ['a time that has passed', { expiresAtMs: 999 }, 'expired'],
    ['a revocation', { revokedAtMs: 1000 }, 'revoked'],
    ['a revocation before the end', { expiresAtMs: 2000, revokedAtMs: 5 }, 'revoked'],
    ['a revocation after the end', { expiresAtMs: 5, revokedAtMs: 10 }, 'revoked'],
  ]
  test.each(cases)('with %s', (_name, operator, expected) => {
    expect(operatorStatus(operator, 1000)).toBe(expected)
  })
})

describe("an operator's name", () => {
  test.each(['a', '0', 'ada', 'ci.audit-2_x', 'a'.repeat(63)])('may be %s', (name) => expect(name).toMatch(operatorNamePattern))
  test.each(['', 'A', '.a', '-a', '_a', '..', 'a b', 'a/b', 'ada\n', 'jo@example.com', 'ä', 'a'.repeat(64)])('may not be %j', (name) => {
    expect(name).not.toMatch(operatorNamePattern)
  })
})

describe('operatorMatches', () => {
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
    expect(operatorMatches(given, stored)).toBe(expected)
  })
})
