import { renewedExpiryMs } from '../grant/lifetime.ts'
import { grantState } from '../grant/grant.ts'
import { resolveWish } from '../grant/request.ts'
import type { Principal } from '../identity/authenticate.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Tool } from '../policy/catalog.ts'
import { findCredential } from '../storage/credentials.ts'
import { findGrant } from '../storage/grants.ts'
import { findRenewed, insertRenewal, moveExpiry } from '../storage/renewals.ts'
import type { TouchedGrant } from '../storage/revoked.ts'
import type { Recorded } from '../storage/change.ts'
import { openHandle } from './end.ts'
import { toolError } from './tool-error.ts'
import { withWorkload, type ClientCredentials } from './authenticate.ts'
import type { Broker } from './broker.ts'
import type { View } from './knowledge.ts'
import { mintCredential } from './mint.ts'
import { findOwn, type NamedOn } from './own-grant.ts'
import { decideAndRecord, type Answer, type Ask, type Granted, type Prepared } from './request.ts'

/** The same credential for longer. */
export interface Prolonged {
  readonly prolonged: string
  readonly expiresAtMs: number
  readonly renewableUntilMs: number
  readonly auditIndex: number
}

/**
 * Lets a grant go on, if the policy allows the same again now: the same credential where that lives long enough in its tool,
 * else a new grant that is linked to the first one. Never past the tool's longest life, counted from the first. Throws
 * `not_found`, `conflict` for a grant that is over or at the end of its longest life, and what asking anew throws.
 */
export async function renewGrant(broker: Broker, credentials: ClientCredentials, id: string, ttlSeconds: number | undefined, on: NamedOn): Promise<Granted | Prolonged> {
  const lasting: Lasting = {}
  const answer = await withWorkload<Answer | Prolonged>(broker, credentials, async (principal, view) => {
    const found = await findOwn(broker, principal, view, id, on)
    return 'grant' in found ? renew(broker, principal, view, found, ttlSeconds, on, lasting) : found
  })
  // A tool that has not heard of an earlier renewal is told by this one, though there is nothing to add to it.
  if (lasting.untilMs !== undefined) await tellTool(broker, { prolonged: id, expiresAtMs: lasting.untilMs })
  if (answer instanceof BrokerError) throw answer
  if ('intent' in answer) return mintCredential(broker, answer)
  if ('prolonged' in answer) await tellTool(broker, answer)
  return answer
}

/** Where the tool has an end of its own for the credential, it is moved, too; asked again, it is told again. */
async function tellTool(broker: Broker, { prolonged: id, expiresAtMs }: Pick<Prolonged, 'prolonged' | 'expiresAtMs'>): Promise<void> {
  const credential = await findCredential(broker.database.read, id)
  const tool = credential && (await broker.tools.find(credential.policySet, credential.tool))
  if (credential === undefined || tool === undefined) return
  const { reference, handle } = credential
  const ending = { grant: id, ...(reference !== undefined && { reference }), ...(handle && { handle: openHandle(broker, id, handle) }) }
  try {
    await broker.tools.call(tool, (open, signal) => open.renew?.(ending, expiresAtMs, signal) ?? Promise.resolve())
  } catch (error) {
    throw toolError(error, 'The renewal is on record, but the tool may end the credential at the earlier time: renew again.')
  }
}

/** Until when a grant lasts that a renewal adds nothing to. */
interface Lasting {
  untilMs?: number
}

async function renew(
  broker: Broker,
  principal: Principal,
  view: View,
  { grant, credential, state }: TouchedGrant,
  ttlSeconds: number | undefined,
  { requestId }: NamedOn,
  lasting: Lasting,
): Promise<Recorded<Answer | Prolonged>> {
  const { id, tool: name, actions, target, task } = grant
  const renewed = (await findRenewed(broker.database.read, id)) ?? { first: id, firstIssuedAtMs: grant.issuedAtMs }
  const tool = view.policySet?.catalog.get(name)
  const nowMs = broker.ledger.nowMs()
  const asked = ttlSeconds ?? tool?.ttl.defaultSeconds ?? 0
  const untilMs = tool && renewedExpiryMs({ ...renewed, nowMs, ttlSeconds: asked, maxSeconds: tool.ttl.maxSeconds })
  const inPlace =
    credential !== undefined &&
    untilMs !== undefined &&
    untilMs <= (credential.diesAtMs ?? Infinity) &&
    isSameGift(tool, await broker.tools.find(credential.policySet, name), actions)
  const ask: Ask<Prolonged> = {
    resolve(catalog) {
      if (state !== 'active') throw notActive(id)
      const wish = { tool: name, actions, ttlSeconds: asked, ...(target !== undefined && { target }), ...(task !== undefined && { task }) }
      const request = resolveWish(wish, catalog)
      if (untilMs === undefined) {
        const publicMessage = `The grant ${id} has had the longest life that ${name} gives, ${request.tool.ttl.maxSeconds} s from the first: ask for a new one.`
        throw new BrokerError({ code: 'conflict', publicMessage })
      }
      if (inPlace && untilMs <= grant.expiresAtMs) {
        lasting.untilMs = grant.expiresAtMs
        throw new BrokerError({ code: 'conflict', publicMessage: `The grant ${id} lasts until ${formatTime(grant.expiresAtMs)} already, which is no earlier than what was asked for.` })
      }
      // What is decided is what is given: no longer than is left.
      return { ...request, ttlSeconds: Math.max(1, Math.floor((untilMs - nowMs) / 1000)) }
    },
    deniedCode: 'denied',
    requestId,
    renewal: renewed,
    guard: () => ({
      async stillHolds(tx, { timeMs }) {
        const [now, its] = [await findGrant(tx, id), await findCredential(tx, id)]
        if (now === undefined || grantState(now, timeMs, its?.state) !== 'active') throw notActive(id)
        // Renewed by another request meanwhile: decided again, from where that has left it.
        return now.expiresAtMs === grant.expiresAtMs
      },
      also: (next) => (tx) => insertRenewal(tx, next, renewed.first, renewed.firstIssuedAtMs),
    }),
    ...(inPlace && {
      prepare: (asked): Prepared<Prolonged> => {
        const expiresAtMs = untilMs
        const renewableUntilMs = renewed.firstIssuedAtMs + (tool?.ttl.maxSeconds ?? 0) * 1000
        return {
          change: {
            events: [{ type: 'grant.renewed', ...asked, grant: id, expires_at: formatTime(expiresAtMs) }],
            also: (tx) => moveExpiry(tx, id, expiresAtMs),
          },
          answer: ({ index }) => ({ prolonged: id, expiresAtMs, renewableUntilMs, auditIndex: index }),
        }
      },
    }),
  }
  return decideAndRecord(broker, principal, view, ask)
}

/** Whether the tool gives now for these actions what it gave then: else the credential may do more than what is decided. */
function isSameGift(now: Tool | undefined, then: Tool | undefined, actions: readonly string[]): boolean {
  const gift = (tool: Tool | undefined) => JSON.stringify([tool?.connector, tool?.config, actions.map((action) => tool?.actions.get(action)?.settings)])
  return now !== undefined && gift(now) === gift(then)
}

function notActive(id: string): BrokerError {
  return new BrokerError({ code: 'conflict', publicMessage: `The grant ${id} is not active any more: ask for a new one.` })
}
