import type * as openidClient from 'openid-client'
import type { SignIn } from '../client/records.ts'
import { tlsCodes } from '../client/failure.ts'
import { isLoopback } from '../client/url.ts'
import { CommandError } from './command.ts'

/** The protocol's own code, loaded only by who signs in. */
export type Oidc = typeof openidClient

/** The company issuer, found and ready to be asked for an ID token. */
export interface Issuer {
  readonly oidc: Oidc
  readonly configuration: openidClient.Configuration
  readonly scope: string
  /** The issuer's name for messages. */
  readonly name: string
}

const timeoutSeconds = 15

/** Asks the issuer for its metadata (OpenID Connect Discovery 1.0 §4). Throws a `CommandError` where it does not serve. */
export async function openIssuer({ issuer, client_id: clientId, scopes }: SignIn): Promise<Issuer> {
  const url = URL.canParse(issuer) ? new URL(issuer) : undefined
  const plain = url?.protocol === 'http:' && isLoopback(url.hostname)
  if (url === undefined || (url.protocol !== 'https:' && !plain)) {
    throw new CommandError('the broker names a company issuer that is not reached by https: nothing is sent there')
  }
  const oidc = await import('openid-client')
  const options = { timeout: timeoutSeconds, ...(plain && { execute: [oidc.allowInsecureRequests] }) }
  const issuerOf = { name: issuer, scope: scopes.join(' '), oidc }
  const configuration = await askIssuer({ oidc, name: issuer }, () => oidc.discovery(url, clientId, undefined, oidc.None(), options))
  return { ...issuerOf, configuration }
}

/** Runs one exchange with the issuer; says in one sentence what went wrong. */
export async function askIssuer<T>({ oidc, name }: Pick<Issuer, 'oidc' | 'name'>, exchange: () => Promise<T>): Promise<T> {
  try {
    return await exchange()
  } catch (error) {
    if (error instanceof oidc.AuthorizationResponseError || error instanceof oidc.ResponseBodyError) {
      const { error: code, error_description: description } = error
      throw new CommandError(`${name} refused: ${description === undefined ? code : `${description} (${code})`}`)
    }
    const code = findTlsCode(error)
    if (code !== undefined) {
      throw new CommandError(
        `TLS with ${name} failed (${code}): where its certificate is of a private authority, ` +
          `set NODE_EXTRA_CA_CERTS=/path/to/ca.pem to that authority's certificate`,
      )
    }
    if (error instanceof oidc.ClientError) {
      throw new CommandError(`what ${name} answered cannot be used: ${describe(error)}`)
    }
    // What fetch throws.
    if (error instanceof TypeError) throw new CommandError(`${name} cannot be reached: ${describe(error)}`)
    throw error
  }
}

/** The code of a TLS failure among the causes of an error. */
function findTlsCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  const code = 'code' in error ? String(error.code) : ''
  return tlsCodes.test(code) ? code : findTlsCode(error.cause)
}

/** The innermost cause that has a message: the outer ones say only that something went wrong. */
function describe(error: Error): string {
  const { cause } = error
  const inner = cause instanceof Error && cause.message !== '' ? `: ${cause.message}` : ''
  return `${error.message}${inner}`
}

/** The ID token of a token answer. */
export function requireIdToken({ name }: Issuer, idToken: string | undefined): string {
  if (idToken !== undefined) return idToken
  throw new CommandError(`${name} sent no ID token: the scopes of the broker's configuration must hold openid`)
}
