/** What the token endpoint has issued (RFC 6749 §5.1), as far as it can be used. */
export interface IssuedToken {
  readonly accessToken: string
  /** When the upstream ends it by itself, by this broker's clock. */
  readonly diesAtMs: number
  readonly scopes: readonly string[]
}

/** A token that is not to be given out, and why, in words that follow "the upstream". */
export interface UnwantedToken {
  readonly accessToken: string
  readonly objection: string
}

export interface Asked {
  readonly scopes: readonly string[]
  /** The longest that a token lives, as the catalog says. */
  readonly secondsMax: number
  readonly nowMs: number
}

/**
 * Judges a token against what was asked for: a bearer token with just these scopes, that does not outlive the catalog's word.
 * `undefined` where there is no access token in the answer at all.
 */
export function judgeToken(body: Readonly<Record<string, unknown>>, { scopes, secondsMax, nowMs }: Asked): IssuedToken | UnwantedToken | undefined {
  const { access_token: accessToken, token_type: type, expires_in: expiresIn, scope } = body
  if (typeof accessToken !== 'string' || accessToken === '') return undefined
  const refuse = (objection: string): UnwantedToken => ({ accessToken, objection })
  // It goes into headers and environment variables (RFC 6750 §2.1).
  if (!/^[\x21-\x7e]{1,16384}$/.test(accessToken)) return refuse('issues tokens that no client can send')
  if (typeof type !== 'string' || type.toLowerCase() !== 'bearer') {
    return refuse('issues tokens that are bound to a key (DPoP) or of another type than Bearer, which cannot be lent')
  }
  const seconds = expiresIn === undefined ? secondsMax : readSeconds(expiresIn)
  if (seconds === undefined) return refuse('does not say in seconds how long its token lives')
  if (seconds > secondsMax) return refuse(`issues tokens that live for ${seconds} s, and its catalog file says ${secondsMax} s (token_seconds_max)`)
  if (scope !== undefined && typeof scope !== 'string') return refuse('does not say as text which scopes its token has')
  // Left out, it is what was asked for (§5.1).
  const given = scope === undefined ? scopes : scope.split(' ').filter((one) => one !== '')
  const more = given.filter((one) => !scopes.includes(one))
  if (more.length > 0) return refuse(`gave more scopes than were asked for: ${show(more)}`)
  const missing = scopes.filter((one) => !given.includes(one))
  if (missing.length > 0) return refuse(`gave fewer scopes than were asked for, without ${show(missing)}: its client, or whoever connected it, has not got them`)
  return { accessToken, diesAtMs: nowMs + seconds * 1000, scopes: given }
}

/** Some write the number as text. */
function readSeconds(value: unknown): number | undefined {
  const seconds = typeof value === 'string' && /^\d{1,10}$/.test(value) ? Number(value) : value
  return typeof seconds === 'number' && seconds > 0 && Number.isFinite(seconds) ? Math.ceil(seconds) : undefined
}

function show(scopes: readonly string[]): string {
  return scopes.map((scope) => scope.replaceAll(/[^\x21-\x7e]/g, '?').slice(0, 100)).slice(0, 8).join(', ')
}
