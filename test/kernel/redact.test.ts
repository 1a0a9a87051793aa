import { expect, test } from 'vitest'
import { redactSecrets } from '../../src/kernel/redact.ts'

const secret = 'A'.repeat(20) + '_-' + 'b'.repeat(21)
const pem = '-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG/+==\nAbc=\n-----END PRIVATE KEY-----\n'

test.each([
  [`an operator credential stint_op_0123456789abcdef_${secret} here`, 'an operator credential [redacted] here'],
  [`stint_enroll_0123456789abcdef_${secret}`, '[redacted]'],
  ['cut short: stint_os_0123456789abcdef_AbC', 'cut short: [redacted]'],
  ['/v1/workloads/STINT_OP_0123456789ABCDEF_AAA/keys', '/v1/workloads/[redacted]/keys'],
  ['token eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln, and more', 'token [redacted], and more'],
  ['the head alone: eyJhbGciOiJFUzI1NiJ9', 'the head alone: [redacted]'],
  [`${pem}rest`, '[redacted]'],
  ['-----BEGIN?EC?PRIVATE?KEY-----?MIGH', '[redacted]'],
  ['quoted: "-----BEGIN PRIVATE KEY-----\\u000aMIGH\\u000a"', 'quoted: "[redacted]"'],
  // What is meant to be read.
  ['send it as `Authorization: Bearer stint_op_…`', 'send it as `Authorization: Bearer stint_op_…`'],
  ['operator 0123456789abcdef, key 5ofp6974asaqGrJzyYh5CCXHvtsTNi7UDIQp_xXYT94', 'operator 0123456789abcdef, key 5ofp6974asaqGrJzyYh5CCXHvtsTNi7UDIQp_xXYT94'],
  ['-----BEGIN PUBLIC KEY-----', '-----BEGIN PUBLIC KEY-----'],
])('%j is shown as %j', (text, shown) => {
  expect(redactSecrets(text)).toBe(shown)
})

test('JSON stays JSON, with everything beside the secret', () => {
  const value = { a: `"${pem}"`, b: `\\stint_op_0123456789abcdef_${secret}"`, c: `x "eyJhbGciOiJFUzI1NiJ9.e30.c2ln" \\`, d: 'kept' }
  const shown = JSON.parse(redactSecrets(JSON.stringify(value))) as typeof value
  expect(shown).toEqual({ a: '"[redacted]"', b: '\\[redacted]"', c: 'x "[redacted]" \\', d: 'kept' })
})

test('costs no more than the text is long', () => {
  const beganMs = performance.now()
  for (const text of ['stint_op_0123456789abcdef_', 'eyJ'.repeat(3), '-----BEGIN ', '-----BEGIN PRIVATE KEY-----\\n', 'a.']) redactSecrets(text.repeat(20_000))
  expect(performance.now() - beganMs).toBeLessThan(2_000)
})
