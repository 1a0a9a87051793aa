import { z } from 'zod'
import { ConnectorError, type Finding } from './connector.ts'
import { explainAnswer, type AskGithub } from './github-api.ts'
import { findExcess, subtractPermissions, type Permissions } from './github-permissions.ts'

export interface CheckParts {
  readonly ask: AskGithub
  /** The app's assertion. Throws `ConnectorError`. */
  readonly assertApp: () => Promise<string>
  readonly appId: string
  readonly host: string
  readonly nowMs: () => number
  /** What all actions of the tool together need. */
  readonly needed: Permissions
}

const permissions = z.record(z.string(), z.string())
const app = z.object({ id: z.int(), slug: z.string(), permissions })
const installations = z.array(z.object({ account: z.object({ login: z.string() }).nullish(), permissions, suspended_at: z.string().nullish() }))

/** As many as one page holds. With more, it is the first ones that are looked at. */
const installationsMax = 100

/** Whether GitHub takes the app's key, and the app has just the permissions that the tool's actions need, where it is installed. */
export async function checkGithubApp(parts: CheckParts, signal: AbortSignal): Promise<readonly Finding[]> {
  try {
    const bearer = await parts.assertApp()
    return [...(await checkApp(parts, bearer, signal)), ...(await checkInstallations(parts, bearer, signal))]
  } catch (error) {
    return [say(false, error instanceof ConnectorError ? error.adminMessage : 'GitHub could not be asked.')]
  }
}

async function checkApp({ ask, appId, host, nowMs, needed }: CheckParts, bearer: string, signal: AbortSignal): Promise<readonly Finding[]> {
  const answer = await ask({ method: 'GET', path: ['app'], bearer }, signal)
  const parsed = app.safeParse(answer.body)
  if (answer.status !== 200 || !parsed.success) throw explainAnswer(answer, 'the app itself', nowMs(), false)
  if (String(parsed.data.id) !== appId) return [say(false, `GitHub takes the key for the app ${parsed.data.id}, but the catalog file names the app ${appId}.`)]
  const { slug } = parsed.data
  const missing = subtractPermissions(needed, parsed.data.permissions)
  const excess = findExcess(parsed.data.permissions, needed)
  const findings = [say(true, `GitHub (${host}) takes the key of the app ${slug} (${appId}).`)]
  if (missing.length > 0) findings.push(say(false, `The app has not the permission ${missing.join(', ')}, which actions of this tool need: an admin adds it on the app's settings page.`))
  if (excess.length > 0) findings.push(say(false, `The app may do more than it needs: no action of this tool needs ${excess.join(', ')}. An admin takes it away on the app's settings page.`))
  if (missing.length === 0 && excess.length === 0) findings.push(say(true, 'The app has just the permissions that the actions of this tool need.'))
  return findings
}

async function checkInstallations({ ask, nowMs, needed }: CheckParts, bearer: string, signal: AbortSignal): Promise<readonly Finding[]> {
  const answer = await ask({ method: 'GET', path: ['app', 'installations'], query: { per_page: String(installationsMax) }, bearer }, signal)
  const parsed = installations.safeParse(answer.body)
  if (answer.status !== 200 || !parsed.success) throw explainAnswer(answer, "the app's installations", nowMs(), false)
  if (parsed.data.length === 0) return [say(false, "The app is installed nowhere: an owner of an account installs it from the app's public page, on the repositories that agents are to work in.")]
  const findings: Finding[] = []
  const sound: string[] = []
  for (const { account, permissions: held, suspended_at: suspendedAt } of parsed.data) {
    const name = account?.login ?? 'an account without a name'
    const missing = subtractPermissions(needed, held)
    if (suspendedAt != null) findings.push(say(false, `The installation on ${name} is suspended: an owner of ${name} lifts that in its settings.`))
    else if (missing.length > 0) findings.push(say(false, `The installation on ${name} has not accepted ${missing.join(', ')} yet: an owner of ${name} does that in its settings.`))
    else sound.push(name)
  }
  const first = parsed.data.length < installationsMax ? '' : ` Only the first ${installationsMax} installations were looked at.`
  if (sound.length > 0) findings.unshift(say(true, `The app is installed on ${sound.join(', ')}.${first}`))
  return findings
}

function say(ok: boolean, sentence: string): Finding {
  return { ok, sentence }
}
