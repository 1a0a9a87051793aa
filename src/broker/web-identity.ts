import { ConnectorError, type ToolContext } from '../connectors/connector.ts'
import { encodeBase64url } from '../identity/base64url.ts'
import { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import { Secret } from '../kernel/secret.ts'
import type { Broker } from './broker.ts'

/** What a cloud that trusts the issuer is shown at most: longer ones outlast the call that they are for. */
const secondsMax = 300

/**
 * Makes the function that signs tokens by which Stint itself proves who it is, with the keys that sign access tokens, for a
 * cloud fetches one set of keys. `typ` is `JWT`, so that none passes for an access token, which is an `at+jwt` (RFC 9068 §4).
 */
export function createWebIdentities({ issuer, knowledge, ledger, random }: Pick<Broker, 'issuer' | 'knowledge' | 'ledger' | 'random'>): ToolContext['signWebIdentity'] {
  return async ({ subject, audience, seconds, claims }) => {
    if (!Number.isSafeInteger(seconds) || seconds < 1 || seconds > secondsMax) throw new RangeError(`a web identity is good for 1 to ${secondsMax} seconds`)
    try {
      // A key that was withdrawn meanwhile would be refused.
      const { keyring } = await knowledge.refresh()
      const nowMs = ledger.nowMs()
      const key = keyring.signingKey(nowMs)
      const iat = Math.floor(nowMs / 1000)
      const payload = { ...claims, iss: issuer, sub: subject, aud: audience, iat, exp: iat + seconds, jti: newId('identity', nowMs, random) }
      const input = [{ alg: key.alg, typ: 'JWT', kid: key.kid }, payload].map((part) => encodeBase64url(Buffer.from(JSON.stringify(part)))).join('.')
      return new Secret(`${input}.${encodeBase64url(await key.sign(input))}`)
    } catch (cause) {
      const publicMessage = cause instanceof BrokerError ? cause.publicMessage : 'Stint could not sign a token to prove who it is: try again shortly.'
      throw new ConnectorError({ outcome: 'nothing_done', publicMessage, cause })
    }
  }
}
