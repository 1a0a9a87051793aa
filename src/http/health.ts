import { z } from 'zod'
import type { Keyring } from '../crypto/keyring.ts'
import type { Ledger } from '../storage/ledger.ts'
import { defineRoute, type Route } from './route.ts'

const parts = z.strictObject({
  database: z.string(),
  log: z.string(),
  policy: z.string(),
  signing_key: z.string(),
  sealing_keys: z.string(),
  clock: z.string(),
  process: z.string(),
})

/** No part: the set in force decides whatever has become of the folder. What is wrong with it is in the log alone. */
const policyFolder = z
  .enum(['in force', 'not in force: another set stays', 'cannot be used: the set in force stays'])
  .optional()
  .describe('Whether the policy folder is what decides; absent where the broker does not follow it, or cannot read what decides.')

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
      200: { description: 'Every part is ready', schema: z.strictObject({ status: z.literal('ready'), parts, policy_folder: policyFolder }) },
      503: { description: 'A part is not, and says why', schema: z.strictObject({ status: z.literal('not ready'), parts, policy_folder: policyFolder }) },
    },
    /** The parts are named and told ready or not, in words of this file: nothing in them helps whoever attacks one. */
    async handle(c) {
      const { knowledge, ledger, clock, isDraining, policyFolder, anchoring, sealingKeys } = c.get('broker')
      const view = await knowledge.refresh().catch(() => undefined)
      const parts = {
        database: view === undefined ? 'unreachable' : 'ready',
        log: ledger.held === undefined ? describeLog(ledger, view !== undefined) : describeHold(anchoring.contradictions().length > 0),
        policy: view === undefined ? 'unknown' : view.policySet === undefined ? 'none in force' : 'ready',
        signing_key: view === undefined ? 'unknown' : canSign(view.keyring, ledger.nowMs()) ? 'ready' : 'none usable',
        sealing_keys: describeSealingKeys(sealingKeys.findLacking()),
        clock: describeClock(ledger.nowMs() - clock.nowMs()),
        process: isDraining() ? 'stopping' : 'ready',
      }
      const ready = Object.values(parts).every((state) => state === 'ready')
      const folder = view && policyFolder?.state(view.policySet?.hash)
      return c.json({ status: ready ? 'ready' : 'not ready', parts, policy_folder: folder }, ready ? 200 : 503)
    },
  }),
]

/** What was found at the last try; a job tries every few seconds, so that the end of a fault shows without a request. */
function describeLog({ halted, failing }: Pick<Ledger, 'halted' | 'failing'>, databaseAnswers: boolean): string {
  if (halted !== undefined) return 'halted'
  if (failing) return 'cannot be written'
  return databaseAnswers ? 'ready' : 'unknown'
}

/** What holds the ledger, and what to do. */
function describeHold(contradicted: boolean): string {
  return contradicted
    ? 'held: a checkpoint that was kept elsewhere is not of this log, as after a restored backup; an admin looks at it, and accepts it, with stint audit accept-restored'
    : 'held: the log contradicts its own checkpoint; its entries are to be looked into'
}

/** As of the last look, a second ago: a root key that does not answer must not hold up this answer. */
function describeSealingKeys(lacking: number | undefined): string {
  return lacking === undefined ? 'ready' : `version ${lacking} cannot be opened by this process: its log says why`
}

function canSign({ signingKey }: Keyring, nowMs: number): boolean {
  try {
    return signingKey(nowMs) !== undefined
  } catch {
    return false
  }
}

/** How far the clock may be behind the log, as it is when the clocks of several processes differ a little. */
const behindMsMax = 5_000

/** The log's time never runs backwards: proofs are judged by it, so that good ones look expired while the clock is behind. */
function describeClock(behindMs: number): string {
  return behindMs <= behindMsMax ? 'ready' : `${Math.ceil(behindMs / 1000)} s behind the log`
}
