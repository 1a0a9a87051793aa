import { z } from 'zod'
import { defineRoute, type Route } from './route.ts'

const parts = z.strictObject({ database: z.string(), log: z.string(), policy: z.string(), clock: z.string() })

export const healthRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/healthz',
    access: 'anyone',
    summary: 'Whether the process lives',
    answers: { 200: { description: 'It does', schema: z.strictObject({ status: z.literal('alive') }) } },
    handle: async (c) => c.json({ status: 'alive' }),
  }),
  defineRoute({
    method: 'GET',
    path: '/readyz',
    access: 'anyone',
    summary: 'Whether a token could be issued now',
    answers: {
      200: { description: 'Every part is ready', schema: z.strictObject({ status: z.literal('ready'), parts }) },
      503: { description: 'A part is not, and says why', schema: z.strictObject({ status: z.literal('not ready'), parts }) },
    },
    /** Whether a token could be issued now: database, log, policy set, and a clock that the log has not overtaken. */
    async handle(c) {
      const { knowledge, ledger, clock } = c.get('broker')
      const view = await knowledge.refresh().catch(() => undefined)
      const parts = {
        database: view === undefined ? 'unreachable' : 'ready',
        log: ledger.halted === undefined ? 'ready' : 'halted',
        policy: view?.policySet === undefined ? 'none in force' : 'ready',
        clock: describeClock(ledger.nowMs() - clock.nowMs()),
      }
      const ready = Object.values(parts).every((state) => state === 'ready')
      return c.json({ status: ready ? 'ready' : 'not ready', parts }, ready ? 200 : 503)
    },
  }),
]

/** How far the clock may be behind the log, as it is when the clocks of several processes differ a little. */
const behindMsMax = 5_000

/** The log's time never runs backwards: proofs are judged by it, so that good ones look expired while the clock is behind. */
function describeClock(behindMs: number): string {
  return behindMs <= behindMsMax ? 'ready' : `${Math.ceil(behindMs / 1000)} s behind the log`
}
