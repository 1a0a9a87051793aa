import { signAccessToken } from '../crypto/access-token.ts'
import { spiffeId } from '../identity/workload.ts'
import { formatTime } from '../kernel/clock.ts'
import { newId } from '../kernel/ids.ts'
import { Secret } from '../kernel/secret.ts'
import type { Place } from '../storage/change.ts'
import type { Broker } from './broker.ts'
import type { Asked, Decided, Granted, Prepared } from './request.ts'

/** Prepares a token that Stint signs itself: one transaction, for nothing outside has to be asked. */
export function prepareToken(broker: Broker, { view, principal: { workload }, request, ask }: Decided, asked: Asked): Prepared {
  const nowMs = broker.ledger.nowMs()
  const id = newId('grant', nowMs, broker.random)
  const iatSeconds = Math.floor(nowMs / 1000)
  const expSeconds = iatSeconds + request.ttlSeconds
  const expiresAt = formatTime(expSeconds * 1000)
  const { tool, actions, target, task } = request
  const audience = tool.audience
  if (audience === undefined) throw new Error(`the tool ${tool.name} has no audience`)
  const key = view.keyring.signingKey(nowMs)
  const subject = spiffeId(broker.trustDomain, workload.name)
  const scope = actions.join(' ')
  // What a resource server must know beside the scope: asked for as such, or else it would be lost.
  const authorizationDetails =
    request.detailed || target !== undefined
      ? [{ type: 'stint', actions, ...(target !== undefined && { target }), ...(task !== undefined && { task }), ttl_seconds: request.ttlSeconds }]
      : undefined
  const renews = ask.renewal && { renews: ask.renewal.first }
  const also = ask.guard?.(workload.name).also?.(id)
  // Signed while the commit is under way; given only after it (invariant 1).
  const signing = signAccessToken(key, {
    iss: broker.issuer,
    sub: subject,
    aud: audience,
    clientId: subject,
    jti: id,
    iatSeconds,
    expSeconds,
    scope,
    ...(authorizationDetails !== undefined && { authorizationDetails }),
  })
  signing.catch(() => undefined)
  return {
    change: {
      grant: {
        id,
        workload: workload.name,
        tool: tool.name,
        actions: JSON.stringify(actions),
        target: target ?? null,
        task: task ?? null,
        audience,
        expires_at: expiresAt,
      },
      events: [{ type: 'grant.issued', ...asked, ...renews, grant: id, audience, expires_at: expiresAt, ends: 'introspection', token_kid: key.kid }],
      ...(also && { also }),
    },
    async answer({ index }: Place): Promise<Granted> {
      const token = new Secret(await signing)
      broker.meter.count('tokens_issued', { tool: tool.name })
      return {
        grant: id,
        request,
        issuedAtMs: iatSeconds * 1000,
        expiresAtMs: expSeconds * 1000,
        effect: 'introspection',
        ...renews,
        credential: { access_token: token, token_type: 'Bearer', expires_in: Math.max(0, expSeconds - Math.floor(broker.ledger.nowMs() / 1000)), scope },
        environment: { [`${tool.name.toUpperCase().replaceAll('-', '_')}_TOKEN`]: token },
        token,
        auditIndex: index,
      }
    },
  }
}
