import { decodeJwt, decodeProtectedHeader } from 'jose'
import { expect, test } from 'vitest'
import { getToken, issuer, startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { askToken, countGrants, details, eventsOf, post } from './oauth-requests.ts'

describeEngines('The token endpoint', (engine) => {
  test('gives a registered workload an RFC 9068 token for what its policy allows, and records it', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const answer = await askToken(broker, agent, { scope: 'tickets:read tickets:comment', resource: 'https://tickets.test' })
    expect(answer.status).toBe(200)
    // RFC 6749 §5.1.
    expect(answer.headers.get('pragma')).toBe('no-cache')
    const { access_token: token, ...rest } = answer.body
    expect(rest).toEqual({ token_type: 'Bearer', expires_in: 600, scope: 'tickets:read tickets:comment' })
    const compact = String(token)
    const { keys } = await jwksOf(broker)
    expect(decodeProtectedHeader(compact)).toEqual({ alg: 'ES256', typ: 'at+jwt', kid: keys[0]?.kid })
    const nowSeconds = broker.clock.nowMs() / 1000
    const claims = decodeJwt(compact)
    expect(claims).toEqual({
      iss: issuer,
      sub: 'spiffe://stint.test/triage-bot',
      client_id: 'spiffe://stint.test/triage-bot',
      aud: 'https://tickets.test',
      jti: expect.stringMatching(/^grant_[0-9a-z]{26}$/),
      iat: nowSeconds,
      exp: nowSeconds + 600,
      scope: 'tickets:read tickets:comment',
    })
    const event = await broker.lastEvent('grant.issued')
    expect(event).toMatchObject({
      actor: { kind: 'workload', id: 'triage-bot' },
      request_id: answer.requestId,
      workload: 'triage-bot',
      grant: claims.jti,
      tool: 'tickets',
      actions: ['tickets:read', 'tickets:comment'],
      ttl_seconds: 600,
      audience: 'https://tickets.test',
      expires_at: '2026-01-15T12:10:00.000Z',
      ends: 'introspection',
      proof_kid: agent.kid,
      token_kid: keys[0]?.kid,
      decision: { verdict: 'allow', reasons: ['support-works-on-tickets'] },
    })
    expect(answer.headers.get('stint-audit-index')).toBe(String(event['index']))
    // Neither the token nor the proof stands in the log (invariant 7).
    const written = JSON.stringify(await broker.events()) + broker.logLines.join('')
    for (const part of compact.split('.').slice(1)) expect(written).not.toContain(part)
  })

  test('echoes authorization details as granted, in the answer and in the token', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('books', { team: 'finance', alg: 'Ed25519' })
    const asked = { actions: ['payments:read'], target: 'acct-7', task: 'close-q3', ttl_seconds: 120 }
    const answer = await askToken(broker, agent, { authorization_details: details(asked) })
    const granted = [{ type: 'stint', ...asked }]
    expect(answer.body).toMatchObject({ expires_in: 120, scope: 'payments:read', authorization_details: granted })
    expect(decodeJwt(String(answer.body['access_token']))).toMatchObject({ scope: 'payments:read', authorization_details: granted })
    expect(await broker.lastEvent('grant.issued')).toMatchObject({ target: 'acct-7', task: 'close-q3', ttl_seconds: 120 })
  })

  test('names the time that it chose where the agent named none', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { body } = await askToken(broker, agent, { authorization_details: details({ actions: ['tickets:read'] }) })
    expect(body['authorization_details']).toEqual([{ type: 'stint', actions: ['tickets:read'], ttl_seconds: 600 }])
  })

  test('takes the client_id that is the assertion\'s own, and text beyond ASCII in what it does not read', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const assertion = agent.assert({ jti: 'ünïcode-日本', extra: '😀' })
    const parameters = { grant_type: 'client_credentials', scope: 'tickets:read', client_id: agent.clientId }
    const form = { ...agent.form(parameters), client_assertion: assertion }
    const headers = { 'content-type': 'Application/X-WWW-Form-URLEncoded; charset=UTF-8' }
    expect(await post(broker, 'token', { form, headers })).toMatchObject({ status: 200 })
    expect(await countGrants(broker)).toBe(1)
  })

  test('gives many agents their tokens at once, each with one entry of its own', async () => {
    const broker = await startBroker(engine)
    const agents = [await broker.register('bot-1'), await broker.register('bot-2'), await broker.register('bot-3', { alg: 'Ed25519' })]
    const answers = await Promise.all(
      Array.from({ length: 30 }, async (_, i) => {
        const agent = agents[i % agents.length]
        if (agent === undefined) throw new Error('no agent')
        return { agent, answer: await askToken(broker, agent, { scope: 'tickets:read' }) }
      }),
    )
    for (const { agent, answer } of answers) {
      const claims = decodeJwt(String(answer.body['access_token']))
      expect(claims.sub).toBe(agent.clientId)
      expect(await eventsOf(broker, answer)).toMatchObject([{ type: 'grant.issued', workload: agent.name, grant: claims.jti }])
    }
    expect(new Set(answers.map(({ answer }) => answer.headers.get('stint-audit-index'))).size).toBe(30)
  })

  test('keeps tokens and keys over a restart', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    const before = await jwksOf(broker)
    await broker.close()
    const again = await startBroker(engine, { beside: broker })
    expect(await jwksOf(again)).toEqual(before)
    expect((await post(again, 'introspect', { form: agent.form({ token }) })).body).toMatchObject({ active: true })
    await getToken(again, agent, { scope: 'tickets:read' })
  })
})

async function jwksOf(broker: Awaited<ReturnType<typeof startBroker>>) {
  const response = await broker.send('GET', '/oauth2/jwks')
  return (await response.json()) as { keys: { kid: string }[] }
}
