import { randomBytes, randomUUID, type KeyObject, generateKeyPairSync, sign } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK } from 'jose'
import { expect, onTestFinished } from 'vitest'
import type { AuditEvent } from '../src/audit/event.ts'
import { applyPolicy } from '../src/broker/apply-policy.ts'
import { createFirstOperator } from '../src/broker/operators.ts'
import { compose, unlimited, type Composition, type Parts } from '../src/compose.ts'
import { createRawRootKey } from '../src/crypto/root-key.ts'
import type { Role } from '../src/identity/operator.ts'
import { spiffeId } from '../src/identity/workload.ts'
import { formatTime } from '../src/kernel/clock.ts'
import type { Engine } from '../src/storage/engine.ts'
import { createTestClock, createTestDatabase, createTestLog, type TestClock, type TestDatabase } from './harness.ts'

export const issuer = 'https://stint.test'
export const trustDomain = 'stint.test'
export const dayMs = 86_400_000

/** A small policy set with one rule of each kind, apart from the samples so that tests do not hang on their wording. */
export const testPolicies: ReadonlyMap<string, string> = new Map([
  [
    'tools/tickets.yaml',
    `tool: tickets
connector: jwt
audience: https://tickets.test
sensitivity: low
ttl: { default: 10m, max: 1h }
actions: { read: {}, comment: {}, purge: { sensitivity: high } }
introspectors: [tickets-api]
`,
  ],
  [
    'tools/payments.yaml',
    `tool: payments
connector: jwt
audience: https://payments.test
sensitivity: high
ttl: { default: 5m, max: 15m }
target: { name: account, required: true, pattern: "acct-[0-9]+" }
actions: { read: {}, refund: {} }
`,
  ],
  [
    'rules.cedar',
    `@id("support-works-on-tickets")
permit (principal in Team::"support", action in [Action::"tickets:read", Action::"tickets:comment"], resource in Tool::"tickets")
when { context.ttl <= duration("30m") };

@id("finance-reads-payments")
permit (principal in Team::"finance", action == Action::"payments:read", resource in Tool::"payments");

@id("refunds-need-a-person")
permit (principal in Team::"finance", action == Action::"payments:refund", resource in Tool::"payments")
when { context.approvals >= 1 };

@id("sandbox-keeps-away")
forbid (principal, action in Action::"sensitivity:high", resource)
when { principal.stage == "sandbox" };
`,
  ],
])

export interface TestBroker extends Composition {
  readonly database: TestDatabase
  readonly clock: TestClock
  readonly logLines: string[]
  /** An admin's bearer credential. */
  readonly adminCredential: string
  /** A request to the app; `form` and `json` set the body and its type. */
  send(method: string, path: string, options?: SendOptions): Promise<Response>
  /** The same with the admin's credential. */
  sendAsAdmin(method: string, path: string, json?: unknown): Promise<Response>
  /** The same with any operator's credential. */
  sendAs(credential: string, method: string, path: string, json?: unknown): Promise<Response>
  /** Makes an operator of this role, by the API, and gives its credential; named after its role unless told otherwise. */
  createOperator(role: Role, options?: { readonly name?: string; readonly valid_days?: number }): Promise<string>
  /** Registers a workload with a key of its own. */
  register(name: string, options?: Partial<Registration>): Promise<TestAgent>
  /** Every event in the log so far, oldest first. */
  events(): Promise<(AuditEvent & { index: number; time: string })[]>
  /** The newest event, which must be of this type. */
  lastEvent(type: AuditEvent['type']): Promise<Record<string, unknown>>
}

export interface SendOptions {
  readonly form?: Readonly<Record<string, string>> | string
  readonly json?: unknown
  readonly headers?: Readonly<Record<string, string>>
  /** The address of the connection by which it comes, as a server would hand it over. */
  readonly from?: string
}

interface Registration {
  readonly environment: string
  readonly stage: string
  readonly team: string
  readonly tags: readonly string[]
  readonly reviewAt: string
  readonly alg: 'ES256' | 'Ed25519'
}

