import { describe, expect, test } from 'vitest'
import { entryBytesMax, makeEntry } from '../../src/audit/entry.ts'
import { eventFields, type AuditEvent } from '../../src/audit/event.ts'
import { systemRandom } from '../../src/kernel/ids.ts'
import { grantChange, note, startMs } from '../storage/changes.ts'
import { naiveLeaf } from './naive-tree.ts'

const fixed = (bytes: number) => new Uint8Array(bytes).fill(0xab)

describe('An entry', () => {
  test('is the canonical JSON of its event with index, time, salt and version', () => {
    const entry = makeEntry({ ...note('why'), request_id: 'req_1' }, 7, startMs, fixed)
    expect(entry.body).toBe(
      '{"actor":{"id":"triage-bot","kind":"workload"},"code":"invalid_scope","detail":"why","index":7,"proof_kid":"k1",' +
        '"request_id":"req_1","salt":"q6urq6urq6urq6urq6urqw","time":"2026-01-15T12:00:00.000Z","type":"grant.refused","v":1,"workload":"triage-bot"}',
    )
    expect(entry).toMatchObject({ index: 7, time: '2026-01-15T12:00:00.000Z', type: 'grant.refused', workload: 'triage-bot' })
    expect(entry.leafHash).toEqual(naiveLeaf(entry.body))
  })

  test('is found by the workload, tool, grant and task that it names', () => {
    const [event] = grantChange('grant_1', { task: 'ticket-7' }).events
    expect(makeEntry(event, 0, startMs, fixed)).toMatchObject({ workload: 'triage-bot', tool: 'github', grant: 'grant_1', task: 'ticket-7' })
    const opened: AuditEvent = { type: 'log.opened', actor: { kind: 'stint', id: 'start' }, trust_domain: 'example.test', issuer: 'https://x.test' }
    expect(makeEntry(opened, 0, startMs, fixed)).toMatchObject({ workload: undefined, tool: undefined, grant: undefined, task: undefined })
  })

  test('has 128 bits of salt, so that equal events have unlike hashes', () => {
    const asked: number[] = []
    const random = (bytes: number) => (asked.push(bytes), systemRandom(bytes))
    const [one, other] = [makeEntry(note(), 0, startMs, random), makeEntry(note(), 0, startMs, random)]
    expect(asked).toEqual([16, 16])
    expect(one.leafHash.equals(other.leafHash)).toBe(false)
  })

  test('holds no field that its type does not list', () => {
    for (const extra of ['grant', 'secret', 'index', 'salt', 'time', 'v', 'constructor', '__proto__x']) {
      const event = Object.assign(note(), { [extra]: 'x' })
      expect(() => makeEntry(event, 0, startMs, fixed), extra).toThrow(`an event of type grant.refused has no field ${extra}`)
    }
    expect(() => makeEntry(Object.assign(note(), { secret: undefined }), 0, startMs, fixed)).toThrow('has no field secret')
  })

  test('is of a known type', () => {
    // What the compiler would refuse.
    const strange = { type: 'toString', actor: { kind: 'stint' } } as unknown as AuditEvent
    expect(() => makeEntry(Object.assign(strange, { a: 1 }), 0, startMs, fixed)).toThrow(TypeError)
  })

  test('fits a bundle of entries: at most 60 KiB, in bytes', () => {
    const bytesOf = (detail: string) => Buffer.byteLength(makeEntry(note(detail), 0, startMs, fixed).body)
    const room = entryBytesMax - bytesOf('')
    expect(bytesOf('x'.repeat(room))).toBe(61_440)
    expect(() => bytesOf('x'.repeat(room + 1))).toThrow('has 61441 bytes, at most 61440 fit')
    expect(bytesOf('ü'.repeat(room / 2))).toBeLessThanOrEqual(61_440)
    expect(() => bytesOf('ü'.repeat(room / 2 + 1))).toThrow(RangeError)
  })

  test('of no type lists a field that the ledger fills in', () => {
    for (const [type, fields] of Object.entries(eventFields)) {
      expect(fields.filter((field) => ['index', 'salt', 'time', 'v', 'type', 'actor'].includes(field)), type).toEqual([])
    }
  })
})
