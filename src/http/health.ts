import type { Route } from './route.ts'

export const healthRoutes: readonly Route[] = [
  { method: 'GET', path: '/healthz', access: 'anyone', handle: async (c) => c.json({ status: 'alive' }) },
  {
    method: 'GET',
    path: '/readyz',
    access: 'anyone',
    /** Whether a token could be issued now: the database answers, the log can be written, a policy set is in force. */
    async handle(c) {
      const { knowledge, ledger } = c.get('broker')
      const view = await knowledge.refresh().catch(() => undefined)
      const parts = {
        database: view === undefined ? 'unreachable' : 'ready',
        log: ledger.halted === undefined ? 'ready' : 'halted',
        policy: view?.policySet === undefined ? 'none in force' : 'ready',
      }
      const ready = Object.values(parts).every((state) => state === 'ready')
      return c.json({ status: ready ? 'ready' : 'not ready', parts }, ready ? 200 : 503)
    },
  },
]
