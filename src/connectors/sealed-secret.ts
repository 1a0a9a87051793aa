import { formatTime } from '../kernel/clock.ts'
import { formatDuration } from '../kernel/duration.ts'
import { isSameSecret } from '../kernel/secret.ts'
import type { SealedSecretConfig } from '../policy/kinds/sealed-secret.ts'
import { ConnectorError, type Connector, type Ended, type Ending, type Finding, type Minted, type SealedVersions } from './connector.ts'
import { describeLent, nameVariable, waitForReplacement } from './lent-secret.ts'
import { rotateSecret, type SecretStore } from './rotated-secret.ts'
import { openRotator } from './rotators/open-rotator.ts'
import { readReference, sealedSecretKind } from './secret-reference.ts'

/**
 * A secret that Stint keeps itself, lent as it is. Nothing is made for a grant, so nothing can be taken back: a value that was
 * lent is good until it is replaced, and the grant says so (invariant 8).
 */
export const sealedSecretConnector: Connector = {
  kind: sealedSecretKind,
  open(tool, context) {
    // The catalog has parsed it by the schema of this kind.
    const { secret: name, env = nameVariable(tool.name), rotation } = tool.config as SealedSecretConfig
    const { sealedVersions } = context
    const rotator = rotation && openRotator(rotation.rotator, { tool, context })

    async function mint(): Promise<Minted> {
      const { current } = await sealedVersions.find(name)
      if (current === undefined) throw missing(name)
      return describeLent({ secret: name, version: current.version, value: current.value }, env)
    }

    async function revoke({ reference }: Ending): Promise<Ended> {
      // A mint reads, and no more: what was given to nobody is nowhere.
      if (reference === undefined) return { status: 'ended' }
      const { secret, version } = readReference(reference)
      const { current, pending, previous, older = [] } = await sealedVersions.find(secret)
      if (![current, pending, previous, ...older].some((one) => one?.version === version)) return { status: 'ended' }
      const what = `What was lent, version ${version} of the sealed secret ${secret}, is good until it is replaced`
      const who = rotation === undefined ? `: an admin changes it where it is used, and puts the new one with stint secret put ${secret}` : current?.version !== version ? ': it is, and opens nothing any more once it is retired' : ': its rotation does that'
      return waitForReplacement(`${what}${who}.`, context.nowMs())
    }

    async function check(signal: AbortSignal): Promise<readonly Finding[]> {
      try {
        const { current, pending, previous, older = [] } = await sealedVersions.find(name)
        if (current === undefined) return [{ ok: false, sentence: missing(name).adminMessage }]
        describeLent({ secret: name, version: current.version, value: current.value }, env)
        const others = [...[...older, previous].map((one) => one && `version ${one.version} may still open something`), pending && `version ${pending.version} is to be the next`].filter((one) => one !== undefined)
        const also = others.length === 0 ? '' : `; ${others.join(', and ')}`
        const life = rotation === undefined ? 'Stint does not replace it: an admin does, with stint secret put.' : `It is replaced every ${formatDuration(rotation.every)}.`
        return [
          { ok: true, sentence: `The sealed secret ${name} is kept: version ${current.version} is in use since ${formatTime(current.sinceMs)}${also}.` },
          { ok: true, sentence: life },
          ...((await rotator?.check?.(current.value, signal)) ?? []),
        ]
      } catch (error) {
        return [{ ok: false, sentence: error instanceof ConnectorError ? error.adminMessage : 'The sealed secret could not be looked at.' }]
      }
    }

    return {
      effect: rotation === undefined ? 'expiry' : 'propagating',
      undo: 'by_grant',
      ...(rotation && rotator && { rotation: rotateSecret({ everySeconds: rotation.every, store: createSealedStore(name, sealedVersions), rotator, judge: (value) => void describeLent({ secret: name, version: '', value }, env) }) }),
      mint,
      revoke,
      check,
      close: async () => rotator?.close(),
    }
  },
}

/** The sealed versions of one secret as a rotation sees them. */
export function createSealedStore(name: string, versions: SealedVersions): SecretStore {
  return {
    async look() {
      const { current, pending, previous, older = [] } = await versions.find(name)
      return {
        ...(current && { current: { version: current.version, sinceMs: current.sinceMs } }),
        ...(previous && { replaced: [...older, previous].map(({ version }) => version) }),
        // Of another tool that describes the same secret.
        ...(pending && { foreign: `Another rotation of the sealed secret ${name} is under way since ${formatTime(pending.sinceMs)}: no two tools should rotate one secret.` }),
      }
    },
    async find(rotation) {
      const { current, pending } = await versions.find(name)
      return { ...(current && { current }), ...(pending?.rotation === rotation && { pending: pending.value }), finished: current?.rotation === rotation }
    },
    async create(rotation, value) {
      const kept = await versions.create(name, rotation, value)
      return isSameSecret(kept.value, value)
    },
    promote: (rotation) => versions.promote(name, rotation),
    abandon: (rotation) => versions.abandon(name, rotation),
    async findReplaced(version) {
      const { current, previous, older = [] } = await versions.find(name)
      const replaced = [...older, previous].find((one) => one?.version === version)
      return current !== undefined && replaced !== undefined ? { value: replaced.value, current: current.value } : undefined
    },
    retire: (version) => versions.retire(name, version),
  }
}

function missing(name: string): ConnectorError {
  return new ConnectorError({
    outcome: 'nothing_done',
    publicMessage: 'The tool has no secret to lend yet: an admin sees which with stint tool check.',
    adminMessage: `There is no sealed secret ${name}: an admin puts it, with stint secret put ${name}.`,
  })
}
