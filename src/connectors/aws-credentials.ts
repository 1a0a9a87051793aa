import { z } from 'zod'
import { parseStrictObject } from '../identity/strict-json.ts'
import type { Secret } from '../kernel/secret.ts'
import type { AwsKey } from './aws-client.ts'
import { ConnectorError } from './connector.ts'

const key = z.strictObject({
  AccessKeyId: z.string().regex(/^[A-Z0-9]{16,128}$/),
  SecretAccessKey: z.string().regex(/^[\x21-\x7e]{16,256}$/),
  SessionToken: z.string().regex(/^[\x21-\x7e]{16,16384}$/).optional(),
})

/** What `aws iam create-access-key` prints. */
const created = z.strictObject({ AccessKey: key.omit({ SessionToken: true }).extend({ UserName: z.string(), Status: z.literal('Active'), CreateDate: z.string() }).partial({ UserName: true, Status: true, CreateDate: true }) })

/**
 * An access key as JSON: `{"AccessKeyId": …, "SecretAccessKey": …, "SessionToken": …}`, the last where it is a session's, or as
 * `aws iam create-access-key` prints it. Throws a `ConnectorError` that tells an admin its form, and nothing of the text.
 */
export function readAwsKey(text: Secret, what: string): AwsKey {
  const value = parseStrictObject(Buffer.from(text.reveal()))
  const whole = created.safeParse(value)
  const found = key.safeParse(whole.success ? { AccessKeyId: whole.data.AccessKey.AccessKeyId, SecretAccessKey: whole.data.AccessKey.SecretAccessKey } : value)
  if (found.success) {
    const { AccessKeyId: accessKeyId, SecretAccessKey: secretAccessKey, SessionToken: sessionToken } = found.data
    return { accessKeyId, secretAccessKey, ...(sessionToken !== undefined && { sessionToken }) }
  }
  throw new ConnectorError({
    outcome: 'nothing_done',
    publicMessage: "The tool's root credential cannot be used: an admin sees why with stint tool check.",
    adminMessage: `The tool's root credential cannot be used: ${what} is not JSON with just AccessKeyId, SecretAccessKey and, for a session, SessionToken, nor what aws iam create-access-key prints.`,
  })
}
