import { expect, test } from 'vitest'
import { createTurns } from '../../src/broker/turns.ts'

test('work of one key runs one after the other, in order; another key does not wait', async () => {
  const turns = createTurns()
  const order: string[] = []
  const first = Promise.withResolvers<undefined>()
  const work = [
    turns.take('a', async () => {
      order.push('a1 begins')
      await first.promise
      order.push('a1 ends')
    }),
    turns.take('a', async () => void order.push('a2')),
    turns.take('b', async () => void order.push('b1')),
    turns.take('a', async () => void order.push('a3')),
  ]
  await work[2]
  expect(order).toEqual(['a1 begins', 'b1'])
  first.resolve(undefined)
  await Promise.all(work)
  expect(order).toEqual(['a1 begins', 'b1', 'a1 ends', 'a2', 'a3'])
})

test('work that fails is told to its own caller alone', async () => {
  const turns = createTurns()
  const failing = turns.take('a', async () => {
    throw new Error('broken')
  })
  const next = turns.take('a', async () => 'well')
  await expect(failing).rejects.toThrow('broken')
  expect(await next).toBe('well')
})

test('too much waiting work is refused, until some is done', async () => {
  const turns = createTurns({ waitingMax: 2 })
  const first = Promise.withResolvers<string>()
  const waiting = [turns.take('a', () => first.promise), turns.take('a', async () => 'second')]
  await expect(turns.take('a', async () => 'third')).rejects.toMatchObject({ code: 'unavailable' })
  expect(await turns.take('b', async () => 'other')).toBe('other')
  first.resolve('first')
  expect(await Promise.all(waiting)).toEqual(['first', 'second'])
  expect(await turns.take('a', async () => 'third')).toBe('third')
})
