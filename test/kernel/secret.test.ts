import { format, formatWithOptions, inspect } from 'node:util'
import { expect, test } from 'vitest'
import { createLog } from '../../src/kernel/log.ts'
import { Secret } from '../../src/kernel/secret.ts'

const value = 'hunter2-hunter2'
const secret = new Secret(value)

const shown: Record<string, () => string> = {
  'as a string': () => String(secret),
  'in a template': () => `${secret}`,
  'joined to a text': () => 'is: ' + secret,
  'joined in a list': () => [secret, secret].join(),
  'in JSON': () => JSON.stringify({ secret, list: [secret] }),
  'as a key in JSON': () => JSON.stringify({ [`${secret}`]: 1 }),
  inspected: () => inspect(secret),
  'inspected to the bottom': () => inspect({ deep: { secret } }, { showHidden: true, depth: null, getters: true }),
  'inspected past its own words': () => inspect(secret, { customInspect: false, showHidden: true }),
  'in %s': () => format('%s', secret),
  'in %o': () => format('%o', secret),
  'in %O': () => format('%O', { secret }),
  'in %j': () => format('%j', { secret }),
  'in %d': () => format('%d', secret),
  'with colours': () => formatWithOptions({ colors: true }, '%O', new Map([[secret, secret]])),
  'in the message of an error': () => inspect(new Error(`no ${secret}`, { cause: secret })),
  'by its members': () => JSON.stringify([Object.entries(secret), Reflect.ownKeys(secret), { ...secret }]),
  'as a clone': () => inspect(structuredClone(secret), { showHidden: true }),
  'in the operator log': () => {
    const lines: string[] = []
    createLog((line) => lines.push(line), 'debug', () => 't').error('m', { secret, error: new Error('x', { cause: { secret } }) })
    return lines.join('')
  },
}

test.for(Object.entries(shown))('A secret is not shown %s (invariant 7)', ([, show]) => {
  expect(show()).not.toContain('hunter2')
})

test('A secret says that it is one, and is given when asked for', () => {
  expect(`${secret}`).toBe('[redacted]')
  expect(JSON.stringify({ secret })).toBe('{"secret":"[redacted]"}')
  expect(inspect(secret)).toBe('[redacted]')
  expect(secret.reveal()).toBe(value)
})
