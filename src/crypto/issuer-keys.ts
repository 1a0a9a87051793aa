import { KeyObject } from 'node:crypto'
import { createLocalJWKSet, errors, type CryptoKey, type JSONWebKeySet, type LocalJWKSet } from 'jose'
import { parseStrictObject, type JsonRecord } from '../identity/strict-json.ts'
import type { Clock } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'

/** The public keys of the company issuer (OpenID Connect Discovery 1.0). */
export interface IssuerKeys {
  /**
   * The one key that a header means, or `undefined` where the issuer publishes none or more than one. Throws `unavailable`
   * while the issuer cannot be asked.
   */
  find(header: { readonly alg: string; readonly kid: string | undefined }): Promise<KeyObject | undefined>
}

export interface IssuerKeysOptions {
  /** As configured: the discovery document must name itself so, to the letter. */
  readonly issuer: string
  readonly clock: Clock
  readonly fetch?: typeof globalThis.fetch
  readonly timeoutMs?: number
}

/** How long keys are believed without asking again: an issuer that takes a key away is heard within this time. */
const keepMs = 600_000
/** How often a key that is not there makes Stint ask again: anybody can name one. */
const askAgainMs = 30_000
/** How long a failure stands for those who come after it. */
const failureMs = 5_000
const answerBytesMax = 512 * 1024

interface Fetched {
  readonly select: LocalJWKSet
  readonly atMs: number
}

/** Makes the one who asks the issuer for its keys: at most one request at a time, and not again and again. */
export function createIssuerKeys({ issuer, clock, fetch = globalThis.fetch, timeoutMs = 5_000 }: IssuerKeysOptions): IssuerKeys {
  let fetched: Fetched | undefined
  let failed: { readonly error: BrokerError; readonly atMs: number } | undefined
  let asking: Promise<Fetched> | undefined

  /** Whether less than `ms` has passed since. A clock that was set back must not make anything last longer. */
  function within(ms: number, sinceMs: number): boolean {
    const passedMs = clock.nowMs() - sinceMs
    return passedMs >= 0 && passedMs < ms
  }

  async function ask(): Promise<Fetched> {
    try {
      const discovered = await fetchJson(discoveryUrl(issuer))
      const keys = await fetchJson(readKeysUrl(discovered, issuer))
      // What is no JWK Set is refused by the function itself.
      const select = createLocalJWKSet(keys as unknown as JSONWebKeySet)
      fetched = { select, atMs: clock.nowMs() }
      failed = undefined
      return fetched
    } catch (cause) {
      const error = new BrokerError({
        code: 'unavailable',
        publicMessage: 'The company issuer cannot be asked for its keys, so that nobody can sign in with it at the moment: try again shortly.',
        detail: `${issuer}: ${describe(cause)}`,
        cause,
      })
      failed = { error, atMs: clock.nowMs() }
      throw error
    }
  }

  function refresh(): Promise<Fetched> {
    if (failed !== undefined && within(failureMs, failed.atMs)) return Promise.reject(failed.error)
    return (asking ??= ask().finally(() => (asking = undefined)))
  }

  async function fetchJson(url: URL): Promise<JsonRecord> {
    const response = await fetch(url, {
      headers: { accept: 'application/json', 'user-agent': 'stint' },
      // The configuration names whom to ask; an answer must not name somebody else.
      redirect: 'error',
      signal: AbortSignal.timeout(timeoutMs),
    })
    if (response.status !== 200) {
      await response.body?.cancel()
      throw new Error(`${url.href} answered ${response.status}`)
    }
    const json = parseStrictObject(await readBytes(response, url))
    if (json === undefined) throw new Error(`${url.href} did not answer with one JSON object`)
    return json
  }

  return {
    async find(header) {
      const known = fetched !== undefined && within(keepMs, fetched.atMs) ? fetched : await refresh()
      const key = await selectKey(known.select, header)
      if (key !== undefined) return key
      const newest = fetched !== undefined && within(askAgainMs, fetched.atMs) ? fetched : await refresh()
      return newest === known ? undefined : selectKey(newest.select, header)
    },
  }
}

/** OpenID Connect Discovery 1.0 §4.1: behind the issuer's own path. */
function discoveryUrl(issuer: string): URL {
  return new URL(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`)
}

/** §4.3: a document that calls itself otherwise is somebody else's. Keys come by https, or from this machine as the issuer does. */
function readKeysUrl({ issuer: named, jwks_uri: uri }: JsonRecord, issuer: string): URL {
  if (named !== issuer) throw new Error('its discovery document names another issuer')
  if (typeof uri !== 'string' || !URL.canParse(uri)) throw new Error('its discovery document has no jwks_uri')
  const url = new URL(uri)
  const own = new URL(issuer)
  const sameMachine = own.protocol === 'http:' && url.protocol === 'http:' && url.hostname === own.hostname
  if (url.protocol !== 'https:' && !sameMachine) throw new Error('its jwks_uri is not https')
  return url
}

/** The body, counted while it arrives: a length that was announced proves nothing. */
async function readBytes({ body }: Response, url: URL): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  // Leaving the loop cancels the rest.
  for await (const chunk of body ?? []) {
    bytes += chunk.byteLength
    if (bytes > answerBytesMax) throw new Error(`${url.href} answered with more than ${answerBytesMax} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

async function selectKey(select: LocalJWKSet, { alg, kid }: { alg: string; kid: string | undefined }): Promise<KeyObject | undefined> {
  try {
    const key = await select({ alg, ...(kid !== undefined && { kid }) })
    return isStrong(key) ? KeyObject.from(key) : undefined
  } catch (error) {
    // None fits, several do (§10.1 of Core: then the header has to name one), or the one that fits is no key of this kind.
    if (error instanceof errors.JOSEError || error instanceof DOMException || error instanceof TypeError) return undefined
    throw error
  }
}

/** RFC 7518 §3.3: an RSA key has 2048 bits or more. The verification would throw for a shorter one. */
function isStrong({ algorithm }: CryptoKey): boolean {
  return !('modulusLength' in algorithm) || Number(algorithm.modulusLength) >= 2048
}

/** What went wrong, for the operator's log. fetch says only that it failed; why is its cause. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { cause } = error
  return cause instanceof Error ? `${error.message}: ${cause.message}` : error.message
}
