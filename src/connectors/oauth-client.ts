import { z } from 'zod'
import { Secret } from '../kernel/secret.ts'
import type { OauthClientAction, OauthClientConfig } from '../policy/kinds/oauth-client.ts'
import { ConnectorError, type Connector, type Ended, type Ending, type MintRequest, type Minted, type Used } from './connector.ts'
import { judgeToken, type IssuedToken } from './oauth-answer.ts'
import { checkOauthClient } from './oauth-check.ts'
import { createUpstream, describeRefusal, untilAborted, type Metadata, type TokenAnswer } from './oauth-upstream.ts'
import { createOutbound } from './outbound.ts'

/** What ends a token: the token itself, and when it ends by itself. */
const handle = z.strictObject({ token: z.string(), dies_at_ms: z.number() })
type Handle = z.output<typeof handle>

/**
 * Refusals that are said before the refresh token is looked at, or at least before it is used up. Others may come after
 * that: a `resource` that is unknown, say, is found by some when the next refresh token exists already.
 */
const leavesRefreshToken = new Set(['', 'invalid_client', 'unauthorized_client', 'unsupported_grant_type', 'invalid_scope'])

const lateMsMax = 10_000

type Body = Readonly<Record<string, unknown>>

/** Access tokens of an upstream that speaks OAuth 2, for just the scopes of the actions. */
export const oauthClientConnector: Connector = {
  kind: 'oauth-client',
  open(tool, context) {
    // The catalog has parsed it by the schema of this kind.
    const config = tool.config as OauthClientConfig
    const { issuer, token_seconds_max: secondsMax } = config
    const host = new URL(issuer).host
    const outbound = createOutbound({ hosts: [host, ...config.hosts], privateNetwork: config.private_network })
    const upstream = createUpstream(config, context, outbound)
    /** Tokens that came after nobody waited for them any more, and that are being ended. */
    const late = new Set<Promise<unknown>>()

    async function mint({ actions, expiresAtMs }: MintRequest, signal: AbortSignal): Promise<Minted> {
      // The catalog has parsed them by the schema of this kind.
      const scopes = [...new Set(actions.flatMap(({ settings }) => (settings as unknown as OauthClientAction).scopes))]
      const metadata = await upstream.readMetadata(signal)
      if (config.tokens_are_checked && metadata.revocation_endpoint === undefined) {
        throw refuse(`${host} revokes no tokens (its metadata name no revocation_endpoint), and the catalog promises that it does: an admin sets tokens_are_checked: false.`)
      }
      const parameters = { scope: scopes.join(' '), ...(config.resource !== undefined && { resource: config.resource }) }
      const body = config.refresh_token === undefined ? await askForToken(metadata, parameters, signal) : await refreshToken(metadata, parameters, config.refresh_token.from, signal)
      const judged = judgeToken(body, { scopes, secondsMax, nowMs: context.nowMs() })
      if (judged === undefined) throw lost(`${host} has answered a request for a token without one.`)
      if (!('objection' in judged)) return writeMinted(tool.name, judged, Math.min(expiresAtMs, judged.diesAtMs) - context.nowMs())
      const sentence = `${host} ${judged.objection}.`
      if (await endUnused(metadata, judged.accessToken, signal)) throw refuse(`${sentence} The token was ended at once.`)
      throw lost(`${sentence} The token was given to nobody, and could not be ended.`)
    }

    async function askForToken(metadata: Metadata, parameters: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Body> {
      const answer = await upstream.requestToken(metadata, { grant_type: 'client_credentials', ...parameters }, signal)
      if ('body' in answer) return answer.body
      throw explainRefusal(answer)
    }

    /** The refresh token goes out once: whatever is not known to have left it as it was, leaves it used up (RFC 9700 §4.14.2). */
    async function refreshToken(metadata: Metadata, parameters: Readonly<Record<string, string>>, source: string, signal: AbortSignal): Promise<Body> {
      let begun = false
      let obtained: Body | undefined
      const lending = context.custody.lend(
        source,
        tool.name,
        async (secret): Promise<Used<Body>> => {
          if (signal.aborted) throw refuse(`There was no time left to ask ${host} for a token: try again shortly.`)
          begun = true
          // Without the signal: an answer that nobody waits for would cost all that the refresh token stands for.
          const answer = await upstream.requestToken(metadata, { grant_type: 'refresh_token', refresh_token: secret.reveal(), ...parameters })
          if ('body' in answer) {
            obtained = answer.body
            return { result: answer.body, ...readReplacement(answer.body, secret) }
          }
          if (answer.refusal === 'invalid_grant') return { usedUp: `${host} does not accept the refresh token any more (invalid_grant)` }
          if (answer.status === 429 || leavesRefreshToken.has(answer.refusal)) throw explainRefusal(answer)
          throw lost(`${host} answered ${describeRefusal(answer.refusal, answer.status)}, which some say after they have used up the refresh token.`)
        },
        signal,
      )
      try {
        return await untilAborted(lending, signal, () => {
          const publicMessage = `${host} did not answer in time.`
          if (begun) endLater(metadata, lending, () => obtained)
          return begun ? lost(publicMessage) : refuse(publicMessage)
        })
      } catch (error) {
        // The token is there, and its successor's refresh token is not stored.
        const token = signal.aborted ? undefined : obtained?.['access_token']
        if (error instanceof ConnectorError && typeof token === 'string' && (await endUnused(metadata, token, signal))) throw refuse(error.publicMessage, error)
        throw error
      }
    }

    function readReplacement(body: Body, secret: Secret): { readonly replacement?: Secret } {
      const next = body['refresh_token']
      if (next === undefined || next === null || next === '' || next === secret.reveal()) return {}
      if (typeof next !== 'string') throw lost(`${host} has answered with a refresh token that cannot be read.`)
      return { replacement: new Secret(next) }
    }

    /** For a token that nobody waits for any more. */
    function endLater(metadata: Metadata, lending: Promise<unknown>, read: () => Body | undefined): void {
      const ending = lending
        .catch(() => undefined)
        .then(() => {
          const token = read()?.['access_token']
          return typeof token === 'string' ? endUnused(metadata, token, AbortSignal.timeout(lateMsMax)) : false
        })
        .finally(() => late.delete(ending))
      late.add(ending)
    }

    function explainRefusal({ refusal, status, retryAfterSeconds }: Exclude<TokenAnswer, { body: unknown }>): ConnectorError {
      const publicMessage = `${host} gives no token: it answered ${describeRefusal(refusal, status)}${hints.get(refusal) ?? ''}.`
      return new ConnectorError({ outcome: 'nothing_done', publicMessage, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) })
    }

    /** Whether a token that nobody was given is ended. */
    async function endUnused(metadata: Metadata, token: string, signal: AbortSignal): Promise<boolean> {
      if (!config.revocation) return false
      return upstream.revokeToken(metadata, token, signal).then(
        (revoked) => revoked === 'revoked',
        () => false,
      )
    }

    async function revoke(ending: Ending, signal: AbortSignal): Promise<Ended> {
      // Without the token nobody can end it; it was made before now.
      if (ending.handle === undefined) return { status: 'lives_until', untilMs: context.nowMs() + secondsMax * 1000 }
      const { token, dies_at_ms: untilMs } = readHandle(ending.handle)
      const isOver = (): boolean => untilMs <= context.nowMs()
      try {
        const told = config.revocation && (await upstream.revokeToken(await upstream.readMetadata(signal), token, signal)) === 'revoked'
        // Who verifies it offline is not told: then only its own time ends it (invariant 8).
        return (told && config.tokens_are_checked) || isOver() ? { status: 'ended' } : { status: 'lives_until', untilMs }
      } catch (error) {
        if (isOver()) return { status: 'ended' }
        throw error
      }
    }

    return {
      // Told to the upstream or not: that the token opens nothing from then on is known only where it is asked about each.
      effect: config.tokens_are_checked ? 'immediate' : 'expiry',
      undo: { livesSecondsMax: secondsMax },
      mint,
      revoke,
      check: (signal) => checkOauthClient({ config, context, upstream }, signal),
      async close() {
        await Promise.all(late)
        await outbound.close()
      },
    }
  },
}

