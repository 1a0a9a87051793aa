import { calculateJwkThumbprint } from 'jose'
import { describe, expect, test } from 'vitest'
import { getToken, startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'

describe('The metadata (RFC 8414)', () => {
  test('says what this broker does, and nothing that it does not', async () => {
    const broker = await startBroker('sqlite')
    const response = await broker.send('GET', '/.well-known/oauth-authorization-server')
    expect(response.status).toBe(200)
    expect(response.headers.get('cache-control')).toBe('public, max-age=300')
    expect(response.headers.get('content-type')).toBe('application/json')
    expect(response.headers.get('x-content-type-options')).toBe('nosniff')
    const algorithms = ['ES256', 'Ed25519', 'EdDSA']
    expect(await response.json()).toEqual({
      issuer: 'https://stint.test',
      token_endpoint: 'https://stint.test/oauth2/token',
      jwks_uri: 'https://stint.test/oauth2/jwks',
      introspection_endpoint: 'https://stint.test/oauth2/introspect',
      revocation_endpoint: 'https://stint.test/oauth2/revoke',
      response_types_supported: [],
      grant_types_supported: ['client_credentials'],
      authorization_details_types_supported: ['stint'],
      token_endpoint_auth_methods_supported: ['private_key_jwt'],
      token_endpoint_auth_signing_alg_values_supported: algorithms,
      introspection_endpoint_auth_methods_supported: ['private_key_jwt'],
      introspection_endpoint_auth_signing_alg_values_supported: algorithms,
      revocation_endpoint_auth_methods_supported: ['private_key_jwt'],
      revocation_endpoint_auth_signing_alg_values_supported: algorithms,
      stint_trust_domain: 'stint.test',
    })
  })

  test('leads to addresses that are there, each for its own method', async () => {
    const broker = await startBroker('sqlite')
    const metadata = (await (await broker.send('GET', '/.well-known/oauth-authorization-server')).json()) as Record<string, unknown>
    const addresses = Object.entries(metadata).filter(([name]) => /_endpoint$|_uri$/.test(name))
    expect(addresses).toHaveLength(4)
    for (const [name, address] of addresses) {
      const { origin, pathname } = new URL(String(address))
      expect(origin).toBe(metadata['issuer'])
      const [right, wrong] = name.endsWith('_uri') ? ['GET', 'POST'] : ['POST', 'GET']
      const statuses = await Promise.all([right, wrong].map(async (method) => (await broker.send(method, pathname)).status))
      expect(statuses, name).toEqual([name.endsWith('_uri') ? 200 : 400, 405])
      expect((await broker.send(wrong, pathname)).headers.get('allow')).toContain(right)
    }
  })
})

describeEngines('The JWKS (RFC 7517)', (engine) => {
  test('holds the public half of the key that signs, the same on every process', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const response = await broker.send('GET', '/oauth2/jwks')
    expect(response.status).toBe(200)
    expect(response.headers.get('cache-control')).toBe('public, max-age=300')
    expect(response.headers.get('content-type')).toBe('application/jwk-set+json')
    const { keys } = (await response.json()) as { keys: Record<string, string>[] }
    const [key = {}] = keys
    const text: unknown = expect.any(String)
    expect(keys).toEqual([{ kty: 'EC', crv: 'P-256', x: text, y: text, use: 'sig', alg: 'ES256', kid: text }])
    expect(key['kid']).toBe(await calculateJwkThumbprint(key))
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    expect(JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString())).toMatchObject({ kid: key['kid'] })
    if (engine === 'postgres') {
      const other = await startBroker(engine, { beside: broker })
      expect(await (await other.send('GET', '/oauth2/jwks')).json()).toEqual({ keys })
    }
  })

  test('never holds a private member; neither does the log, nor an answer, nor the database unsealed', async () => {
    const broker = await startBroker(engine)
    const agent = await broker.register('triage-bot')
    const paths = ['/oauth2/jwks', '/.well-known/oauth-authorization-server', '/v1/workloads', '/v1/audit']
    const bodies = await Promise.all(paths.map(async (path) => (await broker.sendAsAdmin('GET', path)).text()))
    await getToken(broker, agent, { scope: 'tickets:read' })
    const rows = await broker.broker.database.read.selectFrom('signing_key').selectAll().execute()
    expect(rows.map(({ use }) => use).toSorted()).toEqual(['checkpoint', 'token'])
    const columns = rows.flatMap((row) => Object.values(row).map(readColumn))
    const texts = [...bodies, ...broker.logLines, JSON.stringify(await broker.events()), ...columns]
    for (const text of texts) expect(text).not.toMatch(/\\?"(?:d|p|q|dp|dq|qi|oth|k)\\?"\s*:|PRIVATE KEY/)
  })
})

/** A column as text; bytes as they stand, so that JSON in them would show. */
function readColumn(value: unknown): string {
  return value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : JSON.stringify(value)
}
