import { createHmac, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import type { RefusalReason } from '../../src/identity/refusal.ts'
import { issuer, signJws, type TestAgent } from '../broker.ts'

/** Who takes part: workloads in every standing. */
export interface Cast {
  /** An ES256 and an Ed25519 workload in good order. */
  readonly agent: TestAgent
  readonly edwards: TestAgent
  readonly suspended: TestAgent
  readonly retired: TestAgent
  readonly overdue: TestAgent
  /** Never registered. */
  readonly unknown: TestAgent
  /** `agent`, but with a key that was taken away. */
  readonly rotatedOut: TestAgent
  /** An access token of `agent`. */
  readonly accessToken: string
  readonly nowSeconds: number
}

/**
 * The assertion that a stranger sends, or his client parameters (an empty `client_assertion`: none); the reason that the
 * log gives; and whose name it counts as claimed, if that is looked at at all.
 */
type Case = [send: (cast: Cast) => string | Record<string, string>, reason: RefusalReason, claimed?: Registered]
type Registered = 'agent' | 'edwards' | 'suspended' | 'retired' | 'overdue'

const header = (members: Record<string, unknown>): Case => [({ agent }) => agent.assert({}, members), 'header_not_allowed']
// What is wrong with the text itself is found before a name is looked up.
const foundInText: readonly RefusalReason[] = [
  'claims_malformed',
  'expiry_missing',
  'jti_missing',
  'type_not_allowed',
  'issuer_mismatch',
  'subject_mismatch',
]
const claims = (make: (cast: Cast) => Record<string, unknown>, reason: RefusalReason): Case => {
  const send = (cast: Cast) => cast.agent.assert(make(cast))
  return foundInText.includes(reason) ? [send, reason] : [send, reason, 'agent']
}

/** An assertion whose payload is this text, so that it can hold what JSON.stringify does not write. */
function withPayload(make: (payload: string) => string): Case[0] {
  return ({ agent }) => {
    const [, payload = ''] = agent.assert().split('.')
    return signJws({ alg: agent.alg, kid: agent.kid }, make(Buffer.from(payload, 'base64url').toString()), agent.privateKey)
  }
}

/** Algorithm confusion (RFC 8725 §2.1): a MAC whose secret is the public key, in one of its spellings. */
function withMac(secretOf: (agent: TestAgent) => string | Buffer): Case {
  return [
    ({ agent }) => {
      const input = agent.assert({}, { alg: 'HS256' }).split('.').slice(0, 2).join('.')
      return `${input}.${createHmac('sha256', secretOf(agent)).update(input).digest('base64url')}`
    },
    'algorithm_not_allowed',
  ]
}

/** A good assertion under another signature. In DER, a right one would still be of the wrong form (RFC 7518 §3.4). */
function withSignature(make: (agent: TestAgent, input: string) => Buffer): Case {
  const send = ({ agent }: Cast) => {
    const input = agent.assert().split('.').slice(0, 2).join('.')
    return `${input}.${make(agent, input).toString('base64url')}`
  }
  return [send, 'signature_invalid', 'agent']
}


/** Every way of not being believed, by what it is called. */
export const strangers: Readonly<Record<string, Case>> = {
  'no assertion': [() => ({ client_assertion: '' }), 'assertion_missing'],
  'a client_id alone': [({ agent }) => ({ client_assertion: '', client_id: agent.clientId }), 'assertion_missing'],
  'no JWT': [() => 'secret', 'assertion_malformed'],
  'two parts': [({ agent }) => agent.assert().split('.').slice(0, 2).join('.'), 'assertion_malformed'],
  'four parts': [({ agent }) => `${agent.assert()}.x`, 'assertion_malformed'],
  'a space behind': [({ agent }) => `${agent.assert()} `, 'assertion_malformed'],
  'padding': [({ agent }) => `${agent.assert()}=`, 'assertion_malformed'],
  'more than 8 KiB': [({ agent }) => agent.assert({ extra: 'x'.repeat(8192) }), 'assertion_malformed'],
  'a claim twice': [withPayload((payload) => payload.replace('{', '{"sub":"x",')), 'assertion_malformed'],

  'alg none': [({ agent }) => agent.assert({}, { alg: 'none' }).replace(/\.[^.]*$/, '.'), 'algorithm_not_allowed'],
  'alg None': [({ agent }) => agent.assert({}, { alg: 'None' }), 'algorithm_not_allowed'],
  'no alg': [({ agent }) => agent.assert({}, { alg: undefined }), 'algorithm_not_allowed'],
  'HS256 with the public PEM': withMac(({ privateKey }) => createPublicKey(privateKey).export({ type: 'spki', format: 'pem' })),
  'HS256 with the public DER': withMac(({ privateKey }) => createPublicKey(privateKey).export({ type: 'spki', format: 'der' })),
  'HS256 with the public JWK': withMac((agent) => JSON.stringify(agent.publicJwk)),
  'HS256 with the empty key': withMac(() => ''),
  'ES384': [({ agent }) => agent.assert({}, { alg: 'ES384' }), 'algorithm_not_allowed'],
  'RS256': [({ agent }) => agent.assert({}, { alg: 'RS256' }), 'algorithm_not_allowed'],
  'the other algorithm than the key\'s': [({ agent }) => agent.assert({}, { alg: 'Ed25519' }), 'algorithm_not_allowed', 'agent'],
  'the other algorithm, no kid': [({ agent }) => agent.assert({}, { alg: 'Ed25519', kid: undefined }), 'key_unknown', 'agent'],

  'kid of another workload': [({ agent, edwards }) => agent.assert({}, { kid: edwards.kid }), 'key_unknown', 'agent'],
  'kid of nobody': [({ agent }) => agent.assert({}, { kid: 'x' }), 'key_unknown', 'agent'],
  'kid as a path': [({ agent }) => agent.assert({}, { kid: '../../../../dev/null' }), 'key_unknown', 'agent'],
  'kid as SQL': [({ agent }) => agent.assert({}, { kid: "' or 1=1 --" }), 'key_unknown', 'agent'],
  'an empty kid': [({ agent }) => agent.assert({}, { kid: '' }), 'key_unknown', 'agent'],
  'kid as a number': header({ kid: 1 }),
  'kid as a list': [({ agent }) => agent.assert({}, { kid: [agent.kid] }), 'header_not_allowed'],
  'jku': header({ jku: 'https://evil.test/jwks' }),
  'x5u': header({ x5u: 'https://evil.test/cert' }),
  'x5c': header({ x5c: ['MIIB'] }),
  'an embedded jwk, with its own signature': [
    ({ agent }) => {
      const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const [, payload = ''] = agent.assert().split('.')
      const jwk = publicKey.export({ format: 'jwk' })
      return signJws({ alg: 'ES256', jwk }, Buffer.from(payload, 'base64url').toString(), privateKey)
    },
    'header_not_allowed',
  ],
  'an unknown crit': header({ crit: ['x'], x: 1 }),
  'an empty crit': header({ crit: [] }),
  'b64 false': header({ b64: false, crit: ['b64'] }),
  'zip': header({ zip: 'DEF' }),
  'typ at+jwt': [({ agent }) => agent.assert({}, { typ: 'at+jwt' }), 'type_not_allowed'],
  'an access token': [({ accessToken }) => accessToken, 'type_not_allowed'],
  'an access token\'s claims': claims(() => ({ scope: 'tickets:read' }), 'type_not_allowed'),

  'aud with others beside the issuer': claims(() => ({ aud: [issuer, 'https://evil.test'] }), 'audience_mismatch'),
  'the issuer twice': claims(() => ({ aud: [issuer, issuer] }), 'audience_mismatch'),
  'the token endpoint as aud': claims(() => ({ aud: `${issuer}/oauth2/token` }), 'audience_mismatch'),
  'the issuer with a slash': claims(() => ({ aud: `${issuer}/` }), 'audience_mismatch'),
  'the issuer in upper case': claims(() => ({ aud: issuer.toUpperCase() }), 'audience_mismatch'),
  'an empty aud': claims(() => ({ aud: [] }), 'audience_mismatch'),
  'no aud': claims(() => ({ aud: undefined }), 'claims_malformed'),
  'aud of a number': claims(() => ({ aud: [1] }), 'claims_malformed'),

  'no exp': claims(() => ({ exp: undefined }), 'expiry_missing'),
  'exp as text': claims(({ nowSeconds }) => ({ exp: String(nowSeconds + 60) }), 'claims_malformed'),
  'exp null': claims(() => ({ exp: null }), 'claims_malformed'),
  'exp negative': claims(() => ({ exp: -1 }), 'claims_malformed'),
  'exp in milliseconds': claims(({ nowSeconds }) => ({ exp: nowSeconds * 1000 }), 'claims_malformed'),
  'a huge exp': [withPayload((payload) => payload.replace(/"exp":\d+/, '"exp":1e400')), 'claims_malformed'],
  'exp NaN': [withPayload((payload) => payload.replace(/"exp":\d+/, '"exp":NaN')), 'assertion_malformed'],
  'exp now': claims(({ nowSeconds }) => ({ exp: nowSeconds }), 'expired'),
  'exp just past': claims(({ nowSeconds }) => ({ exp: nowSeconds - 1 }), 'expired'),
  'a life of 301 seconds': claims(({ nowSeconds }) => ({ exp: nowSeconds + 301 }), 'lifetime_too_long'),
  'a life of an hour without iat': claims(({ nowSeconds }) => ({ exp: nowSeconds + 3600, iat: undefined }), 'lifetime_too_long'),
  'older than five minutes': claims(({ nowSeconds }) => ({ iat: nowSeconds - 301, exp: nowSeconds + 1 }), 'too_old'),
  'iat to come': claims(({ nowSeconds }) => ({ iat: nowSeconds + 6 }), 'issued_in_future'),
  'iat as text': claims(() => ({ iat: 'now' }), 'claims_malformed'),
  'nbf to come': claims(({ nowSeconds }) => ({ nbf: nowSeconds + 6 }), 'not_yet_valid'),
  'nbf as text': claims(() => ({ nbf: 'now' }), 'claims_malformed'),
  'no jti': claims(() => ({ jti: undefined }), 'jti_missing'),
  'an empty jti': claims(() => ({ jti: '' }), 'claims_malformed'),
  'jti as a number': claims(() => ({ jti: 1 }), 'claims_malformed'),
  'jti with NUL': claims(() => ({ jti: 'a\0' }), 'claims_malformed'),

  'no iss': claims(() => ({ iss: undefined }), 'claims_malformed'),
  'iss of another trust domain': claims(
    () => ({ iss: 'spiffe://evil.test/triage-bot', sub: 'spiffe://evil.test/triage-bot' }),
    'issuer_mismatch',
  ),
  'iss as a bare name': claims(() => ({ iss: 'triage-bot', sub: 'triage-bot' }), 'issuer_mismatch'),
  'iss with a path': claims(({ agent }) => ({ iss: `${agent.clientId}/x`, sub: `${agent.clientId}/x` }), 'issuer_mismatch'),
  'sub is another': claims(({ edwards }) => ({ sub: edwards.clientId }), 'subject_mismatch'),
  'iss is another': claims(({ edwards }) => ({ iss: edwards.clientId }), 'subject_mismatch'),
  'another\'s name, own key': [({ agent, edwards }) => agent.assert({ iss: edwards.clientId, sub: edwards.clientId }), 'key_unknown', 'edwards'],
  'another\'s name and kid, own key': [
    ({ agent, edwards }) => agent.assert({ iss: edwards.clientId, sub: edwards.clientId }, { alg: 'Ed25519', kid: edwards.kid }),
    'signature_invalid',
    'edwards',
  ],
  'another\'s key': [
    ({ agent, unknown }) => signJws({ alg: 'ES256', kid: agent.kid }, payloadOf(agent), unknown.privateKey),
    'signature_invalid',
    'agent',
  ],
  'another\'s key, no kid': [
    ({ agent, unknown }) => signJws({ alg: 'ES256' }, payloadOf(agent), unknown.privateKey),
    'signature_invalid',
    'agent',
  ],
  'a signature in DER': withSignature((agent, input) => sign('sha256', Buffer.from(input), agent.privateKey)),
  'a signature of zeros': withSignature(() => Buffer.alloc(64)),
  'an empty signature': withSignature(() => Buffer.alloc(0)),
  'an edited payload': [
    ({ agent }) => {
      const [head, , signature] = agent.assert().split('.')
      const [, payload] = agent.assert().split('.')
      return [head, payload, signature].join('.')
    },
    'signature_invalid',
    'agent',
  ],
  'a rotated-out key': [({ rotatedOut }) => rotatedOut.assert(), 'key_removed', 'agent'],
  'a rotated-out key, no kid': [({ rotatedOut }) => rotatedOut.assert({}, { kid: undefined }), 'signature_invalid', 'agent'],
  'a client_id that is another\'s': [
    ({ agent, edwards }) => ({ client_assertion: agent.assert(), client_id: edwards.clientId }),
    'client_id_mismatch',
    'agent',
  ],
  'a client_id that is the bare name': [
    ({ agent }) => ({ client_assertion: agent.assert(), client_id: agent.name }),
    'client_id_mismatch',
    'agent',
  ],
  'an unknown workload': [({ unknown }) => unknown.assert(), 'workload_unknown'],
  'a suspended workload': [({ suspended }) => suspended.assert(), 'workload_suspended', 'suspended'],
  'a retired workload': [({ retired }) => retired.assert(), 'workload_retired', 'retired'],
  'a workload whose review is overdue': [({ overdue }) => overdue.assert(), 'review_overdue', 'overdue'],
}

function payloadOf(agent: TestAgent): string {
  const [, payload = ''] = agent.assert().split('.')
  return Buffer.from(payload, 'base64url').toString()
}
