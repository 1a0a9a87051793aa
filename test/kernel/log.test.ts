import { expect, test } from 'vitest'
import { BrokerError } from '../../src/kernel/errors.ts'
import { createLog, type LogFields, type LogLevel } from '../../src/kernel/log.ts'

function write(fields: LogFields, minimum: LogLevel = 'debug'): Record<string, unknown>[] {
  const lines: string[] = []
  const log = createLog((line) => lines.push(line), minimum, () => '2026-01-15T12:00:00.000Z')
  for (const level of ['debug', 'info', 'warn', 'error'] as const) log[level](`a ${level}`, fields)
  for (const line of lines) expect(line).toMatch(/^\{[^\n]*\}\n$/)
  // Lines are JSON objects, or this throws.
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>)
}

test.for<[LogLevel, string[]]>([
  ['debug', ['debug', 'info', 'warn', 'error']],
  ['info', ['info', 'warn', 'error']],
  ['warn', ['warn', 'error']],
  ['error', ['error']],
])('From %s on, the log writes %j', ([minimum, levels]) => {
  expect(write({}, minimum)).toEqual(levels.map((level) => ({ time: '2026-01-15T12:00:00.000Z', level, message: `a ${level}` })))
})

test('An error is written with its name, message, stack and causes', () => {
  const cause = new TypeError('the reason')
  const error = new BrokerError({ code: 'internal', publicMessage: 'told', detail: 'not told', cause })
  const [line] = write({ error, nested: { error: cause } })
  expect(line).toMatchObject({
    error: { name: 'BrokerError', message: 'told (not told)', stack: expect.stringContaining('log.test.ts'), cause: { name: 'TypeError' } },
    nested: { error: { message: 'the reason' } },
  })
})

test('A line is one line, whatever it holds', () => {
  expect(write({ text: 'a\nb\r\u2028{"level":"error"}' }, 'error')).toHaveLength(1)
})

test('No field passes for the line’s own members', () => {
  const [line] = write({ time: 'never', level: 'debug', message: 'nothing happened', other: 1 }, 'error')
  expect(line).toEqual({ time: '2026-01-15T12:00:00.000Z', level: 'error', message: 'a error', other: 1 })
})

test('A number too large for JSON is written as text, and what JSON cannot hold does not stop the line', () => {
  expect(write({ count: 2n ** 70n }, 'error')).toMatchObject([{ count: '1180591620717411303424' }])
  const circle: { self?: unknown } = {}
  circle.self = circle
  const ownMembers = { level: 'error', message: 'a error', fields: 'cannot be printed' }
  expect(write({ circle }, 'error')).toMatchObject([ownMembers])
  expect(write({ error: Object.assign(new Error('x'), { cause: circle }) }, 'error')).toMatchObject([ownMembers])
  const throwing = { toJSON: () => { throw new Error('hunter2') } }
  expect(JSON.stringify(write({ throwing }, 'error'))).not.toContain('hunter2')
})
