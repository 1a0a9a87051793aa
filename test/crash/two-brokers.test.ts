import { expect, onTestFinished, test, vi } from 'vitest'
import { findFreePort } from '../free-port.ts'
import { describePostgres } from '../harness.ts'
import { createRandom } from './random.ts'
import { createLoad } from './load.ts'
import { untilAnswered } from './site.ts'
import { readSnapshot } from './snapshot.ts'
import { beginTrial } from './trial.ts'

vi.setConfig({ testTimeout: 180_000 })

describePostgres('Of two brokers on one database', (engine) => {
  test('one is killed under load, and the other goes on as if there had been no other', async () => {
    const trial = await beginTrial(engine)
    const { site, book, load } = trial
    const port = await findFreePort()
    const other = site.serve(port)
    onTestFinished(async () => void (await other.stop('SIGKILL')))
    await untilAnswered(other, port)
    // The same agents with the same tokens: what the one has ended is ended for the other.
    const beside = createLoad({ port, book, random: createRandom(2), credential: load.admin.credential, connections: 8, withAdmin: false, withCheckpoints: false, beside: load })
    onTestFinished(() => beside.end())
    await Promise.all([load.resume(), beside.resume()])
    await trial.untilTokens(80)

    await trial.broker.stop('SIGKILL')
    await load.pause()
    const killedMs = performance.now()
    const { head } = await readSnapshot(site, Number.MAX_SAFE_INTEGER)
    const before = book.counts.tokens
    await vi.waitFor(() => expect(book.counts.tokens).toBeGreaterThan(before + 10), { timeout: 20_000, interval: 10 })
    // The lock of the log's head is free as soon as the server knows that its holder is gone, and not when a time limit has passed.
    expect(performance.now() - killedMs).toBeLessThan(4_500)
    // Whichever of them signed the checkpoints until then.
    await vi.waitFor(async () => expect((await readSnapshot(site, Number.MAX_SAFE_INTEGER)).checkpoints.at(-1)?.size).toBeGreaterThan(head.size), { timeout: 20_000, interval: 100 })
    await beside.pause()
    expect(other.hasEnded()).toBe(false)
    await trial.startAgain(other)
    expect(book.problems).toEqual([])
    expect(await other.stop('SIGTERM')).toMatchObject({ code: 0 })
  })
})