const hints: ReadonlyMap<string, string> = new Map([
  ['invalid_request', ': an admin looks at what the client may do there'],
  ['invalid_client', ': an admin looks at client_id, and at the private key or the secret'],
  ['unauthorized_client', ': the client must be allowed this grant type there'],
  ['unsupported_grant_type', ': it does not offer this grant type'],
  ['invalid_scope', ': the client, or whoever connected it, has not got all of the scopes of these actions'],
  ['invalid_target', ': an admin looks at resource'],
])

function writeMinted(tool: string, { accessToken, diesAtMs, scopes }: IssuedToken, livesMs: number): Minted {
  const token = new Secret(accessToken)
  const held: Handle = { token: accessToken, dies_at_ms: diesAtMs }
  return {
    credential: { access_token: token, token_type: 'Bearer', expires_in: Math.max(0, Math.floor(livesMs / 1000)), scope: scopes.join(' ') },
    environment: { [`${tool.toUpperCase().replaceAll('-', '_')}_TOKEN`]: token },
    token,
    handle: new Secret(JSON.stringify(held)),
    diesAtMs,
  }
}

function readHandle(secret: Secret): Handle {
  // Written by `writeMinted` alone.
  return handle.parse(JSON.parse(secret.reveal()))
}

function refuse(publicMessage: string, cause?: unknown): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, ...(cause !== undefined && { cause }) })
}

function lost(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'unknown', publicMessage })
}
