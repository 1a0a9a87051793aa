import { readObject, readObjects, type Shape } from './answer.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'
import type { SigningKeyList, SigningKeyRotated, SigningKeyRotation } from './records.ts'

/** What an operator may do about the keys that sign tokens: a part of `AdminClient`. */
export interface SigningKeyMethods {
  listSigningKeys(): Promise<SigningKeyList>
  rotateSigningKeys(rotation?: SigningKeyRotation): Promise<SigningKeyRotated>
}

/** The methods of a client that sends with an operator's credential. */
export function createSigningKeyMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): SigningKeyMethods {
  const path = '/v1/signing-keys'
  return {
    async listSigningKeys() {
      const list = readObject((await send({ method: 'GET', path })).body, { keys: 'array', next_rotation_at: 'string' }, 'a list of signing keys')
      readObjects(list['keys'], keyShape, 'a signing key')
      // The shape was checked; the type states the same. So for the cast below.
      return list as unknown as SigningKeyList
    },
    async rotateSigningKeys(rotation = {}) {
      const { body } = await send({ method: 'POST', path: `${path}/rotate`, json: rotation })
      const rotated = readObject(body, rotatedShape, 'a rotation of signing keys')
      readObjects(rotated['replaces'], { kid: 'string', verifies_until: 'string' }, 'a rotation of signing keys')
      if (rotated['ended_tokens'] !== undefined) readObject(rotated['ended_tokens'], endedShape, 'a rotation of signing keys')
      return rotated as unknown as SigningKeyRotated
    },
  }
}

const keyShape: Shape = { kid: 'string', alg: 'string', status: 'string', created_at: 'string', signs_from: 'string', verifies_until: 'string?' }
const rotatedShape: Shape = { kid: 'string', signs_from: 'string', replaces: 'array', ended_tokens: 'object?', audit_index: 'number' }
const endedShape: Shape = { count: 'number', more: 'boolean', effect: 'string', cached_until: 'string' }
