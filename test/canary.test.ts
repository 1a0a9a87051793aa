import { createPrivateKey } from 'node:crypto'
import { expect, test } from 'vitest'
import { createRawRootKey } from '../src/crypto/root-key.ts'
import { routes } from '../src/http/app.ts'
import type { Route } from '../src/http/route.ts'
import { createAgent, getToken, issuer, startBroker, type TestAgent, type TestBroker } from './broker.ts'
import { listMisuses, type Sender } from './canary/misuse.ts'
import { dumpDatabase, readFiles } from './canary/places.ts'
import { makeMarked, search, watch, watchKey, type Canary } from './canary/secrets.ts'
import { startCompanyIssuer, type CompanyIssuer } from './company-issuer.ts'
import { createTestClock, describeEngines } from './harness.ts'
import { makeCode, proofForCode, proofForWorkload, redeem } from './http/proofs.ts'
import { listen } from './listen.ts'

const rootKey = Buffer.from('the root key of this test, 32 by')

/** Receives traces; everything that was posted. */
async function startCollector() {
  const received: Buffer[] = []
  const url = await listen((request, response) => {
    request.on('data', (piece: Buffer) => received.push(piece))
    request.on('end', () => response.end())
  })
  return { url, received }
}

interface Watched {
  readonly canaries: Canary[]
  /** Answers that may hold no secret, by their request. */
  readonly answers: Record<string, string>
}

/** Sends each route every misuse, as a stranger without and with a forged credential, as an admin and as a workload. */
async function misuse(broker: TestBroker, agent: TestAgent, { canaries, answers }: Watched): Promise<void> {
  const marked = makeMarked()
  canaries.push(...marked.canaries)
  const basic = Buffer.from(`${marked.texts.operator}:${marked.password}`).toString('base64')
  const senders: readonly Sender[] = [
    { kind: 'stranger' },
    ...[`Bearer ${marked.texts.operator}`, `Bearer ${marked.texts.session}`, `Bearer ${marked.texts.jwt}`, `Basic ${basic}`, marked.password].map((authorization) => ({ kind: 'stranger', authorization }) as const),
    { kind: 'operator', authorization: `Bearer ${broker.adminCredential}` },
    { kind: 'workload', agent },
  ]
  let answered = 0
  for (const sender of senders) {
    for (const route of routes) {
      // Whoever is not let in is refused before anything else is looked at.
      const misuses = listMisuses(route, sender, marked).slice(0, isLetIn(sender, route) ? undefined : 1)
      const responses = await Promise.all(misuses.map(({ method, path, ...options }) => broker.send(method, path, options)))
      const shown = await Promise.all(responses.map(showResponse))
      answers[`${sender.kind} ${route.method} ${route.path} ${answered++}`] = shown.join('\n')
    }
    for (const secret of Object.values(marked.texts)) {
      const { status, text } = await sendRaw(broker, 'GET', `/v1/${encodeURIComponent(secret)}`)
      expect(status).toBe(404)
      answers[`unknown ${secret.slice(0, 12)}`] = text
    }
  }
}

function isLetIn(sender: Sender, { access }: Route): boolean {
  if (sender.kind === 'operator') return true
  if (sender.kind === 'workload') return access === 'workload'
  return typeof access === 'string' && sender.authorization === undefined
}

async function showResponse(response: Response): Promise<string> {
  return `${response.status} ${JSON.stringify(Object.fromEntries(response.headers))} ${await response.text()}`
}

async function sendRaw(broker: TestBroker, method: string, path: string) {
  const response = await broker.send(method, path)
  return { status: response.status, text: await showResponse(response) }
}

