import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { digestCode, enrolmentStatus } from '../../src/identity/enrolment.ts'

test('a proof names the whole code by its digest', () => {
  const text = `stint_enroll_0123456789abcdef_${'A'.repeat(43)}`
  expect(digestCode(text)).toBe(createHash('sha256').update(text).digest('base64url'))
})

const id = '0123456789abcdef'
test.each([
  ['open', {}, 999],
  ['expired', {}, 1000],
  ['cancelled', { endedAtMs: 500 }, 600],
  ['cancelled', { endedAtMs: 500 }, 2000],
  ['redeemed', { endedAtMs: 500, kid: 'k' }, 600],
  ['redeemed', { endedAtMs: 500, kid: 'k' }, 2000],
])('is %s with %j at %i', (status, ended, nowMs) => {
  expect(enrolmentStatus({ id, workload: 'bot', createdAtMs: 0, expiresAtMs: 1000, ...ended }, nowMs)).toBe(status)
})
