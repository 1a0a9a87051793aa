import { describe, expect, test } from 'vitest'
import { operatorNamePattern, operatorStatus, type OperatorStatus } from '../../src/identity/operator.ts'

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
