import fc from 'fast-check'
import { expect, test } from 'vitest'
import { csvHeader, formatCsvLine } from '../../src/audit/csv.ts'
import { canonicalJson, type JsonObject } from '../../src/audit/encode.ts'

/** RFC 4180 §2, of one line. */
function readLine(line: string): string[] {
  expect(line).toMatch(/^[^\r\n]*\r\n$/)
  const cells = [...line.slice(0, -2).matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^",]*))(?=,|$)/g)]
  return cells.map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain ?? '')
}

const names = readLine(csvHeader)

function read(event: JsonObject): Record<string, string> {
  const cells = readLine(formatCsvLine(canonicalJson(event)))
  expect(cells).toHaveLength(names.length)
  return Object.fromEntries(names.map((name, i) => [name, cells[i] ?? '']))
}

test('the header names each column once', () => {
  expect(csvHeader).toBe(
    'index,time,type,actor,workload,tool,actions,target,task,grant,expires_at,verdict,reasons,policy_set,code,detail,reason,request_id,connector,ends,cause,effect,reference,may_live_until,event\r\n',
  )
})

test('a line has what the event and its decision say, numbers as numbers, and the whole event at its end', () => {
  const event = {
    index: 7,
    time: '2026-01-15T12:00:00.000Z',
    type: 'grant.issued',
    actor: { kind: 'workload', id: 'bot' },
    workload: 'bot',
    tool: 'tickets',
    actions: ['tickets:read', 'tickets:comment'],
    target: 'a "b", c',
    decision: { verdict: 'allow', reasons: ['r1', 'r2'], policy_set: 'abc', input: {} },
  }
  const line = formatCsvLine(canonicalJson(event))
  expect(line.startsWith('7,"2026-01-15T12:00:00.000Z","grant.issued","workload bot","bot","tickets","tickets:read tickets:comment","a ""b"", c",,,,"allow","r1 r2","abc",,,,,,,,,,,"{""actions""')).toBe(true)
  expect(JSON.parse(read(event)['event'] ?? '')).toEqual(event)
  const ended = { type: 'grant.ended', connector: 'postgres', ends: 'immediate', cause: 'revoked', effect: 'propagating', reference: '=role', may_live_until: '2026-01-15T12:00:00.000Z' }
  expect(read({ index: 9, ...ended })).toMatchObject({ ...ended, reference: "'=role" })
  expect(read({ index: 8, actor: { kind: 'stranger' }, count: 3, reason: 'unknown' })).toMatchObject({ index: '8', actor: 'stranger', reason: 'unknown', workload: '' })
})

const formulas: readonly (readonly [string, string])[] = [
  ['=1+1', "'=1+1"],
  ['+1', "'+1"],
  ['-2+3+cmd|\' /C calc\'!A0', "'-2+3+cmd|' /C calc'!A0"],
  ['@SUM(1)', "'@SUM(1)"],
  ['\t=1', " '=1"],
  ['\r=1', " '=1"],
  ['\n\n=1', "  '=1"],
  ['  =1', "  '=1"],
  ['\u0000=1', " '=1"],
  ['\ttab', ' tab'],
  ['two\r\nlines', 'two  lines'],
  ['a;=1', "a;'=1"],
  ['a, =1', "a, '=1"],
  ['a\t=1', 'a =1'],
  ['a|@x', "a|'@x"],
  ['"=1"', "\"'=1\""],
  ["'=1", "''=1"],
  ['\uff1d1', "'\uff1d1"],
  ['a;\uff0b1', "a;'\uff0b1"],
  // What is no formula stays as it is.
  ['acct-1', 'acct-1'],
  ['a = b', 'a = b'],
  ['2026-01-15', '2026-01-15'],
  ['ada@example.com', 'ada@example.com'],
  ['', ''],
]

test.each(formulas)('the text %j becomes %j', (given, expected) => {
  const line = read({ index: 0, target: given, task: given, reason: given, actions: [given], detail: given })
  for (const name of ['target', 'task', 'reason', 'actions', 'detail']) expect([name, line[name]]).toEqual([name, expected])
  expect(JSON.parse(line['event'] ?? '')).toMatchObject({ target: given, reason: given })
})

const signs = '=+-@\uff1d\uff0b\uff0d\uff20'
const nasty = fc.string({ unit: fc.constantFrom(...signs, ',', ';', '|', '"', "'", '\t', '\r', '\n', ' ', '\\', 'a', '1', 'é', '{', ':') })

test('nothing begins with a sign of a formula, whatever takes the line for cells, and the event stays the same', () => {
  fc.assert(
    fc.property(fc.record({ target: nasty, reason: nasty, actions: fc.array(nasty), 'k-=;+': nasty, nested: fc.record({ [';@']: nasty }), n: fc.constant(-5), l: fc.constant([1, -2]) }), (made) => {
      const event: JsonObject = { index: 3, ...made }
      const line = formatCsvLine(canonicalJson(event))
      const cells = readLine(line)
      expect(JSON.parse(cells.at(-1) ?? '')).toEqual(event)
      // As RFC 4180 says, and as readers do that split at other signs, or know no quotes.
      const careless = [/,/, /;/, /\t/, /\|/, /[,;]/, /"/, /[",;|\t]/].flatMap((separator) => line.split(separator))
      const found = [...cells, ...careless].filter((cell) => {
        const text = cell.replace(/^["\s]+/, '')
        // The numbers of a list in the event's JSON, which are what they are.
        return signs.includes(text.charAt(0)) && text !== '' && !text.startsWith('-2]') && !/^-5[,}]/.test(text)
      })
      expect(found).toEqual([])
    }),
    { numRuns: 500 },
  )
})
