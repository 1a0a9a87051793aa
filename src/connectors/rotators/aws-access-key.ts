import { setTimeout } from 'node:timers/promises'
import type { Secret } from '../../kernel/secret.ts'
import type { AwsAccessKeyRotator } from '../../policy/kinds/rotators.ts'
import { askAws, openAws, type AwsKey } from '../aws-client.ts'
import { readAwsKey } from '../aws-credentials.ts'
import { explainAwsFailure, readAwsRefusal } from '../aws-failure.ts'
import { ConnectorError, type Tested } from '../connector.ts'
import { openIamKeys, type IamKeys } from './iam-keys.ts'
import { findAll, type Rotator, type RotatorPlace } from './rotator.ts'

/** IAM's own limit. */
const keysMax = 2

/** A new key is not known everywhere at once. What takes longer is for another try of the step. */
const knownMsMax = 12_000
const knownTryMs = 1_500

/**
 * The access key of an IAM user, by that key itself: it may create, list and delete the keys of its own user, which has none
 * but Stint's. `create` is not idempotent at AWS: what a lost answer has left behind was never used, by which the next one
 * knows it and deletes it.
 */
export function openAwsAccessKeyRotator(settings: AwsAccessKeyRotator, { tool }: RotatorPlace): Rotator {
  const access = openAws(settings, ['iam', 'sts'])

  function keyOf(value: Secret): AwsKey {
    const key = readAwsKey(value, `the value of the tool ${tool.name}`)
    if (key.sessionToken === undefined) return key
    throw refuse(`The value of the tool ${tool.name} is a session of AWS, which ends by itself: an admin puts the access key of an IAM user, as aws iam create-access-key prints it.`)
  }

  async function end(value: Secret, current: Secret, signal: AbortSignal): Promise<void> {
    const [key, inForce] = [keyOf(value), keyOf(current)]
    if (key.accessKeyId === inForce.accessKeyId) return
    if (await (await openIamKeys(access, inForce)).delete(key.accessKeyId, signal)) return
    // The user in force has it not: it is gone, or another user's, which it can say itself.
    await (await openIamKeys(access, key)).delete(key.accessKeyId, signal)
  }

  return {
    async create(_rotation, current, signal) {
      const key = keyOf(current)
      const keys = await openIamKeys(access, key)
      for (const id of await findRoom(keys, key.accessKeyId, signal)) await keys.delete(id, signal)
      return keys.create(signal)
    },

    // AWS takes it from the moment that it has made it.
    set: async () => undefined,

    async test(pending, signal) {
      const key = keyOf(pending)
      const { STSClient, GetCallerIdentityCommand } = await import('@aws-sdk/client-sts')
      const client = new STSClient(access.settings('sts', key))
      return untilKnown(key, signal, () => askAws(signal, (options) => client.send(new GetCallerIdentityCommand({}), options)))
    },

    retire: (value, current, _options, signal) => end(value, current, signal),
    abandon: (value, current, _options, signal) => end(value, current, signal),

    check: (current, signal) =>
      findAll(async () => {
        const key = keyOf(current)
        await findRoom(await openIamKeys(access, key), key.accessKeyId, signal)
        return [{ ok: true, sentence: `The access key ${key.accessKeyId} can see the keys of its user, and there is room for the next one.` }]
      }),

    close: access.close,
  }
}

/** The second key that is in the way, for IAM has room for two: left over from an earlier try, or else it throws. */
async function findRoom(keys: IamKeys, own: string, signal: AbortSignal): Promise<readonly string[]> {
  const others = (await keys.list(signal)).filter((id) => id !== own)
  if (others.length < keysMax - 1) return []
  for (const id of others) {
    if (await keys.isUnused(id, signal)) continue
    throw refuse(`The user of Stint's access key has another one, ${id}, which has been used, and there is no room for a third: an admin sees who has it, and deletes it with aws iam delete-access-key --access-key-id ${id}.`)
  }
  return others
}

/** Tries a key until AWS knows it. That it does not yet says nothing of it; that its secret is wrong does. */
async function untilKnown({ accessKeyId }: AwsKey, signal: AbortSignal, attempt: () => Promise<unknown>): Promise<Tested> {
  const untilMs = performance.now() + knownMsMax
  for (;;) {
    try {
      await attempt()
      return { ok: true }
    } catch (error) {
      const code = readAwsRefusal(error)?.code ?? ''
      if (code === 'SignatureDoesNotMatch') return { ok: false, why: `AWS does not accept the new access key ${accessKeyId}: its secret is not the one that AWS made.` }
      const failure = explainAwsFailure(error, { what: 'the question who the new access key is', right: 'sts:GetCallerIdentity', reads: true })
      if (!/^(?:InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId)$/.test(code)) throw failure
      const goesOn = performance.now() + knownTryMs < untilMs && (await setTimeout(knownTryMs, true, { signal }).catch(() => false))
      if (!goesOn) {
        throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `AWS does not know the new access key ${accessKeyId} yet, or not any more.`, retryAfterSeconds: 10, cause: failure })
      }
    }
  }
}

function refuse(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage })
}
