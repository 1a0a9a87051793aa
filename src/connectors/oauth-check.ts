import { randomBytes } from 'node:crypto'
import type { OauthClientConfig } from '../policy/kinds/oauth-client.ts'
import { ConnectorError, type Finding, type ToolContext } from './connector.ts'
import { readClientKey } from './oauth-key.ts'
import { choosesBasic, type Metadata, type Upstream } from './oauth-upstream.ts'

export interface OauthCheck {
  readonly config: OauthClientConfig
  readonly context: ToolContext
  readonly upstream: Upstream
}

/**
 * Looks at all that can be seen without making anything: a token that a check makes would be on no record (invariant 2).
 * Whether the client is believed shows by a revocation of a token that does not exist.
 */
export async function checkOauthClient({ config, context, upstream }: OauthCheck, signal: AbortSignal): Promise<readonly Finding[]> {
  const secrets = await checkSecrets(config, context)
  let metadata: Metadata
  // Whether it is reachable now is what is asked.
  upstream.forgetMetadata()
  try {
    metadata = await upstream.readMetadata(signal)
  } catch (error) {
    return [...secrets, bad(messageOf(error))]
  }
  const readable = secrets.every(({ ok }) => ok)
  return [
    ...secrets,
    good(`${config.issuer} is reachable, and its metadata name it.`),
    checkGrantType(config, metadata),
    checkMethod(config, metadata),
    ...checkRevocation(config, metadata),
    ...(readable ? [await checkClient(config, metadata, upstream, signal)] : []),
    good('Which scopes the client may have was not tried: that would make a token. It shows when they are asked for.'),
  ]
}

async function checkSecrets(config: OauthClientConfig, context: ToolContext): Promise<Finding[]> {
  const read = async (source: string, what: string, use: (text: string) => unknown, sentence: string): Promise<Finding> => {
    try {
      use((await context.readSecret(source, what)).reveal())
      return good(sentence)
    } catch (error) {
      return bad(messageOf(error))
    }
  }
  const { private_key: key, client_secret: secret, refresh_token: refresh } = config
  return [
    ...(key ? [await read(key.from, "the client's private key", readClientKey, "The client's private key is there, and can sign.")] : []),
    ...(secret ? [await read(secret.from, "the client's secret", () => undefined, "The client's secret is there.")] : []),
    ...(refresh ? [await read(refresh.from, 'the refresh token', () => undefined, 'The refresh token is there. It was not tried: that would use it up.')] : []),
  ]
}

function checkGrantType({ refresh_token: refresh }: OauthClientConfig, { grant_types_supported: supported }: Metadata): Finding {
  const wanted = refresh === undefined ? 'client_credentials' : 'refresh_token'
  // RFC 8414 §2 has a default, which upstreams that offer more forget.
  if (!Array.isArray(supported)) return good(`The metadata do not say which grant types there are; ${wanted} is used.`)
  return supported.includes(wanted) ? good(`The grant type ${wanted} is offered.`) : bad(`The metadata do not offer the grant type ${wanted}.`)
}

function checkMethod({ private_key: key }: OauthClientConfig, metadata: Metadata): Finding {
  const supported = metadata.token_endpoint_auth_methods_supported ?? ['client_secret_basic']
  const wanted = key !== undefined ? 'private_key_jwt' : choosesBasic(metadata) ? 'client_secret_basic' : 'client_secret_post'
  if (supported.includes(wanted)) return good(`The client proves itself by ${wanted}, which is offered.`)
  return bad(`The client would prove itself by ${wanted}, and the metadata offer ${supported.map(String).join(', ').slice(0, 200)}.`)
}

function checkRevocation({ revocation, tokens_are_checked: checked }: OauthClientConfig, { revocation_endpoint: endpoint }: Metadata): Finding[] {
  if (!revocation) return [good('Tokens are not revoked, as the catalog says: each lives until it expires.')]
  if (endpoint === undefined && checked) return [bad('The metadata name no revocation_endpoint, so that tokens_are_checked cannot be kept: nothing is lent.')]
  if (endpoint === undefined) return [good('The metadata name no revocation_endpoint: each token lives until it expires.')]
  return [good(checked ? 'Tokens are revoked, and open nothing from then on.' : 'Tokens are revoked; who verifies them offline accepts them until they expire.')]
}

async function checkClient({ revocation }: OauthClientConfig, metadata: Metadata, upstream: Upstream, signal: AbortSignal): Promise<Finding> {
  if (!revocation || metadata.revocation_endpoint === undefined) return good('Whether the client is believed was not tried: that would make a token.')
  try {
    await upstream.revokeToken(metadata, `stint-check-${randomBytes(16).toString('hex')}`, signal)
    return good('The client is believed.')
  } catch (error) {
    return bad(`The client was not believed, or could not be tried: ${messageOf(error)}`)
  }
}

function messageOf(error: unknown): string {
  return error instanceof ConnectorError ? error.adminMessage : 'It failed in a way that was not foreseen.'
}

function good(sentence: string): Finding {
  return { ok: true, sentence }
}

function bad(sentence: string): Finding {
  return { ok: false, sentence }
}
