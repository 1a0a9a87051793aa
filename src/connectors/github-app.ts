import { createHash } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { z } from 'zod'
import { Secret } from '../kernel/secret.ts'
import type { GithubAppConfig } from '../policy/kinds/github-app.ts'
import { ConnectorError, type Connector, type Ended, type Ending, type MintRequest, type Minted } from './connector.ts'
import { createAskGithub, explainAnswer, readAppKey, signAppAssertion } from './github-api.ts'
import { checkGithubApp } from './github-check.ts'
import { findExcess, joinPermissions, subtractPermissions, type Permissions } from './github-permissions.ts'
import { createOutbound } from './outbound.ts'

/** How long an installation token lives, whatever it is for. */
const tokenSecondsMax = 3_600
/** After its time a token is dead by this much at the latest, whichever of the clocks is ahead. */
const clockMsMax = 900_000
/** A fresh token is not known yet to all of GitHub: within this time one that is not known is looked for again. */
const freshMs = 60_000
const looksAgainMs = [1_000, 2_000]

const permissions = z.record(z.string(), z.string())
const installation = z.object({ id: z.int().positive(), permissions, suspended_at: z.string().nullish() })
const bearerToken = z.object({ token: z.string().regex(/^[\x21-\x7e]{1,4096}$/) })
const tokenScope = z.object({
  expires_at: z.iso.datetime({ offset: true }),
  permissions,
  repository_selection: z.literal('selected'),
  repositories: z.array(z.object({ full_name: z.string() })).length(1),
})

/** What ends a token: the token itself, for GitHub takes nobody else's word, and when it was made and dies. */
const handle = z.strictObject({ token: z.string(), minted_at_ms: z.number(), expires_at_ms: z.number() })
type Handle = z.output<typeof handle>