/** Does with good credentials what they are for, so that the real ones have been everywhere, too. */
async function use(broker: TestBroker, { canaries, answers }: Watched): Promise<TestAgent> {
  const keep = (name: string, secret: string) => canaries.push(watch(name, secret))
  const keepKey = ({ name, privateKey }: TestAgent) => canaries.push(watchKey(`the private key of ${name}`, String(privateKey.export({ format: 'jwk' }).d)))
  const adminCall = async (method: string, path: string, json?: unknown) => {
    const response = await broker.sendAsAdmin(method, path, json)
    const body = (await response.json()) as Record<string, string>
    expect([path, response.status < 300 ? 'good' : body]).toEqual([path, 'good'])
    return body
  }
  keep('the admin credential', broker.adminCredential)
  const agent = await broker.register('bot')
  keepKey(agent)

  const auditor = await adminCall('POST', '/v1/operators', { name: 'ada', role: 'auditor' })
  const rotated = await adminCall('POST', '/v1/operators/ada/rotate', {})
  for (const { credential = '' } of [auditor, rotated]) keep('an operator credential', credential)
  await adminCall('POST', '/v1/operators/ada/revoke', { reason: 'left' })

  const { code } = await makeCode(broker, 'bot')
  keep('an enrolment code', code)
  const enrolled = await createAgent('bot', issuer, broker.clock)
  keepKey(enrolled)
  const proof = proofForCode(broker, enrolled, code)
  keep('a proof', proof)
  expect(await redeem(broker, code, proof)).toMatchObject({ status: 200 })
  const { code: open } = await makeCode(broker, 'bot')
  keep('an open enrolment code', open)

  const next = await createAgent('bot', issuer, broker.clock)
  keepKey(next)
  const rotation = { client_assertion: enrolled.assert(), proof: proofForWorkload(broker, next) }
  keep('the assertion of a rotation', rotation.client_assertion)
  keep('the proof of a rotation', rotation.proof)
  expect((await broker.send('POST', '/v1/keys/rotate', { json: rotation })).status).toBe(200)

  const assertion = agent.assert()
  keep('an assertion', assertion)
  const form = { ...agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' }), client_assertion: assertion }
  expect((await broker.send('POST', '/oauth2/token', { form })).status).toBe(200)
  expect((await broker.send('POST', '/oauth2/token', { form })).status).toBe(401)
  const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read' })
  keep('an access token', token)
  answers['introspection'] = await (await broker.send('POST', '/oauth2/introspect', { form: agent.form({ token }) })).text()
  answers['revocation'] = await (await broker.send('POST', '/oauth2/revoke', { form: agent.form({ token }) })).text()
  await adminCall('POST', '/v1/signing-keys/rotate', { now: true, reason: 'a drill' })
  for (const path of ['/v1/workloads', '/v1/operators', '/v1/policy', '/v1/workloads/bot/enrolments', '/v1/signing-keys', '/v1/operator']) {
    answers[path] = JSON.stringify(await adminCall('GET', path))
  }
  return agent
}

/** Signs a person in, twice with one token, and out. */
async function signIn(broker: TestBroker, company: CompanyIssuer, { canaries }: Watched): Promise<void> {
  const idToken = await company.sign({ groups: ['audit'] })
  canaries.push(watch('an ID token', idToken))
  const begun = await broker.send('POST', '/v1/sessions', { json: { id_token: idToken } })
  expect(begun.status).toBe(201)
  const { credential } = (await begun.json()) as { credential: string }
  canaries.push(watch('a session credential', credential))
  expect((await broker.send('POST', '/v1/sessions', { json: { id_token: idToken } })).status).toBe(401)
  expect((await broker.sendAs(credential, 'GET', '/v1/operator')).status).toBe(200)
  expect((await broker.sendAs(credential, 'DELETE', '/v1/session')).status).toBe(200)
}

/** Whatever Stint keeps or tells: nothing of it may hold a secret. */
async function collect(broker: TestBroker, { answers }: Watched): Promise<Record<string, Buffer | string>> {
  await broker.broker.refusals.flush(true)
  const places: Record<string, Buffer | string> = { ...answers }
  for (const path of ['/metrics', '/v1/audit?limit=1000', '/v1/audit/export', '/v1/audit/export?format=csv', '/v1/audit/proof?first=0&last=0', '/openapi.json', '/log/checkpoint', '/log/key', '/log/tile/0/000.p/1', '/log/tile/entries/000.p/1']) {
    const response = await broker.sendAsAdmin('GET', path)
    expect([path, response.status]).toEqual([path, 200])
    places[path] = await response.text()
  }
  return { ...places, log: broker.logLines.join(''), ...(await dumpDatabase(broker)), ...readFiles(broker) }
}

describeEngines('Secrets', (engine) => {
  test('that come by any route stand nowhere afterwards: not in database, log, metrics, traces, errors or export', { timeout: 120_000 }, async () => {
    const collector = await startCollector()
    const clock = createTestClock()
    const company = await startCompanyIssuer(clock)
    const broker = await startBroker(engine, { rootKey: createRawRootKey(rootKey), clock, otlpUrl: collector.url, signIn: company.settings })
    const watched: Watched = { canaries: [{ name: 'the root key', hearts: [rootKey] }], answers: {} }
    const agent = await use(broker, watched)
    await signIn(broker, company, watched)
    const { sealer, database } = broker.broker
    for (const { kid, sealed_private: ciphertext, sealed_version: version } of await database.read.selectFrom('signing_key').selectAll().execute()) {
      if (ciphertext === null || version === null) continue
      const opened = Buffer.from(sealer.open({ version, ciphertext }, { table: 'signing_key', row: kid })).toString()
      // Those that sign tokens are JWKs, the one that signs checkpoints is a PEM.
      const { d = '' } = opened.startsWith('{') ? (JSON.parse(opened) as { d: string }) : createPrivateKey(opened).export({ format: 'jwk' })
      watched.canaries.push(watchKey('the private half of a signing key', d))
    }
    await misuse(broker, agent, watched)
    const places = await collect(broker, watched)
    await broker.close()
    places['traces'] = Buffer.concat(collector.received)

    expect(search(places, watched.canaries)).toEqual([])
    // The places are what they are taken for: what may stand there does.
    const { log = '', traces = '', '/metrics': metrics = '', '/v1/audit/export': exported = '' } = places
    expect(log.toString()).toContain('"message":"request"')
    expect(traces.toString('latin1')).toContain('/oauth2/token')
    expect(metrics.toString()).toContain('stint_refusals_total')
    expect(exported.toString()).toContain(agent.kid)
    expect(Buffer.from(places['table workload_key'] ?? '').toString()).toContain(agent.publicJwk['x'])
    expect(watched.canaries.map(({ name }) => name)).toContain('the private half of a signing key')
  })

  test('would be found, had they been kept', async () => {
    const broker = await startBroker(engine)
    const { texts, canaries } = makeMarked()
    // An admin who writes a credential into a reason has it in the log for ever.
    await broker.register('bot')
    const reason = `see ${texts.operator}`
    expect((await broker.sendAsAdmin('POST', '/v1/workloads/bot/suspend', { reason })).status).toBe(200)
    broker.broker.log.info('a planted one', { token: Buffer.from(texts.code).toString('base64') })
    const found = search(await collect(broker, { canaries: [], answers: {} }), canaries).map(({ canary, place }) => `${canary} in ${place}`)
    expect(found).toEqual(
      expect.arrayContaining([
        'a forged operator credential in /v1/audit?limit=1000',
        'a forged operator credential in /v1/audit/export',
        'a forged operator credential in /v1/audit/export?format=csv',
        'a forged operator credential in table audit_event',
        'a forged code in log',
        ...(engine === 'sqlite' ? ['a forged operator credential in file stint.db-wal'] : []),
      ]),
    )
  })
})
