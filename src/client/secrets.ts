import { readAuditIndex, readObject, readObjects, type Shape } from './answer.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'
import { encodeSegment } from './path.ts'
import type { Recorded } from './records.ts'
import type { SecretPage, SecretQuery, SecretRecord, SecretVersionPage, SecretVersionQuery, SecretVersionRecord } from './secret-records.ts'

/** What an operator may do about the secrets that the broker keeps for tools: a part of `AdminClient`. */
export interface SecretMethods {
  /** Hands over a secret, in place of the one that the name had before. */
  putSecret(name: string, value: string): Promise<Recorded<SecretRecord>>
  listSecrets(query?: SecretQuery): Promise<SecretPage>
  listSecretVersions(name: string, query?: SecretVersionQuery): Promise<SecretVersionPage>
}

/** The methods of a client that sends with an operator's credential. */
export function createSecretMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): SecretMethods {
  const path = '/v1/secrets'
  return {
    async putSecret(name, value) {
      const { body, headers } = await send({ method: 'PUT', path: `${path}/${encodeSegment(name, "the secret's name")}`, json: { value } })
      return { ...readSecret(body), ...readAuditIndex(headers) }
    },
    async listSecrets(query = {}) {
      const { body } = await send({ method: 'GET', path, query: { ...query } })
      const page = readObject(body, { secrets: 'array', next: 'string?' }, 'a list of secrets')
      return {
        secrets: readObjects(page['secrets'], {}, 'a list of secrets').map(readSecret),
        ...(typeof page['next'] === 'string' && { next: page['next'] }),
      }
    },
    async listSecretVersions(name, query = {}) {
      const { body } = await send({ method: 'GET', path: `${path}/${encodeSegment(name, "the secret's name")}/versions`, query: { ...query } })
      const what = 'a list of versions'
      const page = readObject(body, { versions: 'array', next: 'number?' }, what)
      return {
        // The shape was checked; the type states the same.
        versions: readObjects(page['versions'], versionShape, what) as unknown as SecretVersionRecord[],
        ...(typeof page['next'] === 'number' && { next: page['next'] }),
      }
    },
  }
}

const secretShape: Shape = { name: 'string', version: 'number', created_at: 'string', needs_reconnection: 'object?' }

const versionShape: Shape = { version: 'number', stage: 'string', created_at: 'string', rotation: 'string?' }

function readSecret(body: unknown): SecretRecord {
  const secret = readObject(body, secretShape, 'a secret')
  if (secret['needs_reconnection'] !== undefined) readObject(secret['needs_reconnection'], { tool: 'string', problem: 'string' }, 'a secret')
  // The shape was checked; the type states the same.
  return secret as unknown as SecretRecord
}