export type BrokerOptions = Partial<Pick<Parts, 'issuer' | 'rootKey' | 'previousRootKey' | 'development' | 'clock' | 'limits' | 'proxies' | 'signIn' | 'otlpUrl' | 'policyFolder' | 'anchors' | 'env' | 'pass' | 'connectors'>> & {
  /** Another process on the same database: shares clock and root key, and makes no operator of its own. */
  readonly beside?: TestBroker
  readonly policies?: ReadonlyMap<string, string> | 'none'
  /** The clock that the test moves, where it has to exist before the broker. */
  readonly testClock?: TestClock
}

const rootKeyOfTests = createRawRootKey(randomBytes(32))

/** A broker on a fresh database of the engine, with the test policies in force and an admin; closed after the test. */
export async function startBroker(engine: Engine, options: BrokerOptions = {}): Promise<TestBroker> {
  const { beside } = options
  const database = beside?.database ?? (await createTestDatabase(engine))
  const clock = beside?.clock ?? options.testClock ?? createTestClock()
  const { log, lines } = createTestLog()
  const composition = await compose({
    issuer: options.issuer ?? issuer,
    trustDomain,
    database: await database.open(),
    rootKey: options.rootKey ?? rootKeyOfTests,
    ...(options.previousRootKey && { previousRootKey: options.previousRootKey }),
    log,
    development: options.development ?? false,
    limits: options.limits ?? unlimited,
    ...(options.proxies && { proxies: options.proxies }),
    ...(options.signIn && { signIn: options.signIn }),
    ...(options.otlpUrl !== undefined && { otlpUrl: options.otlpUrl }),
    ...(options.anchors && { anchors: options.anchors }),
    ...(options.policyFolder && { policyFolder: options.policyFolder }),
    ...(options.env && { env: options.env }),
    ...(options.pass && { pass: options.pass }),
    ...(options.connectors && { connectors: options.connectors }),
    clock: options.clock ?? clock,
    random: randomBytes,
  })
  let closing: Promise<void> | undefined
  const close = () => (closing ??= composition.close())
  onTestFinished(close)
  const { broker, app } = composition
  const caller = { actor: { kind: 'stint', id: 'test' } } as const
  const { policies = testPolicies } = options
  if (beside === undefined && policies !== 'none') await applyPolicy(broker, caller, policies)
  const adminCredential = beside?.adminCredential ?? (await createFirstOperator(broker, caller, 'root')).credential.reveal()

  async function send(method: string, path: string, { form, json, headers = {}, from }: SendOptions = {}): Promise<Response> {
    const body = form === undefined ? (json === undefined ? undefined : JSON.stringify(json)) : encodeForm(form)
    const type = form === undefined ? 'application/json' : 'application/x-www-form-urlencoded'
    const init = {
      method,
      headers: { ...(body !== undefined && { 'content-type': type }), ...headers },
      ...(body !== undefined && { body }),
    }
    if (from === undefined) return app.request(path, init)
    return app.request(path, init, { incoming: { url: path, headers, rawHeaders: [], socket: { remoteAddress: from } } })
  }
  const sendAs = (credential: string, method: string, path: string, json?: unknown) =>
    send(method, path, { ...(json !== undefined && { json }), headers: { authorization: `Bearer ${credential}` } })
  const sendAsAdmin = (method: string, path: string, json?: unknown) => sendAs(adminCredential, method, path, json)

  async function events() {
    const rows = await broker.database.read.selectFrom('audit_event').select('body').orderBy('idx').execute()
    return rows.map((row) => JSON.parse(row.body) as AuditEvent & { index: number; time: string })
  }

  return {
    ...composition,
    close,
    database,
    clock,
    logLines: lines,
    adminCredential,
    send,
    sendAsAdmin,
    sendAs,
    async createOperator(role, { name = role, ...lifetime } = {}) {
      const response = await sendAsAdmin('POST', '/v1/operators', { name, role, ...lifetime })
      if (response.status !== 201) throw new Error(`no operator was made: ${await response.text()}`)
      return ((await response.json()) as { credential: string }).credential
    },
    events,
    async lastEvent(type) {
      const last = (await events()).at(-1)
      expect(last?.type).toBe(type)
      return { ...last }
    },
    async register(name, registration = {}) {
      const agent = await createAgent(name, options.issuer ?? issuer, clock, registration.alg)
      const response = await sendAsAdmin('POST', '/v1/workloads', {
        name,
        environment: registration.environment ?? 'test',
        stage: registration.stage ?? 'pilot',
        owner: { team: registration.team ?? 'support', contact: 'oncall:support' },
        purpose: 'Runs in a test',
        tags: registration.tags ?? [],
        review_at: registration.reviewAt ?? formatTime(clock.nowMs() + 90 * dayMs),
        jwks: { keys: [agent.publicJwk] },
      })
      if (response.status !== 201) throw new Error(`registration failed: ${await response.text()}`)
      return agent
    },
  }
}

