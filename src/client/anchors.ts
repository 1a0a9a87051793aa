import { readObject, readObjects, type Shape } from './answer.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'
import type { AnchorList, RestorationAcceptance, RestoredAccepted } from './log-records.ts'

/** What an operator may do about the checkpoints that are kept outside of the database: a part of `AdminClient`. */
export interface AnchorMethods {
  listAnchors(): Promise<AnchorList>
  /** Accepts that the log goes on without the checkpoints that hold it: all of them, as the list shows them. */
  acceptRestored(acceptance: RestorationAcceptance): Promise<RestoredAccepted>
}

/** The methods of a client that sends with an operator's credential. */
export function createAnchorMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): AnchorMethods {
  return {
    async listAnchors() {
      const list = readObject((await send({ method: 'GET', path: '/v1/log/anchors' })).body, listShape, 'a list of anchors')
      for (const { contradiction } of readObjects(list['anchors'], anchorShape, 'an anchor')) {
        if (contradiction !== undefined) readObject(contradiction, contradictionShape, 'an anchor')
      }
      // The shape was checked; the type states the same. So for the cast below.
      return list as unknown as AnchorList
    },
    async acceptRestored(acceptance) {
      const { body } = await send({ method: 'POST', path: '/v1/log/accept', json: acceptance })
      return readObject(body, acceptedShape, 'an accepted log') as unknown as RestoredAccepted
    },
  }
}

const listShape: Shape = { log_size: 'number', held: 'boolean', anchors: 'array' }
const anchorShape: Shape = { anchor: 'string', kind: 'string', kept_size: 'number?', behind_entries: 'number', failure: 'string?', contradiction: 'object?' }
const contradictionShape: Shape = { size: 'number', root: 'string?', why: 'string', kept_at: 'string?' }
const acceptedShape: Shape = {
  log_size: 'number',
  abandoned: 'array',
  proofs_from: 'string',
  kid: 'string',
  ended_sessions: 'number',
  cancelled_enrolments: 'number',
  audit_index: 'number',
}
