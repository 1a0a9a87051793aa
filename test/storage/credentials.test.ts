import { expect, test } from 'vitest'
import { insertIntent, noteCredential, stepCredential } from '../../src/storage/credentials.ts'
import { findCovered, findDue, listDueTools } from '../../src/storage/due-credentials.ts'
import { insertRevocation, type RevocationSelector } from '../../src/storage/grants.ts'
import type { Ledger } from '../../src/storage/ledger.ts'
import { createTestDatabase, describeEngines } from '../harness.ts'
import { grantChange, note, openLedger, startMs } from './changes.ts'

/** Of each workload, tool and task one, in this order. */
const lent = ['bot', 'other-bot'].flatMap((workload) => ['docs', 'ledger'].flatMap((tool) => ['ticket-7', undefined].map((task) => ({ workload, tool, task }))))
const idOf = (i: number): string => `grant_${i}`

async function open(engine: Parameters<Parameters<typeof describeEngines>[1]>[0]) {
  const database = await (await createTestDatabase(engine)).open()
  const { ledger } = openLedger(database)
  for (const [i, { workload, tool, task }] of lent.entries()) {
    const { grant, ...rest } = grantChange(idOf(i), { workload, ...(task !== undefined && { task }) })
    if (grant !== undefined) await ledger.append({ ...rest, grant: { ...grant, tool } })
  }
  await change(ledger, async (tx) => {
    for (const [i, { workload, tool }] of lent.entries()) {
      await insertIntent(tx, { grant: idOf(i), tool, workload, connector: 'x', policySet: 'set', effect: 'immediate', owner: 'me', leaseUntilMs: startMs + 1_000 * (i + 1) })
    }
  })
  return { database, ledger }
}

function change(ledger: Ledger, apply: (tx: Parameters<typeof noteCredential>[0]) => Promise<unknown>) {
  return ledger.transact({
    async apply(tx) {
      await apply(tx)
      return { result: undefined, unrecorded: 'housekeeping' }
    },
  })
}

describeEngines('Credentials in outside tools', (engine) => {
  test('that are due are found tool by tool, the longest waiting first', async () => {
    const { database, ledger } = await open(engine)
    expect(await listDueTools(database.read, startMs)).toEqual([])
    expect(await listDueTools(database.read, startMs + 2_000)).toEqual(['docs'])
    expect(await listDueTools(database.read, startMs + 3_000)).toEqual(['docs', 'ledger'])
    const found = await findDue(database.read, 'docs', startMs + 5_000, 2)
    expect(found.map(({ grant }) => grant)).toEqual([idOf(0), idOf(1)])
    const after = await findDue(database.read, 'docs', startMs + 5_000, 9, found.at(-1))
    expect(after.map(({ grant }) => grant)).toEqual([idOf(4)])
    expect(await findDue(database.read, 'docs', startMs + 5_000, 9)).toEqual([...found, ...after])
    expect(await findDue(database.read, 'docs', startMs + 5_000, 9, after.at(-1))).toEqual([])
    // What is over or stuck is nobody's to look at.
    const forget = (of: string) =>
      change(ledger, async (tx) => {
        for (const [i, { tool }] of lent.entries()) if (tool === of) await noteCredential(tx, idOf(i), { dueAtMs: null })
      })
    await forget('docs')
    expect(await listDueTools(database.read, startMs + 60_000)).toEqual(['ledger'])
    await forget('ledger')
    expect(await listDueTools(database.read, startMs + 60_000)).toEqual([])
  })

  const selectors: readonly RevocationSelector[] = [
    { workload: 'bot' },
    { tool: 'ledger' },
    { task: 'ticket-7' },
    { workload: 'bot', tool: 'ledger' },
    { workload: 'other-bot', task: 'ticket-7' },
    { tool: 'docs', task: 'ticket-7' },
    { workload: 'bot', tool: 'ledger', task: 'ticket-7' },
    { beforeMs: startMs + 1 },
    { workload: 'nobody' },
    { tool: 'none' },
    { task: 'none' },
  ]
  test('that a revocation covers are those that fit all that it names, and are being made or alive', async () => {
    const { database, ledger } = await open(engine)
    await change(ledger, async (tx) => {
      await stepCredential(tx, { grant: idOf(0), state: 'minting' }, 'minted', { dueAtMs: startMs + 600_000 })
      await stepCredential(tx, { grant: idOf(6), state: 'minting' }, 'end_ordered')
    })
    for (const selector of selectors) {
      const outcome = await ledger.transact({
        async apply(tx, { index }) {
          await insertRevocation(tx, index, selector)
          return { result: index, events: [note('revoked')], raisesEpoch: false }
        },
      })
      const index = outcome.status === 'recorded' ? outcome.result : -1
      const { workload, tool, task } = selector
      const fitting = lent.flatMap((one, i) => {
        const fits = [workload ?? one.workload, tool ?? one.tool, task ?? one.task].every((value, at) => value === [one.workload, one.tool, one.task][at])
        return fits && i !== 6 ? [idOf(i)] : []
      })
      expect((await findCovered(database.read, index, selector, 99)).sort(), JSON.stringify(selector)).toEqual(fitting)
      expect((await findCovered(database.read, index, selector, 1)).length).toBe(Math.min(1, fitting.length))
    }
    // Not what was asked for after it.
    expect(await findCovered(database.read, 0, { workload: 'bot' }, 99)).toEqual([])
  })
})