/** Installation tokens of a GitHub app, each for one repository and just the permissions of the actions. */
export const githubAppConnector: Connector = {
  kind: 'github-app',
  open(tool, context) {
    // The catalog has parsed it by the schema of this kind.
    const config = tool.config as GithubAppConfig
    const outbound = createOutbound({ hosts: [new URL(config.api_url).host], privateNetwork: config.private_network })
    const ask = createAskGithub(outbound, config.api_url)

    async function assertApp(): Promise<string> {
      const pem = await context.readSecret(config.private_key.from, "the GitHub app's private key")
      return signAppAssertion(readAppKey(pem.reveal()), config.app_id, context.nowMs())
    }

    async function mint({ actions, target, nowMs }: MintRequest, signal: AbortSignal): Promise<Minted> {
      const { owner, repository } = parseTarget(target)
      const asked = joinPermissions(actions)
      const bearer = await assertApp()
      const found = await findInstallation(owner, repository, bearer, signal)
      const what = `a token for ${owner}/${repository}`
      const path = ['app', 'installations', String(found.id), 'access_tokens']
      const answer = await ask({ method: 'POST', path, bearer, body: { repositories: [repository], permissions: asked } }, signal)
      if (answer.status === 404) throw refuse(sayNotInstalled(owner, repository))
      if (answer.status === 422) {
        const short = subtractPermissions(asked, found.permissions)
        throw refuse(
          short.length === 0
            ? `GitHub refuses ${what} with ${writePermissions(asked)} (422): the app is not installed on that repository, or has not all of these permissions there.`
            : `The app's installation on ${owner} has not the permission ${short.join(', ')}: an admin adds it to the app, and an owner of ${owner} accepts it.`,
        )
      }
      if (answer.status !== 201) throw explainAnswer(answer, what, context.nowMs(), true)
      const token = bearerToken.safeParse(answer.body)
      if (!token.success) throw new ConnectorError({ outcome: 'unknown', publicMessage: `GitHub has made ${what}, but its answer cannot be read.` })
      const made = tokenScope.safeParse(answer.body)
      const excess = describeExcess(made.data, `${owner}/${repository}`, asked)
      const expiresAtMs = judgeExpiry(made.data?.expires_at, nowMs)
      const held: Handle = { token: token.data.token, minted_at_ms: nowMs, expires_at_ms: expiresAtMs }
      if (excess === undefined) return writeMinted(held, config.api_url, `${owner}/${repository}`)
      await endUnused(held, signal)
      throw refuse(`${excess}, so that the token was ended at once.`)
    }

    async function findInstallation(owner: string, repository: string, bearer: string, signal: AbortSignal) {
      const answer = await ask({ method: 'GET', path: ['repos', owner, repository, 'installation'], bearer }, signal)
      if ([301, 302, 307, 308].includes(answer.status)) {
        throw refuse(`The repository ${owner}/${repository} has another name at GitHub by now: it must be asked for by that one.`)
      }
      if (answer.status === 404 && !/integration/i.test(answer.message)) throw refuse(sayNotInstalled(owner, repository))
      const parsed = installation.safeParse(answer.body)
      if (answer.status !== 200 || !parsed.success) throw explainAnswer(answer, `the installation on ${owner}/${repository}`, context.nowMs(), false)
      if (parsed.data.suspended_at != null) {
        throw refuse(`The app's installation on ${owner} is suspended: an owner of ${owner} lifts that in the settings of the installation.`)
      }
      return parsed.data
    }

    /** Ends a token that nobody was given. Where that fails it lives, and the mint has not come to nothing. */
    async function endUnused(held: Handle, signal: AbortSignal): Promise<void> {
      try {
        await endToken(held, signal)
      } catch (cause) {
        throw new ConnectorError({ outcome: 'unknown', publicMessage: 'GitHub made a token that goes beyond what was asked for, and it could not be ended.', cause })
      }
    }

    async function endToken(held: Handle, signal: AbortSignal): Promise<void> {
      for (let look = 0; ; look++) {
        const answer = await ask({ method: 'DELETE', path: ['installation', 'token'], bearer: held.token }, signal)
        if (answer.status === 204) return
        // Any other 401 is of somebody in between, who does not know about tokens.
        const unknown = answer.status === 401 && /^bad credentials$/i.test(answer.message)
        if (answer.status === 401 && !unknown) {
          throw refuse('Something before GitHub asks for credentials of its own, so that the token could not be ended: an admin looks at api_url.')
        }
        if (!unknown) throw explainAnswer(answer, 'the end of a token', context.nowMs(), true)
        const pauseMs = looksAgainMs[look]
        if (pauseMs === undefined || Math.abs(context.nowMs() - held.minted_at_ms) > freshMs) return
        await wait(pauseMs, signal)
      }
    }

    async function revoke(ending: Ending, signal: AbortSignal): Promise<Ended> {
      // Without the token nobody can end it; it was made before now.
      if (ending.handle === undefined) return { status: 'lives_until', untilMs: context.nowMs() + tokenSecondsMax * 1000 }
      const held = readHandle(ending.handle)
      // GitHub shuts out for a while who comes with many dead tokens: after a stop there may be thousands.
      if (context.nowMs() < held.expires_at_ms + clockMsMax) await endToken(held, signal)
      return { status: 'ended' }
    }

    return {
      effect: 'immediate',
      undo: { livesSecondsMax: tokenSecondsMax },
      mint,
      revoke,
      check(signal) {
        const needed = joinPermissions(tool.actions.values())
        return checkGithubApp({ ask, assertApp, appId: config.app_id, host: new URL(config.api_url).host, nowMs: () => context.nowMs(), needed }, signal)
      },
      close: outbound.close,
    }
  },
}

