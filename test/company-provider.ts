import type { RequestListener } from 'node:http'
import { exportJWK, generateKeyPair } from 'jose'
import { onTestFinished, vi } from 'vitest'
import type { SignInSettings } from '../src/broker/sign-in.ts'
import { clientId } from './company-issuer.ts'
import { listen } from './listen.ts'

/** A real OpenID Connect provider, as a company has one. Whoever logs in is in the groups that the test gave. */
export interface CompanyProvider {
  readonly url: string
  readonly settings: SignInSettings
}

export interface ProviderOptions {
  readonly groups?: readonly string[]
  readonly deviceFlow?: boolean
  readonly idTokenAlg?: 'RS256' | 'ES256' | 'PS256' | 'Ed25519'
}

export async function startCompanyProvider({ groups = ['platform-admins'], deviceFlow = true, idTokenAlg = 'RS256' }: ProviderOptions = {}): Promise<CompanyProvider> {
  let handle: RequestListener | undefined
  const url = await listen((request, response) => handle?.(request, response))
  const { privateKey } = await generateKeyPair(idTokenAlg, { extractable: true })
  // It says on the console what is not meant for production: nothing of this is.
  const quiet = [vi.spyOn(console, 'warn'), vi.spyOn(console, 'info')].map((spy) => spy.mockImplementation(() => undefined))
  onTestFinished(() => quiet.forEach((spy) => spy.mockRestore()))
  const { Provider } = await import('oidc-provider')
  const provider = new Provider(url, {
    clients: [
      {
        client_id: clientId,
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        redirect_uris: ['http://127.0.0.1/callback'],
        response_types: ['code'],
        grant_types: ['authorization_code', ...(deviceFlow ? ['urn:ietf:params:oauth:grant-type:device_code'] : [])],
        id_token_signed_response_alg: idTokenAlg,
      },
    ],
    jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: idTokenAlg, use: 'sig', kid: 'first' }] },
    cookies: { keys: ['of a test'] },
    scopes: ['openid', 'groups'],
    claims: { openid: ['sub'], groups: ['groups'] },
    enabledJWA: { idTokenSigningAlgValues: [idTokenAlg] },
    // The groups are to be in the ID token, and not only at the userinfo endpoint.
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    features: { deviceFlow: { enabled: deviceFlow }, devInteractions: { enabled: true } },
    findAccount: (_: unknown, accountId: string) => ({ accountId, claims: async () => ({ sub: accountId, groups }) }),
  })
  handle = provider.callback()
  return {
    url,
    settings: {
      issuer: url,
      clientId,
      scopes: ['openid', 'groups'],
      groupsClaim: 'groups',
      groupsByRole: { admin: ['platform-admins'], approver: ['leads'], auditor: ['audit'] },
      sessionMinutes: 60,
    },
  }
}

/**
 * What a person does in a browser: opens the page, follows where it leads, sends each form on the way with the name to log
 * in by, and reads the last page.
 */
export async function browse(start: string, login: string): Promise<{ readonly url: string; readonly text: string }> {
  const cookies = new Map<string, string>()
  let request: { url: string; form?: URLSearchParams } = { url: start }
  for (let step = 0; step < 30; step++) {
    const response = await fetch(request.url, {
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      ...(request.form && { method: 'POST', body: request.form }),
    })
    for (const cookie of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
      if (value === '' || /expires=Thu, 01 Jan 1970/i.test(cookie)) cookies.delete(name)
      else cookies.set(name, value)
    }
    const location = response.headers.get('location')
    const text = await response.text()
    const form = /<form[^>]*action="([^"]*)"[^>]*>([^]*?)<\/form>/.exec(text)
    if (location !== null) request = { url: new URL(location, request.url).href }
    else if (form === null) return { url: request.url, text }
    else request = { url: new URL((form[1] ?? '').replaceAll('&amp;', '&'), request.url).href, form: fillIn(form[2] ?? '', login) }
  }
  throw new Error(`the browser is still under way, at ${request.url}`)
}

function fillIn(fields: string, login: string): URLSearchParams {
  const form = new URLSearchParams()
  for (const [input] of fields.matchAll(/<input[^>]*>/g)) {
    const [, name = ''] = /name="([^"]*)"/.exec(input) ?? []
    const [, value = ''] = /value="([^"]*)"/.exec(input) ?? []
    form.set(name, name === 'login' ? login : name === 'password' ? 'any' : value)
  }
  return form
}
