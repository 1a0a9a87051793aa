import { expect, inject, onTestFinished, test, vi } from 'vitest'
import { createTestFolder } from '../harness.ts'
import { startPostgres } from './postgres.ts'
import { beginTrial } from './trial.ts'

vi.setConfig({ testTimeout: 240_000 })

const { missing } = inject('postgres')

test.skipIf(missing !== undefined)('PostgreSQL that is restarted under load, gently and not, loses nothing, and the broker goes on by itself', async () => {
  const server = await startPostgres(createTestFolder())
  onTestFinished(() => server.end())
  const trial = await beginTrial('postgres', { server, load: { mayFail: true } })
  const { load, book } = trial
  await load.resume()
  for (const how of ['fast', 'immediate'] as const) {
    await trial.untilTokens(40)
    await server.stop(how)
    const { unavailable, tokens } = book.counts
    // Whoever asks meanwhile is told that it cannot be done, and gets nothing.
    await vi.waitFor(() => expect(book.counts.unavailable).toBeGreaterThan(unavailable + 5), { timeout: 60_000, interval: 20 })
    expect(book.counts.tokens - tokens).toBeLessThan(10)
    await server.start()
    await trial.untilTokens(40)
    expect(trial.broker.hasEnded()).toBe(false)
  }
  await load.pause()
  await trial.verify(0)
  // The same for the next process, which knows nothing of what this one saw.
  await trial.broker.stop('SIGKILL')
  await trial.startAgain()
  expect(book.problems).toEqual([])
})
