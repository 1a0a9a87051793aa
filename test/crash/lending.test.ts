import { expect, inject, test, vi } from 'vitest'
import { createTestFolder } from '../harness.ts'
import { pointPlans } from './lending-plans.ts'
import { runLendingRounds } from './lending-rounds.ts'

// A process is started for each point, which takes as long as the machine lets it.
vi.setConfig({ testTimeout: 400_000 })

const server = inject('postgres')

test.skipIf(server.missing !== undefined)('A broker that dies at any point between the steps of lending and ending leaves nothing alive that nobody knows of', async () => {
  if (server.missing !== undefined) throw new Error(server.missing)
  const { problems, kills, missed, orphans, counts } = await runLendingRounds({
    engine: 'sqlite',
    rounds: pointPlans.length,
    seconds: 360,
    seed: 1,
    folder: createTestFolder(),
    server,
    plans: pointPlans,
  })
  expect(problems).toEqual([])
  expect(missed).toBe(0)
  for (const { point } of pointPlans) expect(kills).toMatchObject({ [point]: expect.toSatisfy((n: number) => n > 0) })
  // Otherwise it would have been no test of them.
  expect(counts.received).toBeGreaterThan(0)
  expect(orphans.found).toBeGreaterThan(0)
  expect(orphans.cleared).toBe(orphans.found)
})