/** Owner and repository as GitHub names them. What else the target's pattern lets pass never becomes part of a path. */
function parseTarget(target: string | undefined): { readonly owner: string; readonly repository: string } {
  const [, owner, repository] = /^([A-Za-z0-9_-]{1,100})\/([A-Za-z0-9._-]{1,100})$/.exec(target ?? '') ?? []
  if (owner === undefined || repository === undefined || /^\.\.?$/.test(repository)) {
    throw refuse('The target is no repository of GitHub: it is written owner/repository.')
  }
  return { owner, repository }
}

/**
 * In which way a token is for more than was asked, in words; `undefined` where it is not. The name must be the very one that
 * was asked for: GitHub does not tell upper case from lower, and the policy that was asked does.
 */
function describeExcess(made: z.output<typeof tokenScope> | undefined, fullName: string, asked: Permissions): string | undefined {
  if (made === undefined) return `GitHub does not say that its token is for ${fullName} alone, with which permissions and until when`
  const name = made.repositories[0]?.full_name
  if (name?.toLowerCase() !== fullName.toLowerCase()) return `GitHub made a token for another repository than ${fullName}`
  if (name !== fullName) return `GitHub writes the repository ${name}, and the target must be written so, too`
  const excess = findExcess(made.permissions, asked)
  return excess.length === 0 ? undefined : `GitHub made a token with permissions that were not asked for (${excess.join(', ').slice(0, 200)})`
}

function writeMinted(held: Handle, apiUrl: string, fullName: string): Minted {
  const token = new Secret(held.token)
  return {
    credential: { token },
    environment: writeEnvironment(apiUrl, fullName, token),
    token,
    // By this GitHub's audit log is searched for what a token did.
    reference: `hashed_token:${createHash('sha256').update(held.token).digest('base64')}`,
    handle: new Secret(JSON.stringify(held)),
    diesAtMs: held.expires_at_ms,
  }
}

/** When a token dies that was made just now, by GitHub's word; a clock that is wrong says nothing, and an hour is what tokens have. */
function judgeExpiry(said: string | undefined, nowMs: number): number {
  const [saidMs, lastMs] = [Date.parse(said ?? ''), nowMs + tokenSecondsMax * 1000]
  return saidMs > nowMs && saidMs < lastMs + clockMsMax ? saidMs : lastMs
}

/** The variables by which gh, Octokit and the like take a token for that API, and know the host and the repository. */
export function writeEnvironment(apiUrl: string, fullName: string, token: Secret): Readonly<Record<string, string | Secret>> {
  const everywhere = { GH_TOKEN: token, GITHUB_TOKEN: token }
  const { host } = new URL(apiUrl)
  if (host === 'api.github.com') return { ...everywhere, GH_REPO: fullName }
  const subdomain = /^api\.(.+\.ghe\.com)$/.exec(host)?.[1]
  const elsewhere = { ...everywhere, GH_HOST: subdomain ?? host, GH_REPO: `${subdomain ?? host}/${fullName}`, GITHUB_API_URL: apiUrl }
  // For a server that is not GitHub's own, gh has a variable of its own.
  return subdomain === undefined ? { ...elsewhere, GH_ENTERPRISE_TOKEN: token } : elsewhere
}

function readHandle(sealed: Secret): Handle {
  try {
    return handle.parse(JSON.parse(sealed.reveal()))
  } catch {
    // Neither error is kept, for both quote what they read.
    throw refuse('What is kept to end the token cannot be read.')
  }
}

async function wait(ms: number, signal: AbortSignal): Promise<void> {
  await setTimeout(ms, undefined, { signal }).catch(() => {
    throw new ConnectorError({ outcome: 'unknown', publicMessage: 'GitHub does not know the fresh token yet, and there was no time to ask again.' })
  })
}

function writePermissions(asked: Permissions): string {
  return Object.entries(asked).map(([name, level]) => `${name}:${level}`).join(', ')
}

function sayNotInstalled(owner: string, repository: string): string {
  return `The GitHub app is not installed on ${owner}/${repository}, or there is no such repository: an owner of ${owner} adds it to the app's installation.`
}

function refuse(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage })
}
