import { expect, test } from 'vitest'
import { grantState, type GrantState } from '../../src/grant/grant.ts'

test.for<[string, number, number | undefined, number, GrantState]>([
  ['before its end', 1000, undefined, 999, 'active'],
  ['at its end', 1000, undefined, 1000, 'expired'],
  ['after its end', 1000, undefined, 1001, 'expired'],
  ['revoked before its end', 1000, 3, 0, 'revoked'],
  ['revoked by the first entry of all', 1000, 0, 0, 'revoked'],
  ['revoked, and past its end', 1000, 3, 2000, 'revoked'],
])('A grant %s', ([, expiresAtMs, revokedIndex, nowMs, state]) => {
  expect(grantState({ expiresAtMs, ...(revokedIndex !== undefined && { revokedIndex }) }, nowMs)).toBe(state)
})
