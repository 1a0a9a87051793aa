import { spawnSync } from 'node:child_process'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { createGatheredLog } from '../../src/cli/serve.ts'

function messagesIn(text: string): string[] {
  return text.split('\n').flatMap((line) => (line.startsWith('{"time"') ? [(JSON.parse(line) as { message: string }).message] : []))
}

describe('The log of a broker that serves', () => {
  test('writes the lines of one turn at once, and warnings and errors without waiting, all in order', async () => {
    const writes: string[] = []
    const log = createGatheredLog({ err: (text) => void writes.push(text) }, 'info')
    for (const n of [1, 2, 3]) log.info(`line ${n}`)
    log.debug('too little to tell')
    expect(writes).toEqual([])
    await setImmediate()
    expect(writes.map(messagesIn)).toEqual([['line 1', 'line 2', 'line 3']])
    log.info('line 4')
    log.warn('line 5')
    log.error('line 6')
    log.info('line 7')
    expect(writes.slice(1).map(messagesIn)).toEqual([['line 4', 'line 5'], ['line 6']])
    await setImmediate()
    await setImmediate()
    expect(writes.slice(3).map(messagesIn)).toEqual([['line 7']])
    log.info('line 8')
    log.end()
    expect(writes.slice(4).map(messagesIn)).toEqual([['line 8']])
  })

  const serve = fileURLToPath(new URL('../../src/cli/serve.ts', import.meta.url))
  test.each([
    ['by itself', '', 0],
    ['by process.exit()', 'process.exit(3)', 3],
    ['by an error that nobody handles', "throw new Error('no more')", 1],
    ['by a promise that nobody handles', "Promise.reject(new Error('no more'))", 1],
  ])('loses nothing when the process ends %s', (_, end, status) => {
    const script = `import { createGatheredLog } from ${JSON.stringify(serve)}
const log = createGatheredLog({ err: (text) => void process.stderr.write(text) }, 'info')
for (let n = 0; n < 200; n++) log.info('line ' + n, { filler: 'x'.repeat(100) })
${end}`
    const ended = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', env: { PATH: process.env['PATH'] } })
    expect([ended.status, messagesIn(ended.stderr).length, messagesIn(ended.stderr).at(-1)]).toEqual([status, 200, 'line 199'])
  })
})
