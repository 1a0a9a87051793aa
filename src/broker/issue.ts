import { resolveRequest, resolveWish, type GrantWish, type RawRequest } from '../grant/request.ts'
import { BrokerError } from '../kernel/errors.ts'
import { builtInConnectorKinds } from '../policy/catalog.ts'
import { withWorkload, type ClientCredentials } from './authenticate.ts'
import type { Broker } from './broker.ts'
import { guardRepeat, type IdempotencyKey } from './idempotency.ts'
import { mintCredential } from './mint.ts'
import { decideAndRecord, type Answer, type Ask, type Granted } from './request.ts'

/** A token as answered. `scope` and `authorizationDetails` are what was granted (RFC 6749 §5.1, RFC 9396 §7). */
export interface IssuedToken {
  readonly accessToken: string
  readonly expiresInSeconds: number
  readonly scope: string
  readonly authorizationDetails?: readonly Readonly<Record<string, unknown>>[]
  readonly auditIndex: number
}

/**
 * Authenticates a workload, decides what it asks for and gives it a token: one that Stint signs, or that an outside tool
 * makes. Whatever the outcome, it is in the log before this returns or throws (invariant 1). Throws the codes of the token
 * endpoint.
 */
export async function issueToken(broker: Broker, credentials: ClientCredentials, raw: RawRequest, requestId: string): Promise<IssuedToken> {
  const granted = await answerAsk(broker, credentials, {
    resolve(catalog) {
      const request = resolveRequest(raw, catalog)
      if (builtInConnectorKinds.get(request.tool.connector)?.lendsToken === true) return request
      const publicMessage = `The tool ${request.tool.name} lends no token but another kind of credential: ask for it by POST /v1/grants.`
      throw new BrokerError({ code: 'invalid_request', publicMessage })
    },
    deniedCode: 'access_denied',
    requestId,
  })
  const { request, token, expiresAtMs, auditIndex } = granted
  if (token === undefined) throw new Error(`the tool ${request.tool.name} gave no token`)
  const { actions, target, task, ttlSeconds } = request
  return {
    accessToken: token.reveal(),
    expiresInSeconds: Math.max(0, Math.floor(expiresAtMs / 1000) - Math.floor(broker.ledger.nowMs() / 1000)),
    scope: actions.join(' '),
    ...(request.detailed && {
      authorizationDetails: [{ type: 'stint', actions, ...(target !== undefined && { target }), ...(task !== undefined && { task }), ttl_seconds: ttlSeconds }],
    }),
    auditIndex,
  }
}

/**
 * The same for a request that names the tool and takes whatever credential the tool's own clients take. With an idempotency
 * key the same request again ends what the first one gave before it gives anew: a credential is answered once. Throws
 * `invalid_input`, `invalid_target`, `denied`, `conflict`, `idempotency_mismatch`, `tool_failed`, `tool_unavailable`.
 */
export async function issueGrant(
  broker: Broker,
  credentials: ClientCredentials,
  wish: GrantWish,
  options: { readonly requestId: string; readonly idempotencyKey?: IdempotencyKey },
): Promise<Granted> {
  const ask: Ask = { resolve: (catalog) => resolveWish(wish, catalog), deniedCode: 'denied', requestId: options.requestId }
  const { idempotencyKey } = options
  if (idempotencyKey === undefined) return answerAsk(broker, credentials, ask)
  return guardRepeat(broker, credentials, ask, idempotencyKey, answerAsk)
}

/** Decides, records and, for an outside tool, mints. */
export async function answerAsk(broker: Broker, credentials: ClientCredentials, ask: Ask): Promise<Granted> {
  const answer = await withWorkload<Answer>(broker, credentials, (principal, view) => decideAndRecord(broker, principal, view, ask))
  if (answer instanceof BrokerError) throw answer
  return 'intent' in answer ? mintCredential(broker, answer) : answer
}
