import { describe, expect, test } from 'vitest'
import { assertionType, getToken, issuer, startBroker, type SendOptions, type TestAgent } from '../broker.ts'
import { askToken, countGrants, post } from './oauth-requests.ts'

type Malformed = [(agent: TestAgent, form: Record<string, string>) => SendOptions & { query?: string }, string, RegExp]

const encode = (form: Record<string, string>) => new URLSearchParams(form).toString()
const raw = (suffix: string) => (_: TestAgent, form: Record<string, string>) => ({ form: encode(form) + suffix })
const wrong = 'invalid_request'

/** Requests of the wrong form: refused before anybody looks at who sent them. */
const forms: Record<string, Malformed> = {
  'credentials in the query': [(_, form) => ({ query: `?${encode(form)}`, form: '' }), wrong, /belong in the body, not in the URL/],
  'a parameter in the query': [(_, form) => ({ query: '?scope=tickets:read', form }), wrong, /belong in the body/],
  'an empty query': [(_, form) => ({ query: '?', form }), wrong, /belong in the body/],
  'scope twice': [raw('&scope=tickets%3Aread'), wrong, /scope was sent twice/],
  'client_assertion twice': [
    (agent, form) => ({ form: `${encode(form)}&client_assertion=${agent.assert()}` }),
    wrong,
    /client_assertion was sent twice/,
  ],
  'grant_type twice': [raw('&grant_type=client_credentials'), wrong, /grant_type was sent twice/],
  'resource twice': [raw('&resource=https%3A%2F%2Ftickets.test&resource=https%3A%2F%2Ftickets.test'), wrong, /resource was sent twice/],
  'an unknown parameter': [raw('&audience=x'), wrong, /parameter audience is not taken here/],
  'a parameter in other case': [raw('&Scope=x'), wrong, /parameter Scope is not taken/],
  'a list of PHP\'s': [raw('&scope%5B%5D=x'), wrong, /is not taken/],
  'a member of the prototype': [raw('&__proto__=x'), wrong, /__proto__ is not taken/],
  'a name that would break out of a line': [raw('&%22%5c%0d%0a%c3%a9=x'), wrong, /^The parameter '\?\?\?\? is not taken here/],
  'a username': [raw('&username=x'), wrong, /username is not taken/],
  'a client_secret beside the assertion': [raw('&client_secret=x'), wrong, /client_secret is not taken here; authenticate by private_key_jwt/],
  'an empty parameter': [raw('&resource='), wrong, /resource is empty: give it a value or leave it out/],
  'an empty scope': [(_, form) => ({ form: encode({ ...form, scope: '' }) }), wrong, /scope is empty/],
  'a name without a value': [raw('&resource'), wrong, /name=value/],
  'an ampersand too many': [raw('&'), wrong, /name=value/],
  'bad percent-encoding': [raw('&resource=%zz'), wrong, /form-encoded UTF-8/],
  'half a percent-encoding': [raw('&resource=%4'), wrong, /form-encoded UTF-8/],
  'percent-encoded bytes that are no UTF-8': [raw('&resource=%ff%fe'), wrong, /form-encoded UTF-8/],
  'a percent-encoded surrogate': [raw('&resource=%ed%a0%80'), wrong, /form-encoded UTF-8/],
  'an overlong slash': [raw('&resource=%c0%af'), wrong, /form-encoded UTF-8/],
  'JSON': [(_, form) => ({ json: form }), wrong, /application\/x-www-form-urlencoded/],
  'a multipart type': [(_, form) => ({ form, headers: { 'content-type': 'multipart/form-data; boundary=x' } }), wrong, /x-www-form-urlencoded/],
  'no content type': [(_, form) => ({ form, headers: { 'content-type': '' } }), wrong, /x-www-form-urlencoded/],
  'another charset': [
    (_, form) => ({ form, headers: { 'content-type': 'application/x-www-form-urlencoded; charset=utf-16' } }),
    wrong,
    /x-www-form-urlencoded/,
  ],
  'no grant_type': [(_, { grant_type: _left, ...form }) => ({ form }), wrong, /grant_type is missing: send grant_type=client_credentials/],
  'a password grant': [(_, form) => ({ form: { ...form, grant_type: 'password' } }), 'unsupported_grant_type', /Only grant_type=client_credentials/],
  'a grant in other case': [(_, form) => ({ form: { ...form, grant_type: 'Client_Credentials' } }), 'unsupported_grant_type', /Only/],
  'a JWT bearer grant': [
    (_, form) => ({ form: { ...form, grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer' } }),
    'unsupported_grant_type',
    /Only/,
  ],
  'no assertion type': [(_, { client_assertion_type: _left, ...form }) => ({ form }), wrong, /client_assertion_type must be urn:/],
  'a SAML assertion': [
    (_, form) => ({ form: { ...form, client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:saml2-bearer' } }),
    wrong,
    /must be urn:ietf:params:oauth:client-assertion-type:jwt-bearer/,
  ],
  'an assertion type without an assertion': [
    () => ({ form: { grant_type: 'client_credentials', client_assertion_type: assertionType } }),
    wrong,
    /client_assertion is missing/,
  ],
  'Basic beside the assertion': [(_, form) => ({ form, headers: { authorization: 'Basic eDp5' } }), wrong, /authenticates twice/],
  'Bearer beside the assertion': [(_, form) => ({ form, headers: { authorization: 'Bearer x' } }), wrong, /authenticates twice/],
  'an empty Authorization beside the assertion': [(_, form) => ({ form, headers: { authorization: '' } }), wrong, /authenticates twice/],
}

describe('A request of the wrong form', () => {
  test('is refused with the reason, changes nothing, and leaves its assertion as it was', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('triage-bot')
    const before = (await broker.events()).length
    let sent = 0
    for (const [name, [make, error, description]] of Object.entries(forms)) {
      const form = agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' })
      const { query = '', ...options } = make(agent, form)
      const response = await broker.send('POST', `/oauth2/token${query}`, options)
      expect(response.headers.get('cache-control'), name).toBe('no-store')
      const body: unknown = await response.json()
      expect({ status: response.status, body }, name).toEqual({
        status: 400,
        body: { error, error_description: expect.stringMatching(description) },
      })
      expect(await broker.events(), name).toHaveLength(before + sent)
      expect((await post(broker, 'token', { form })).status, name).toBe(200)
      sent++
    }
    broker.clock.advance(60_000)
    await broker.broker.refusals.flush()
    expect((await broker.events()).filter(({ type }) => type !== 'grant.issued')).toHaveLength(before)
  })

  test('that is no UTF-8 is refused', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('triage-bot')
    const form = encode(agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' }))
    const response = await broker.app.request('/oauth2/token', {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: Buffer.concat([Buffer.from(`${form}&resource=`), Buffer.from([0xff])]),
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toEqual({ error: 'invalid_request', error_description: 'The body is not UTF-8.' })
    expect(await countGrants(broker)).toBe(0)
  })

  test('that is too large is refused in OAuth\'s form', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('triage-bot')
    const answer = await askToken(broker, agent, { scope: 'x'.repeat(70_000) })
    expect(answer).toMatchObject({ status: 413, body: { error: 'invalid_request' } })
  })

  test('says the same on the other endpoints', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('triage-bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
    const before = (await broker.events()).length
    const cases: [Record<string, string>, RegExp][] = [
      [agent.form({}), /token is missing/],
      [agent.form({ token: '' }), /token is empty/],
      [agent.form({ token, token_type_hint: 'id_token' }), /token_type_hint must be access_token or refresh_token/],
      [agent.form({ token, scope: 'tickets:read' }), /scope is not taken here/],
      [{ ...agent.form({ token }), client_assertion_type: issuer }, /client_assertion_type must be/],
    ]
    for (const endpoint of ['introspect', 'revoke'] as const) {
      for (const [form, description] of cases) {
        const answer = await post(broker, endpoint, { form })
        expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_request', error_description: expect.stringMatching(description) } })
      }
    }
    expect(await broker.events()).toHaveLength(before)
  })
})
