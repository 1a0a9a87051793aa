import { readObject, readObjects, type Shape } from './answer.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'
import { encodeSegment } from './path.ts'
import type { BegunRotation, RotationOrder, RotationRecord } from './rotation-records.ts'

/** What an operator may do about what lives long: a part of `AdminClient`. */
export interface RotationMethods {
  listRotations(): Promise<readonly RotationRecord[]>
  getRotation(name: string): Promise<RotationRecord>
  /** Orders a new version now, and does not wait for it. */
  rotate(name: string, order?: RotationOrder): Promise<BegunRotation>
}

/** The methods of a client that sends with an operator's credential. */
export function createRotationMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): RotationMethods {
  const path = '/v1/rotations'
  const of = (name: string): string => `${path}/${encodeSegment(name, "the rotation's name")}`
  return {
    async listRotations() {
      const { body } = await send({ method: 'GET', path })
      // The shape was checked; the type states the same. So for each cast below.
      return readObjects(readObject(body, { rotations: 'array' }, 'a list of rotations')['rotations'], rotationShape, 'a rotation') as unknown as readonly RotationRecord[]
    },
    async getRotation(name) {
      return readObject((await send({ method: 'GET', path: of(name) })).body, rotationShape, 'a rotation') as unknown as RotationRecord
    },
    async rotate(name, { leaked, reason } = {}) {
      const { body } = await send({ method: 'POST', path: of(name), json: { leaked, reason } })
      return readObject(body, { ...rotationShape, ordered: 'string?', audit_index: 'number' }, 'a rotation') as unknown as BegunRotation
    },
  }
}

const rotationShape: Shape = {
  name: 'string',
  kind: 'string',
  tool: 'string?',
  every_seconds: 'number?',
  state: 'string',
  id: 'string?',
  step: 'string?',
  reason: 'string?',
  last_id: 'string?',
  last_outcome: 'string?',
  last_at: 'string?',
  version: 'string?',
  retires_at: 'string?',
  next_at: 'string?',
  overdue: 'boolean',
  overdue_since: 'string?',
  problem: 'string?',
  tries: 'number?',
  try_at: 'string?',
}
