import { readObject } from './answer.ts'
import { clientError } from './errors.ts'
import type { Sender } from './http.ts'

/** What a broker says of itself (RFC 8414 §2), as far as an agent needs it. The endpoints are paths on its own origin. */
export interface BrokerMetadata {
  readonly issuer: string
  readonly tokenPath: string
  readonly introspectionPath: string
  readonly revocationPath: string
  /** The domain of the workloads' SPIFFE IDs. */
  readonly trustDomain: string
}

const metadataPath = '/.well-known/oauth-authorization-server'

/**
 * Asks the broker for its metadata. It must call itself what it was called (RFC 8414 §3.3), and all its endpoints must be
 * its own: an assertion sent elsewhere could be used there before the broker ever saw it.
 */
export async function discoverBroker(sender: Sender): Promise<BrokerMetadata> {
  const { body } = await sender.send({ method: 'GET', path: metadataPath })
  const metadata = readObject(
    body,
    {
      issuer: 'string',
      token_endpoint: 'string',
      introspection_endpoint: 'string',
      revocation_endpoint: 'string',
      stint_trust_domain: 'string',
    },
    'the metadata of a broker',
  )
  const issuer = String(metadata['issuer'])
  if (issuer !== sender.origin) {
    throw clientError(
      'bad_answer',
      `the broker at ${sender.origin} calls itself ${JSON.stringify(issuer.slice(0, 200))} (RFC 8414 §3.3): ` +
        `if that is the broker you mean, use that as its URL${isOrigin(issuer) ? ` (--url ${issuer}, or STINT_URL)` : ''}.`,
    )
  }
  const trustDomain = String(metadata['stint_trust_domain'])
  // SPIFFE-ID §2.1: lower-case letters, digits, dots, dashes and underscores.
  if (!/^[a-z0-9._-]{1,255}$/.test(trustDomain)) {
    throw clientError('bad_answer', `the broker at ${sender.origin} names a trust domain that no SPIFFE ID can have.`)
  }
  return {
    issuer,
    tokenPath: pathOf(String(metadata['token_endpoint']), issuer),
    introspectionPath: pathOf(String(metadata['introspection_endpoint']), issuer),
    revocationPath: pathOf(String(metadata['revocation_endpoint']), issuer),
    trustDomain,
  }
}

/** What the broker calls itself, whatever it was called. Throws `bad_answer` where that is no origin. */
export async function askIssuer(sender: Sender): Promise<string> {
  const { body } = await sender.send({ method: 'GET', path: metadataPath })
  const issuer = String(readObject(body, { issuer: 'string' }, 'the metadata of a broker')['issuer'])
  if (isOrigin(issuer)) return issuer
  throw clientError('bad_answer', `the broker at ${sender.origin} calls itself by something that is no origin.`)
}

/** Nothing but an origin is written out for a person to paste into a shell. */
function isOrigin(text: string): boolean {
  return /^https?:\/\/[\w.:[\]-]+$/.test(text) && URL.canParse(text) && new URL(text).origin === text
}

function pathOf(endpoint: string, issuer: string): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  const own = url !== undefined && url.origin === issuer && url.username === '' && url.password === ''
  // A path that begins with two slashes would be read as another host.
  if (!own || url.pathname.startsWith('//')) {
    throw clientError('bad_answer', `the broker at ${issuer} names an endpoint that is not its own: nothing is sent there.`)
  }
  return `${url.pathname}${url.search}`
}
