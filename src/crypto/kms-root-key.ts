import type { KeyObject } from 'node:crypto'
import type { KMSClient } from '@aws-sdk/client-kms'
import { BrokerError } from '../kernel/errors.ts'
import type { RootKey } from './root-key.ts'
import { importKey } from './seal.ts'

export interface KmsRootKeyOptions {
  /** The ARN of the key itself, no alias's. */
  readonly key: string
  /** In place of AWS's own address of the key's region. */
  readonly endpoint?: string | undefined
  /** Bound into the encryption context: a key that was wrapped for one broker does not open as another one's. */
  readonly trustDomain: string
  readonly timeoutMs?: number
}

const triesMax = 3

/**
 * The root key that AWS KMS keeps: it wraps and unwraps the sealing keys' 32 bytes, and is asked at the start and when one of
 * them is made or moved, never for a request. Its credentials are those that the AWS SDK finds by itself. The encryption
 * context, which CloudTrail shows and a key policy can ask for, names what is wrapped.
 */
export function createKmsRootKey({ key, endpoint, trustDomain, timeoutMs = 5_000 }: KmsRootKeyOptions): RootKey {
  let connecting: Promise<KMSClient> | undefined
  const connect = () =>
    (connecting ??= import('@aws-sdk/client-kms').then(
      ({ KMSClient }) =>
        new KMSClient({
          region: key.split(':')[3] ?? '',
          ...(endpoint !== undefined && { endpoint }),
          maxAttempts: triesMax,
          requestHandler: { connectionTimeout: timeoutMs, requestTimeout: timeoutMs, throwOnRequestTimeout: true },
        }),
    ))

  async function ask<T extends { readonly KeyId?: string | undefined }>(call: (client: KMSClient, abortSignal: AbortSignal) => Promise<T>): Promise<T> {
    let answer: T
    try {
      // The SDK's own limits do not count the time that it takes to find credentials.
      const signal = AbortSignal.timeout(triesMax * timeoutMs)
      answer = await Promise.race([connect().then((client) => call(client, signal)), rejectWhenAborted(signal)])
    } catch (error) {
      throw explain(key, error)
    }
    if (answer.KeyId !== key) throw refuse(`AWS KMS answered for ${String(answer.KeyId)} where it was asked for ${key}: look at root_key.kms.endpoint`)
    return answer
  }

  const context = (version: number) => ({ stint: 'sealing-key', trust_domain: trustDomain, version: String(version) })
  return {
    name: key,
    async wrap(sealingKey, version) {
      const { EncryptCommand } = await import('@aws-sdk/client-kms')
      const command = new EncryptCommand({ KeyId: key, Plaintext: sealingKey.export(), EncryptionContext: context(version) })
      const { CiphertextBlob } = await ask((client, abortSignal) => client.send(command, { abortSignal }))
      if (CiphertextBlob === undefined || CiphertextBlob.length === 0) throw refuse(`AWS KMS gave no ciphertext for ${key}`)
      return Buffer.from(CiphertextBlob).toString('base64url')
    },
    async unwrap(wrapped, version): Promise<KeyObject | undefined> {
      const { DecryptCommand } = await import('@aws-sdk/client-kms')
      const command = new DecryptCommand({ KeyId: key, CiphertextBlob: Buffer.from(wrapped, 'base64url'), EncryptionContext: context(version) })
      try {
        const { Plaintext } = await ask((client, abortSignal) => client.send(command, { abortSignal }))
        return Plaintext?.length === 32 ? importKey(Plaintext) : undefined
      } catch (error) {
        if (error instanceof BrokerError && notOurs.has(nameOf(error.cause))) return undefined
        throw error
      }
    },
  }
}

/** Another key wrapped it, or for another version or broker, or it is damaged. */
const notOurs: ReadonlySet<string> = new Set(['InvalidCiphertextException', 'IncorrectKeyException'])

/** What the operator does about each of AWS's refusals. All others, and silence, are worth another try. */
const refusals: Readonly<Record<string, string>> = {
  AccessDeniedException: 'the credentials of this process may not use it: allow them kms:Encrypt and kms:Decrypt on it, in the key policy or in theirs',
  DisabledException: 'it is disabled: enable it again',
  KMSInvalidStateException: 'its state does not allow it, as when it is to be deleted: cancel that',
  NotFoundException: 'there is no such key in that account and region',
  InvalidKeyUsageException: 'it is no key for symmetric encryption',
  InvalidCiphertextException: 'it did not encrypt this',
  IncorrectKeyException: 'it did not encrypt this',
  CredentialsProviderError: 'this process has no AWS credentials: give it some as for any program that uses an AWS SDK',
  UnrecognizedClientException: 'AWS does not know the credentials of this process',
  InvalidClientTokenId: 'AWS does not know the credentials of this process',
  InvalidSignatureException: 'AWS does not accept the credentials of this process, or its clock is wrong',
  ExpiredTokenException: 'the AWS credentials of this process have expired',
  ValidationException: 'AWS calls the request malformed',
}

function explain(key: string, cause: unknown): BrokerError {
  const name = nameOf(cause)
  const reason = refusals[name]
  if (reason !== undefined) return refuse(`AWS KMS refuses the root key ${key}: ${reason} (${name})`, cause)
  const publicMessage = `AWS KMS cannot be asked for the root key ${key} at the moment (${name}): nothing was changed; try again shortly.`
  return new BrokerError({ code: 'unavailable', publicMessage, cause })
}

function nameOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown error'
  // A connection that was not made says so in its code alone.
  return error.name === 'Error' || error.name === 'AggregateError' ? ('code' in error ? String(error.code) : error.name) : error.name
}

function rejectWhenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
}

function refuse(reason: string, cause?: unknown): BrokerError {
  return new BrokerError({ code: 'config_invalid', publicMessage: `${reason}.`, ...(cause !== undefined && { cause }) })
}
