import { randomUUID } from 'node:crypto'
import { formatTime } from '../kernel/clock.ts'
import { formatDuration } from '../kernel/duration.ts'
import { Secret } from '../kernel/secret.ts'
import type { EnvironmentSettings } from '../policy/kinds/rotation.ts'
import { missingSentence, stage, type DescribedSecret, type SecretsCalls } from './aws-secrets-client.ts'
import { findForeign, findVersion } from './aws-secrets-store.ts'
import { ConnectorError, type Finding } from './connector.ts'
import { describeLent } from './lent-secret.ts'
import type { Rotator } from './rotators/rotator.ts'

export interface AwsSecretCheck {
  readonly id: string
  readonly calls: SecretsCalls
  readonly env: EnvironmentSettings
  /** How often Stint replaces it, where it does. */
  readonly everySeconds?: number
  /** Looks at whether the system behind it could be told a new value. */
  readonly checkRotator?: Rotator['check']
}

/** Whether the secret can be lent and, where Stint replaces it, changed; and who else does that. */
export async function checkAwsSecret(parts: AwsSecretCheck, signal: AbortSignal): Promise<readonly Finding[]> {
  const { id, calls, env, everySeconds, checkRotator } = parts
  const findings: Finding[] = []
  let value: Secret
  try {
    const current = await calls.read(id, { stage: stage.current }, signal)
    if (current === undefined) return [say(false, missingSentence(id))]
    describeLent({ secret: current.arn, version: current.version, value: current.value, isBinary: current.isBinary }, env)
    findings.push(say(true, `AWS gives Stint the secret ${current.arn}: version ${current.version} is in force since ${formatTime(current.createdAtMs)}${current.isBinary ? '; it is binary, and lent as base64' : ''}.`))
    value = current.value
    if (current.isBinary && everySeconds !== undefined) findings.push(say(false, 'Stint replaces text only, and the secret is binary: take rotation out of the catalog file.'))
  } catch (error) {
    return [say(false, messageOf(error))]
  }
  try {
    // What ending a grant asks for.
    const found = await calls.describe(id, signal)
    if (found === undefined) return [...findings, say(false, missingSentence(id))]
    findings.push(...checkRotation(parts, found))
    if (everySeconds !== undefined) findings.push(...(await checkRights(parts, found, signal)))
  } catch (error) {
    findings.push(say(false, messageOf(error)))
  }
  findings.push(...((await checkRotator?.(value, signal)) ?? []))
  return findings
}

function checkRotation({ id, everySeconds }: AwsSecretCheck, found: DescribedSecret): Finding[] {
  const foreign = findForeign(id, found)
  if (everySeconds === undefined) {
    return [say(true, foreign === undefined ? 'Nobody replaces it by schedule: neither Stint nor AWS.' : `Stint does not replace it. ${found.rotatedBy === undefined ? foreign : `AWS does (${found.rotatedBy}).`}`)]
  }
  if (found.primaryRegion !== undefined) return [say(false, `It is a replica, which cannot be changed: the catalog file must name the region ${found.primaryRegion}.`)]
  if (foreign !== undefined) return [say(false, foreign)]
  return [say(true, `Stint replaces it every ${formatDuration(everySeconds)}.`)]
}

/**
 * Whether Stint may change the secret, by calls that can change nothing: AWS judges the right first, and then refuses to put
 * another value into a version that exists, and to take a label from a version that has not got it.
 */
async function checkRights({ id, calls }: AwsSecretCheck, found: DescribedSecret, signal: AbortSignal): Promise<Finding[]> {
  const version = findVersion(found, stage.current)
  if (version === undefined) return []
  const probes = [
    () => calls.put(id, { id: version, value: new Secret(`no value, but a check ${randomUUID()}`), stages: ['stint-check'] }, signal),
    () => calls.moveStage(id, { stage: 'stint-check', from: version }, signal),
  ]
  const findings: Finding[] = []
  for (const probe of probes) {
    await probe().catch((error: unknown) => findings.push(say(false, messageOf(error))))
  }
  return findings.length > 0 ? findings : [say(true, 'Stint may make versions of it and bring them into force.')]
}

function messageOf(error: unknown): string {
  return error instanceof ConnectorError ? error.adminMessage : 'It failed in a way that was not foreseen.'
}

function say(ok: boolean, sentence: string): Finding {
  return { ok, sentence }
}
