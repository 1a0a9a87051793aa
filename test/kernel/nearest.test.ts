import { expect, test } from 'vitest'
import { nearestName } from '../../src/kernel/nearest.ts'

const known = ['github', 'gitlab', 'issues.read', 'issues.comment', 'contents.write', 's3', 'x']

test.for<[string, string | undefined]>([
  ['github', 'github'],
  ['gihtub', 'github'],
  ['GitHub', 'github'],
  ['githab', 'github'],
  ['gitlub', 'github'],
  ['issue.read', 'issues.read'],
  ['issues.raed', 'issues.read'],
  ['isues.coment', 'issues.comment'],
  ['s4', 's3'],
  ['', 'x'],
  ['postgres', undefined],
  ['git', undefined],
  ['contents', undefined],
  ['issues', undefined],
  ['zzz', undefined],
])('%j most likely means %j', ([given, meant]) => {
  expect(nearestName(given, known)).toBe(meant)
})

test('Where nothing is known, nothing is meant', () => {
  expect(nearestName('github', [])).toBeUndefined()
})
