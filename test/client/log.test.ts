import { expect, test } from 'vitest'
import { createLogClient } from '../../src/client/log.ts'
import { listen } from '../listen.ts'

/** A client of a log that answers each path with as many hashes as its width says, and the paths it asks for. */
async function openLog() {
  const asked: string[] = []
  const url = await listen((request, response) => {
    const path = request.url ?? ''
    asked.push(path)
    expect(request.headers.authorization).toBeUndefined()
    response.end(Buffer.alloc(32 * Number(path.split('.p/')[1] ?? 256)))
  })
  return { log: createLogClient({ url }), asked }
}

test.each<[number, number, number, string]>([
  [0, 0, 256, '/log/tile/0/000'],
  [0, 7, 1, '/log/tile/0/007.p/1'],
  [1, 999, 255, '/log/tile/1/999.p/255'],
  [2, 1000, 256, '/log/tile/2/x001/000'],
  [0, 1_234_067, 8, '/log/tile/0/x001/x234/067.p/8'],
  [63, 35_184_372_088_831, 256, '/log/tile/63/x035/x184/x372/x088/831'],
])('the tile %i, %i of %i hashes stands at %s', async (level, index, width, path) => {
  const { log, asked } = await openLog()
  expect(await log.readTile(level, index, width)).toHaveLength(width * 32)
  expect(asked).toEqual([path])
})

test('a log on another machine is not followed over plain http, unless that is allowed', () => {
  expect(() => createLogClient({ url: 'http://stint.test' })).toThrow('refusing to send credentials over plain http')
  expect(createLogClient({ url: 'http://stint.test', allowInsecure: true }).origin).toBe('http://stint.test')
})
