import { expect, test } from 'vitest'
import { BrokerError, unreachable } from '../../src/kernel/errors.ts'

test('A broker error keeps what the caller reads apart from what the operator reads', () => {
  const cause = new Error('why')
  const error = new BrokerError({ code: 'conflict', publicMessage: 'the name is taken', detail: 'by row 7', extra: { name: 'a' }, cause })
  expect(error).toMatchObject({ code: 'conflict', publicMessage: 'the name is taken', detail: 'by row 7', extra: { name: 'a' }, cause })
  expect(error.message).toBe('the name is taken (by row 7)')
  expect(new BrokerError({ code: 'internal', publicMessage: 'p' })).toMatchObject({ message: 'p', detail: undefined, extra: undefined })
})

test('A case that cannot be is an error when it is', () => {
  // What the compiler refuses.
  expect(() => unreachable('new' as never)).toThrow('unreachable case: "new"')
})
