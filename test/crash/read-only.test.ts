import pg from 'pg'
import { expect, test, vi } from 'vitest'
import { describePostgres } from '../harness.ts'
import { beginTrial } from './trial.ts'

vi.setConfig({ testTimeout: 180_000 })

/** For every new session; the ones that there are end. */
async function setReadOnly(ownerUrl: string, readOnly: boolean): Promise<void> {
  const url = new URL(ownerUrl)
  const name = url.pathname.slice(1)
  url.pathname = '/postgres'
  const owner = new pg.Client({ connectionString: url.href })
  await owner.connect()
  await owner.query(`alter database ${name} set default_transaction_read_only = ${readOnly ? 'on' : 'off'}`)
  await owner.query('select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1', [name])
  await owner.end()
}

describePostgres('A database that may not be written to for a while', (engine) => {
  test('has nothing of what was asked for meanwhile, and everything before and after', async () => {
    const trial = await beginTrial(engine, { load: { mayFail: true } })
    const { load, book, site } = trial
    await load.resume()
    await trial.untilTokens(40)
    await setReadOnly(site.ownerUrl, true)
    const { unavailable } = book.counts
    await vi.waitFor(() => expect(book.counts.unavailable).toBeGreaterThan(unavailable + 20), { timeout: 60_000, interval: 20 })
    const { tokens } = book.counts
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(book.counts.tokens).toBe(tokens)
    await setReadOnly(site.ownerUrl, false)
    await trial.untilTokens(40)
    await load.pause()
    await trial.verify(0)
    expect(book.problems).toEqual([])
    expect(trial.broker.hasEnded()).toBe(false)
  })
})
