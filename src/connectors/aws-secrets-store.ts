import { formatTime } from '../kernel/clock.ts'
import { missingSentence, stage, type DescribedSecret, type ReadVersion, type SecretsCalls } from './aws-secrets-client.ts'
import { ConnectorError, type ToolContext } from './connector.ts'
import type { SecretStore } from './rotated-secret.ts'

/**
 * Beside AWSPENDING on a version that a rotation of Stint's makes: which version was in force when it began, so that one which
 * somebody has put in force by hand since is not overwritten.
 */
const fromLabel = 'stint-from-'

/**
 * A secret of AWS Secrets Manager as a rotation sees it. The rotation's id is the version's (ClientRequestToken), so that each
 * step finds what an earlier try has done; and AWSCURRENT moves from the very version that it is to be taken from, or not.
 */
export function createAwsSecretStore(id: string, calls: SecretsCalls, { log }: Pick<ToolContext, 'log'>): SecretStore {
  async function describe(signal: AbortSignal): Promise<DescribedSecret> {
    const found = await calls.describe(id, signal)
    if (found === undefined) throw refuse(missingSentence(id))
    if (found.primaryRegion !== undefined) throw refuse(`The secret ${id} is a replica, which cannot be changed: the catalog file must name the region ${found.primaryRegion}.`)
    if (found.deletedAtMs !== undefined) throw refuse(`The secret ${id} is scheduled for deletion in AWS: an admin restores it there (aws secretsmanager restore-secret), or takes the tool out of the catalog.`)
    return found
  }

  async function readText(version: string, signal: AbortSignal): Promise<ReadVersion | undefined> {
    const found = await calls.read(id, { version }, signal)
    if (found?.isBinary === true) throw refuse(`The secret ${id} is binary, and Stint replaces text only: take rotation out of the catalog file.`)
    return found
  }

  async function removeLabels(version: string, labels: readonly string[], signal: AbortSignal): Promise<void> {
    for (const label of labels) await calls.moveStage(id, { stage: label, from: version }, signal)
  }

  return {
    async look(signal) {
      const found = await describe(signal)
      const version = findVersion(found, stage.current)
      const current = version === undefined ? undefined : await calls.read(id, { version }, signal)
      const foreign = findForeign(id, found)
      return { ...(current && { current: { version: current.version, sinceMs: current.createdAtMs } }), ...(foreign !== undefined && { foreign }) }
    },

    async find(rotation, signal) {
      const found = await describe(signal)
      const version = findVersion(found, stage.current)
      const current = version === undefined ? undefined : await readText(version, signal)
      const pending = isPending(found, rotation) ? await readText(rotation, signal) : undefined
      return { ...(current && { current }), ...(pending && { pending: pending.value }), finished: current?.version === rotation }
    },

    async create(rotation, value, signal) {
      const found = await describe(signal)
      if (found.stages.has(rotation)) return false
      const current = findVersion(found, stage.current)
      // It would take AWSPENDING from the version of whoever else is at it.
      const foreign = findForeign(id, found)
      if (foreign !== undefined || current === undefined) throw refuse(foreign ?? missingSentence(id))
      // `exists`: by another process at the same moment, with a value that counts instead of this one.
      return (await calls.put(id, { id: rotation, value, stages: [stage.pending, `${fromLabel}${current}`] }, signal)) === 'put'
    },

    async promote(rotation, signal) {
      const found = await describe(signal)
      const labels = found.stages.get(rotation) ?? []
      const from = labels.find((label) => label.startsWith(fromLabel))
      let replaced = from?.slice(fromLabel.length) ?? findVersion(found, stage.previous)
      if (!labels.includes(stage.current)) {
        replaced = findVersion(found, stage.current)
        if (!isPending(found, rotation) || replaced === undefined) throw overtaken(id)
        // AWSPREVIOUS goes to the version that AWSCURRENT is taken from.
        const moved = await calls.moveStage(id, { stage: stage.current, from: replaced, to: rotation }, signal)
        // Another process may have done it at the same moment.
        if (moved === 'not_there' && findVersion(await describe(signal), stage.current) !== rotation) throw overtaken(id)
      }
      await removeLabels(rotation, labels.filter((label) => label === stage.pending || label === from), signal)
      return { version: rotation, ...(replaced !== undefined && { replaced }) }
    },

    async abandon(rotation, signal) {
      const labels = (await describe(signal)).stages.get(rotation) ?? []
      if (labels.includes(stage.current)) return
      await removeLabels(rotation, labels.filter((label) => label === stage.pending || label.startsWith(fromLabel)), signal)
    },

    async findReplaced(version, signal) {
      const found = await describe(signal)
      const current = findVersion(found, stage.current)
      if (current === undefined || current === version) return undefined
      const [replaced, now] = [await readText(version, signal), await readText(current, signal)]
      return replaced && now && { value: replaced.value, current: now.value }
    },

    async retire(version, signal) {
      const labels = (await describe(signal)).stages.get(version) ?? []
      if (labels.includes(stage.current)) log.warn('a version that was replaced is in force again, put so by hand: it is not retired', { secret: id, version })
      else await removeLabels(version, labels.filter((label) => label === stage.previous || label === stage.pending || label.startsWith(fromLabel)), signal)
    },
  }
}

/** The version that has a label. */
export function findVersion({ stages }: DescribedSecret, label: string): string | undefined {
  return [...stages].find(([, labels]) => labels.includes(label))?.[0]
}

/** Whether a version waits to come into force in place of the one that was there when it was made. */
function isPending(found: DescribedSecret, rotation: string): boolean {
  const labels = found.stages.get(rotation) ?? []
  return labels.includes(stage.pending) && !labels.includes(stage.current) && labels.includes(`${fromLabel}${findVersion(found, stage.current)}`)
}

/** Who else replaces the secret, in words; who it is, AWS does not say. */
export function findForeign(id: string, { stages, rotatedBy, nextRotationMs }: DescribedSecret): string | undefined {
  const pending = [...stages].find(([, labels]) => labels.includes(stage.pending) && !labels.includes(stage.current))
  if (pending !== undefined) {
    const [version, labels] = pending
    const who = labels.some((label) => label.startsWith(fromLabel)) ? 'Another tool of Stint, or another Stint,' : 'Somebody else'
    return `${who} has begun to rotate the secret ${id}: version ${version} is AWSPENDING. Stint waits until that is over; of a rotation that came to nothing an admin takes the label away (aws secretsmanager update-secret-version-stage).`
  }
  if (rotatedBy === undefined) return undefined
  const next = nextRotationMs === undefined ? '' : `, next at ${formatTime(nextRotationMs)}`
  return `AWS itself rotates the secret ${id} (${rotatedBy}${next}): Stint leaves it to that. An admin switches one of the two off.`
}

function overtaken(id: string): ConnectorError {
  return refuse(`Another value of the secret ${id} was put in force by hand meanwhile, or the rotation was given up: what is in force stays.`)
}

function refuse(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage })
}
