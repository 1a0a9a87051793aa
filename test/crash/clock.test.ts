import { expect, test, vi } from 'vitest'
import { describeEngines } from '../harness.ts'
import { replayAssertions } from './replays.ts'
import { order } from './site.ts'
import { readMarks, readSnapshot } from './snapshot.ts'
import { beginTrial } from './trial.ts'

vi.setConfig({ testTimeout: 180_000 })

const tenMinutesMs = 600_000

describeEngines('A clock that is moved under load', (engine) => {
  test('ten minutes forward and back lets nothing be used twice, and no time go back', async () => {
    const trial = await beginTrial(engine, { serve: (site) => site.serveWithHooks([]) })
    const { load, book, site } = trial
    const move = (offMs: number) => load.moveClock(offMs, () => order(trial.broker, { offMs }))
    const readTimes = async () => (await readSnapshot(site, 0)).entries.map(({ time }) => Date.parse(time))
    await load.resume()
    await trial.untilTokens(40)
    const early = book.assertions.filter(({ spent }) => spent === 'yes').length
    await move(tenMinutesMs)
    await trial.untilTokens(20)
    // The time is the clock's, and marks of assertions that it has outlived are forgotten.
    expect((await readTimes()).at(-1)).toBeGreaterThan(Date.now() + tenMinutesMs - 60_000)
    await vi.waitFor(async () => expect((await readMarks(site)).filter((expiresAtMs) => expiresAtMs < Date.now() + tenMinutesMs - 60_000)).toEqual([]), { timeout: 30_000, interval: 100 })

    await move(0)
    await trial.untilTokens(40)
    await move(-tenMinutesMs)
    await trial.untilTokens(40)
    await load.pause()
    // What was forgotten is refused by the log's time, which stands where it was.
    expect(early).toBeGreaterThan(0)
    expect(await replayAssertions(load)).toBeGreaterThan(0)
    const times = await readTimes()
    expect(times).toEqual(times.toSorted((a, b) => a - b))
    expect(times.at(-1)).toBeGreaterThan(Date.now() + tenMinutesMs - 120_000)
    const issued = book.tokens.toSorted((a, b) => a.index - b.index).map(({ issuedAtMs }) => issuedAtMs)
    // Two that were asked for together may change places within a batch, by a second at most.
    for (const [i, issuedAtMs] of issued.entries()) expect(issuedAtMs).toBeGreaterThanOrEqual((issued[i - 1] ?? 0) - 1_000)

    // The same for the next process, whose clock was never ahead.
    await trial.broker.stop('SIGKILL')
    await trial.startAgain()
    expect(book.problems).toEqual([])
  })
})
