import { setTimeout as sleep } from 'node:timers/promises'
import type { AgentClient } from '../client/agent.ts'
import { StintError } from '../client/errors.ts'
import type { LentGrant } from '../client/grant-records.ts'
import type { Io } from './command.ts'
import { formatInstant, printable } from './terminal.ts'

/** How long before its end a grant is renewed at the earliest. */
const leadMsMax = 60_000
/** Between one request and the next. */
const pauseMsMin = 500
const pauseMsMax = 5_000

/** A grant that a command runs with, and until when it lives by the broker's clock. */
export interface HeldGrant {
  readonly lent: LentGrant
  expiresAt: Date
}

export interface RenewalOptions {
  readonly ttlSeconds?: number | undefined
  /** When the grant was asked for, on the scale of `performance.now()`. */
  readonly askedAtMs: number
  /** Ends it, as soon as a renewal that is under way is answered. */
  readonly signal: AbortSignal
  /** Ends another grant, that nobody needs. */
  giveBack(grant: string, expiresAt: Date): Promise<void>
}

/**
 * Renews a grant before its end, again and again, as long as that keeps its credential the same: a command that runs cannot be
 * given another one. Once that is over, says so, and until when the credential lives. Counts by how long lives last, so that
 * a clock which differs from the broker's does no harm. Never throws.
 */
export async function keepRenewed(client: AgentClient, held: HeldGrant, { ttlSeconds, askedAtMs, signal, giveBack }: RenewalOptions, io: Io): Promise<void> {
  const { grant, issuedAt } = held.lent
  let lifeMs = held.expiresAt.getTime() - issuedAt.getTime()
  let endsAtMs = askedAtMs + lifeMs
  const restMs = (): number => endsAtMs - performance.now()
  let waitMs = restMs() - Math.min(leadMsMax, lifeMs / 3)
  for (;;) {
    // It throws nothing but that it was ended.
    await sleep(Math.max(0, waitMs), undefined, { signal }).catch(() => undefined)
    if (signal.aborted) return
    const why = await renew()
    if (why !== undefined) {
      if (!signal.aborted) warn(why)
      return
    }
  }

  /** Why it cannot be renewed any further, or `undefined` where it goes on. */
  async function renew(): Promise<string | undefined> {
    try {
      const renewed = await client.renewGrant(grant, { ttlSeconds })
      if ('credential' in renewed) {
        await giveBack(renewed.grant, renewed.expiresAt)
        return 'its tool makes no credential last longer'
      }
      const gainedMs = renewed.expiresAt.getTime() - held.expiresAt.getTime()
      endsAtMs += gainedMs
      held.expiresAt = renewed.expiresAt
      if (renewed.expiresAt.getTime() >= renewed.renewableUntil.getTime()) return 'that is the longest life that its tool gives'
      lifeMs = restMs()
      waitMs = Math.max(pauseMsMin, lifeMs - Math.min(leadMsMax, lifeMs / 3))
      return undefined
    } catch (error) {
      waitMs = Math.min(pauseMsMax, restMs() / 3)
      if ((isPassing(error) || (error instanceof StintError && error.code === 'timed_out')) && waitMs > pauseMsMin) return undefined
      return error instanceof Error ? error.message : 'for an unknown reason'
    }
  }

  function warn(why: string): void {
    io.err(`stint: ${grant} ends at ${formatInstant(held.expiresAt.toISOString())} and goes on no longer: ${printable(why)}\n`)
  }
}

/** Whether another try a moment later may go well, as while the broker is started anew. */
export function isPassing(error: unknown): boolean {
  return error instanceof StintError && ['connection_failed', 'unavailable', 'tool_unavailable', 'rate_limited'].includes(error.code)
}