function encodeForm(form: Readonly<Record<string, string>> | string): string {
  return typeof form === 'string' ? form : new URLSearchParams(form).toString()
}

export const assertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

/** A workload's side: its key, and the assertions that it signs, by hand so that a test can make them as wrong as it likes. */
export interface TestAgent {
  readonly name: string
  readonly clientId: string
  readonly kid: string
  readonly alg: 'ES256' | 'Ed25519'
  readonly privateKey: KeyObject
  readonly publicJwk: Record<string, string>
  /** A good assertion, with single claims or header members replaced (`undefined` leaves one out). */
  assert(claims?: Record<string, unknown>, header?: Record<string, unknown>): string
  /** The form parameters of a token request with a fresh assertion. */
  form(parameters: Readonly<Record<string, string>>): Record<string, string>
}

export async function createAgent(
  name: string,
  audience: string,
  clock: TestClock,
  alg: 'ES256' | 'Ed25519' = 'ES256',
): Promise<TestAgent> {
  const { privateKey, publicKey } =
    alg === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519')
  const jwk = (await exportJWK(publicKey)) as Record<string, string>
  const kid = await calculateJwkThumbprint(jwk)
  const clientId = spiffeId(trustDomain, name)
  const assert: TestAgent['assert'] = (claims = {}, header = {}) => {
    const nowSeconds = Math.floor(clock.nowMs() / 1000)
    return signJws(
      { alg, kid, ...header },
      { iss: clientId, sub: clientId, aud: audience, jti: randomUUID(), iat: nowSeconds, exp: nowSeconds + 60, ...claims },
      privateKey,
    )
  }
  return {
    name,
    clientId,
    kid,
    alg,
    privateKey,
    publicJwk: { ...jwk, kid, alg },
    assert,
    form: (parameters) => ({ client_assertion_type: assertionType, client_assertion: assert(), ...parameters }),
  }
}

/** A compact JWS of exactly this header and payload: text goes in as it stands, anything else as its JSON. */
export function signJws(header: unknown, payload: unknown, key: KeyObject): string {
  const encode = (part: unknown) => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url')
  const input = [header, payload].map(encode).join('.')
  const digest = key.asymmetricKeyType === 'ec' ? 'sha256' : null
  const signature = sign(digest, Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

/** Asks for a token by scope and returns the parsed answer, which must be a success. */
export async function getToken(broker: TestBroker, agent: TestAgent, parameters: Readonly<Record<string, string>>) {
  const response = await broker.send('POST', '/oauth2/token', {
    form: agent.form({ grant_type: 'client_credentials', ...parameters }),
  })
  const body = (await response.json()) as { access_token: string; expires_in: number; scope: string; token_type: string }
  if (response.status !== 200) throw new Error(`no token: ${JSON.stringify(body)}`)
  return body
}
