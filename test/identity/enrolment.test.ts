import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { createEnrolmentCode, digestCode, enrolmentStatus, parseEnrolmentCode } from '../../src/identity/enrolment.ts'
import { systemRandom } from '../../src/kernel/ids.ts'

test('a code is parsed to the id and the hash that are stored, and shows neither in print', () => {
  const { id, code, codeHash } = createEnrolmentCode(systemRandom)
  const text = code.reveal()
  expect(text).toMatch(/^stint_enroll_[0-9a-f]{16}_[\w-]{43}$/)
  expect(parseEnrolmentCode(text)).toEqual({ id, codeHash })
  expect(codeHash).toBe(createHash('sha256').update(text.slice(-43)).digest('hex'))
  expect(digestCode(text)).toBe(createHash('sha256').update(text).digest('base64url'))
  expect(`${String(code)} ${JSON.stringify({ code })}`).not.toContain(text)
  expect(createEnrolmentCode(systemRandom).code.reveal()).not.toBe(text)
})

const id = '0123456789abcdef'
test.each([
  '',
  'stint_enroll_',
  `stint_enroll_${id}_${'A'.repeat(42)}`,
  `stint_enroll_${id}_${'A'.repeat(44)}`,
  `stint_enroll_${id}_${'A'.repeat(42)}B`,
  `stint_enroll_${id}_${'A'.repeat(42)}=`,
  `stint_enroll_${id.toUpperCase()}_${'A'.repeat(43)}`,
  `stint_enroll_${id}${'A'.repeat(43)}`,
  `stint_op_${id}_${'A'.repeat(43)}`,
  ` stint_enroll_${id}_${'A'.repeat(43)}`,
  `stint_enroll_${id}_${'A'.repeat(43)}\n`,
])('%j is no code', (text) => {
  expect(parseEnrolmentCode(text)).toBeUndefined()
})

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
