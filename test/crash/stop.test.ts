import { expect, test, vi } from 'vitest'
import { describeEngines } from '../harness.ts'
import { beginTrial } from './trial.ts'

// Starting a process takes as long as the machine lets it.
vi.setConfig({ testTimeout: 180_000 })

describeEngines('A broker that is told to stop under load', (engine) => {
  test('ends well and in time; whoever was answered is on record, and nobody else was told anything', async () => {
    const trial = await beginTrial(engine, { load: { withAdmin: false } })
    const { load, book } = trial
    await load.resume()
    await trial.untilTokens(60)
    const beganMs = performance.now()
    const ended = await trial.broker.stop('SIGTERM')
    await load.pause()
    // Nothing was wrong, and nothing had to be cut off at the deadline of ten seconds.
    expect(ended).toMatchObject({ code: 0, signal: null, err: '' })
    expect(performance.now() - beganMs).toBeLessThan(10_000)
    await trial.startAgain()
    expect(book.problems).toEqual([])
    expect(book.counts.unavailable).toBe(0)
  })
})
