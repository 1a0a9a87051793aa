import type * as Sdk from '@aws-sdk/client-iam'
import { z } from 'zod'
import { Secret } from '../../kernel/secret.ts'
import { askAws, type AwsAccess, type AwsKey } from '../aws-client.ts'
import { explainAwsFailure, readAwsRefusal, type AwsCall } from '../aws-failure.ts'
import { ConnectorError } from '../connector.ts'

/** The access keys of one IAM user, by one of them. Each call throws `ConnectorError`. */
export interface IamKeys {
  /** The ids of all of them. */
  list(signal: AbortSignal): Promise<readonly string[]>
  /** Whether it was never used, as far as AWS knows. */
  isUnused(id: string, signal: AbortSignal): Promise<boolean>
  /** Makes another one, each time; as JSON. What is lost of the answer is `unknown`. */
  create(signal: AbortSignal): Promise<Secret>
  /** Has it open nothing any more. Returns whether the user had it, and the key by which this asked was good. */
  delete(id: string, signal: AbortSignal): Promise<boolean>
}

const created = z.object({
  AccessKey: z.object({ AccessKeyId: z.string().regex(/^[A-Z0-9]{16,128}$/), SecretAccessKey: z.string().regex(/^[\x21-\x7e]{16,256}$/), Status: z.literal('Active').optional() }),
})

/** Nobody's mistake is meant by these two: there is no such key, or the one that asked is none. */
const gone = /^(?:NoSuchEntity|InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId)$/

/** Loads the SDK, which most brokers never need. */
export async function openIamKeys(access: AwsAccess, by: AwsKey): Promise<IamKeys> {
  const { IAMClient, CreateAccessKeyCommand, DeleteAccessKeyCommand, GetAccessKeyLastUsedCommand, ListAccessKeysCommand, UpdateAccessKeyCommand } = await import('@aws-sdk/client-iam')
  // The SDK would repeat what is lost, and each CreateAccessKey makes another key.
  const client = new IAMClient({ ...access.settings('iam', by), maxAttempts: 1 })

  async function ask<T>(call: AwsCall, signal: AbortSignal, send: Parameters<typeof askAws<T>>[1]): Promise<T> {
    try {
      return await askAws(signal, send)
    } catch (error) {
      throw explainAwsFailure(error, call)
    }
  }

  return {
    async list(signal) {
      const call = { what: 'the request for the list of the access keys', right: 'iam:ListAccessKeys', reads: true }
      const { AccessKeyMetadata: found = [] }: Sdk.ListAccessKeysCommandOutput = await ask(call, signal, (options) => client.send(new ListAccessKeysCommand({}), options))
      return found.flatMap(({ AccessKeyId: id }) => (id === undefined ? [] : [id]))
    },

    async isUnused(id, signal) {
      const call = { what: `the question when the access key ${id} was used`, right: 'iam:GetAccessKeyLastUsed', reads: true }
      const { AccessKeyLastUsed: use }: Sdk.GetAccessKeyLastUsedCommandOutput = await ask(call, signal, (options) => client.send(new GetAccessKeyLastUsedCommand({ AccessKeyId: id }), options))
      return use !== undefined && use.LastUsedDate === undefined
    },

    async create(signal) {
      const call = { what: 'the request for an access key', right: 'iam:CreateAccessKey' }
      let answer: unknown
      try {
        answer = await askAws(signal, (options) => client.send(new CreateAccessKeyCommand({}), options))
      } catch (error) {
        if (readAwsRefusal(error)?.code === 'LimitExceeded') {
          throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `AWS has no room for another access key of Stint's user: an admin deletes the one that nobody needs.` })
        }
        const failure = explainAwsFailure(error, call)
        throw failure.outcome === 'nothing_done' ? failure : lose(failure.publicMessage, failure)
      }
      const parsed = created.safeParse(answer)
      if (!parsed.success) throw lose(`AWS answered ${call.what} with something else than an active one.`)
      const { AccessKeyId, SecretAccessKey } = parsed.data.AccessKey
      return new Secret(JSON.stringify({ AccessKeyId, SecretAccessKey }))
    },

    async delete(id, signal) {
      try {
        // First of all, so that it opens nothing even where it cannot be deleted. An inactive key could not delete itself.
        if (id !== by.accessKeyId) await askAws(signal, (options) => client.send(new UpdateAccessKeyCommand({ AccessKeyId: id, Status: 'Inactive' }), options))
        await askAws(signal, (options) => client.send(new DeleteAccessKeyCommand({ AccessKeyId: id }), options))
        return true
      } catch (error) {
        const code = readAwsRefusal(error)?.code ?? ''
        if (code === 'NoSuchEntity' || (gone.test(code) && id === by.accessKeyId)) return false
        throw explainAwsFailure(error, { what: `the end of the access key ${id}`, right: 'iam:UpdateAccessKey or iam:DeleteAccessKey' })
      }
    },
  }
}

function lose(publicMessage: string, cause?: unknown): ConnectorError {
  return new ConnectorError({ outcome: 'unknown', publicMessage: `${publicMessage} There may be one that nobody holds: the next try deletes it.`, cause })
}
