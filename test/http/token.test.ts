import { decodeJwt, decodeProtectedHeader } from 'jose'
import { expect, test } from 'vitest'
import { describeEngines } from '../harness.ts'
import { getToken, issuer, startBroker } from '../broker.ts'

describeEngines('The token endpoint', (engine) => {
  test('gives a registered workload an RFC 9068 token for what its policy allows, and records it', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const token = await getToken(broker, agent, { scope: 'tickets:read tickets:comment' })
    expect(token).toMatchObject({ token_type: 'Bearer', expires_in: 600, scope: 'tickets:read tickets:comment' })
    expect(decodeProtectedHeader(token.access_token)).toMatchObject({ alg: 'ES256', typ: 'at+jwt' })
    const claims = decodeJwt(token.access_token)
    expect(claims).toMatchObject({
      iss: issuer,
      sub: 'spiffe://stint.test/triage-bot',
      client_id: 'spiffe://stint.test/triage-bot',
      aud: 'https://tickets.test',
      scope: 'tickets:read tickets:comment',
    })
    expect(await broker.lastEvent('grant.issued')).toMatchObject({
      grant: claims.jti,
      workload: 'triage-bot',
      decision: { verdict: 'allow', reasons: ['support-works-on-tickets'] },
    })
  })
})
