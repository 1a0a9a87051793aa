import { isSameSecret, type Secret } from '../kernel/secret.ts'
import { ConnectorError, type OpenedVersion, type RotatableSecret } from './connector.ts'
import type { Rotator } from './rotators/rotator.ts'

/** The largest value that any store takes, in bytes of UTF-8. */
const secretBytesMax = 64 * 1024

/** For what is made and not kept there is so much time in addition. */
const discardMsMax = 10_000

/** How far a rotation has come in the store of its secret. */
export interface RotationState {
  readonly current?: Pick<OpenedVersion, 'version' | 'value'>
  /** Its value, from `create` on until it is in force, was given up, or another one was put in force by hand. */
  readonly pending?: Secret
  /** Its value is in force. */
  readonly finished: boolean
}

/** Where a secret is kept, in versions. Each call may be repeated with the same result. Throws `ConnectorError`. */
export interface SecretStore {
  readonly look: RotatableSecret['look']
  find(rotation: string, signal: AbortSignal): Promise<RotationState>
  /** Keeps a value as the pending one of that rotation; the first one counts. Returns whether that is this one. */
  create(rotation: string, value: Secret, signal: AbortSignal): Promise<boolean>
  /** Throws where another value was put in force since `create`. */
  readonly promote: RotatableSecret['finish']
  readonly abandon: RotatableSecret['abandon']
  /** A version that was replaced, where its value is still there. */
  findReplaced(version: string, signal: AbortSignal): Promise<{ readonly value: Secret; readonly current: Secret } | undefined>
  /** Forgets a version that was replaced. */
  retire(version: string, signal: AbortSignal): Promise<void>
}

export interface RotatedSecret {
  readonly everySeconds: number
  readonly store: SecretStore
  readonly rotator: Rotator
  /** Throws where a value could not be lent as the catalog describes it. */
  readonly judge?: (value: Secret) => void
}

/** The four steps over a store, which knows nothing of the system behind the secret, and a rotator, which knows nothing else. */
export function rotateSecret({ everySeconds, store, rotator, judge }: RotatedSecret): RotatableSecret {
  /**
   * What the system has made, and nobody keeps, must not be good there; also where there is no time left for it. The store may
   * have it although it did not say so; where it cannot be asked, a run that comes to nothing does less harm.
   */
  async function discard(rotation: string, value: Secret, current: Secret, signal: AbortSignal, error?: unknown): Promise<void> {
    const found = await store.find(rotation, signal).catch(() => undefined)
    if ([found?.pending, found?.current?.value].some((one) => one !== undefined && isSameSecret(one, value))) return
    try {
      await rotator.abandon?.(value, current, { kept: false }, AbortSignal.timeout(discardMsMax))
    } catch (cause) {
      const sentences = [error, cause].map((one) => (one instanceof ConnectorError ? one.adminMessage : one === undefined ? '' : 'The new value could not be kept.'))
      const publicMessage = `${sentences.join(' ').trim()} What was made may be good there for ever, and nobody holds it: an admin looks for it and deletes it.`
      throw new ConnectorError({ outcome: 'unknown', publicMessage, cause })
    }
  }

  return {
    everySeconds,
    look: store.look,
    async create(rotation, signal) {
      const { current, pending, finished } = await store.find(rotation, signal)
      if (pending !== undefined || finished) return
      if (current === undefined) throw refuse('There is no value in force that a new one could follow: an admin puts one.')
      const next = await rotator.create(rotation, current.value, signal)
      // Nothing was made that could be discarded.
      if (isSameSecret(next, current.value)) throw refuse('The new value is the one that is in force already.')
      try {
        checkNext(next)
        judge?.(next)
        if (await store.create(rotation, next, signal)) return
      } catch (error) {
        await discard(rotation, next, current.value, signal, error)
        throw error
      }
      await discard(rotation, next, current.value, signal)
    },
    async set(rotation, signal) {
      const { current, pending } = await store.find(rotation, signal)
      // What was overtaken is not to be accepted anywhere; `test` says so.
      if (current !== undefined && pending !== undefined) await rotator.set(rotation, pending, current.value, signal)
    },
    async test(rotation, signal) {
      const { pending, finished } = await store.find(rotation, signal)
      if (finished) return { ok: true }
      if (pending === undefined) return { ok: false, why: 'Another value was put in force by hand meanwhile, or the rotation was given up: what is in force stays.' }
      return rotator.test(pending, signal)
    },
    finish: store.promote,
    async abandon(rotation, signal) {
      const { current, pending } = await store.find(rotation, signal)
      // Until the system has been told, it is kept: it may be what opens it, or be good there for ever.
      if (current !== undefined && pending !== undefined) await rotator.abandon?.(pending, current.value, { kept: true }, signal)
      await store.abandon(rotation, signal)
    },
    async retire(version, options, signal) {
      const replaced = rotator.retire && (await store.findReplaced(version, signal))
      if (replaced !== undefined) await rotator.retire?.(replaced.value, replaced.current, options, signal)
      await store.retire(version, signal)
    },
  }
}

function checkNext(next: Secret): void {
  const text = next.reveal()
  if (text === '' || Buffer.byteLength(text) > secretBytesMax) throw refuse(`The new value is empty, or larger than ${secretBytesMax} bytes.`)
}

function refuse(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage })
}
