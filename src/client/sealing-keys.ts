import { readObject, readObjects, type Shape } from './answer.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'

/** A key that seals what the database keeps secret. */
export interface SealingKeyRecord {
  readonly version: number
  readonly status: 'next' | 'sealing' | 'replaced' | 'erased'
  readonly created_at: string
  readonly seals_from: string
  /** The name of the root key that wraps it. */
  readonly root?: string
}

export interface SealingKeyList {
  readonly keys: readonly SealingKeyRecord[]
  /** The root key of the process that answered. */
  readonly root: string
  readonly previous_root?: string
  /** How many sealed values are still under a key that was replaced. */
  readonly remaining: number
  readonly next_rotation_at: string
}

/** What a move of the sealing keys to the root key came to. */
export interface SealingKeysRewrapped {
  readonly root: string
  readonly previous?: string
  /** The versions that were wrapped anew. */
  readonly moved: readonly number[]
  /** Keys under a root key that the process which answered was not given. */
  readonly elsewhere: readonly { readonly version: number; readonly root: string }[]
  readonly previous_is_needed: boolean
  readonly audit_index?: number
}

/** What an operator may do about the keys that seal: a part of `AdminClient`. */
export interface SealingKeyMethods {
  listSealingKeys(): Promise<SealingKeyList>
  rewrapSealingKeys(): Promise<SealingKeysRewrapped>
}

/** The methods of a client that sends with an operator's credential. */
export function createSealingKeyMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): SealingKeyMethods {
  const path = '/v1/sealing-keys'
  return {
    async listSealingKeys() {
      const list = readObject((await send({ method: 'GET', path })).body, listShape, 'a list of sealing keys')
      readObjects(list['keys'], keyShape, 'a sealing key')
      // The shape was checked; the type states the same. So for the cast below.
      return list as unknown as SealingKeyList
    },
    async rewrapSealingKeys() {
      const rewrapped = readObject((await send({ method: 'POST', path: `${path}/rewrap` })).body, rewrappedShape, 'a move of sealing keys')
      readObjects(rewrapped['elsewhere'], { version: 'number', root: 'string' }, 'a sealing key')
      return rewrapped as unknown as SealingKeysRewrapped
    },
  }
}

const listShape: Shape = { keys: 'array', root: 'string', previous_root: 'string?', remaining: 'number', next_rotation_at: 'string' }
const keyShape: Shape = { version: 'number', status: 'string', created_at: 'string', seals_from: 'string', root: 'string?' }
const rewrappedShape: Shape = { root: 'string', previous: 'string?', moved: 'array', elsewhere: 'array', previous_is_needed: 'boolean', audit_index: 'number?' }
