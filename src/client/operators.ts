import { readAuditIndex, readObject, readObjects, type Shape } from './answer.ts'
import { clientError } from './errors.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'
import type { CallerRecord, IssuedOperator, Lifetime, NewOperator, OperatorPage, OperatorQuery, OperatorRecord, Recorded } from './records.ts'

/** What an operator may do about operators: a part of `AdminClient`. */
export interface OperatorMethods {
  getCaller(): Promise<CallerRecord>
  createOperator(operator: NewOperator): Promise<Recorded<IssuedOperator>>
  getOperator(name: string): Promise<OperatorRecord>
  listOperators(query?: OperatorQuery): Promise<OperatorPage>
  /** A new credential in place of the old one, which ends at once; it lasts as long unless a lifetime is given. */
  rotateOperator(name: string, lifetime?: Lifetime): Promise<Recorded<IssuedOperator>>
  /** The same for the credential that this client acts with, and can no longer use afterwards. */
  rotateOwnCredential(): Promise<Recorded<IssuedOperator>>
  revokeOperator(name: string, reason?: string): Promise<Recorded<OperatorRecord>>
}

/** The methods of a client that sends with an operator's credential. */
export function createOperatorMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): OperatorMethods {
  const operators = '/v1/operators'
  return {
    async getCaller() {
      const { body } = await send({ method: 'GET', path: '/v1/operator' })
      // The shape was checked; the type states the same. So for each cast below.
      return readObject(body, callerShape, 'an operator') as unknown as CallerRecord
    },
    createOperator: async (operator) => readIssued(await send({ method: 'POST', path: operators, json: operator })),
    getOperator: async (name) => readOperator((await send({ method: 'GET', path: pathOf(name) })).body),
    async listOperators(query = {}) {
      const { body } = await send({ method: 'GET', path: operators, query: { ...query } })
      const page = readObject(body, { operators: 'array', next: 'string?' }, 'a list of operators')
      return {
        operators: readObjects(page['operators'], {}, 'a list of operators').map(readOperator),
        ...(typeof page['next'] === 'string' && { next: page['next'] }),
      }
    },
    rotateOperator: async (name, lifetime = {}) =>
      readIssued(await send({ method: 'POST', path: `${pathOf(name)}/rotate`, json: lifetime })),
    rotateOwnCredential: async () => readIssued(await send({ method: 'POST', path: '/v1/operator/rotate' })),
    async revokeOperator(name, reason) {
      const { body, headers } = await send({ method: 'POST', path: `${pathOf(name)}/revoke`, json: { reason } })
      return { ...readOperator(body), ...readAuditIndex(headers) }
    },
  }

  function pathOf(name: string): string {
    // A dot segment would vanish from the URL and ask for something else.
    if (name === '' || name === '.' || name === '..') throw clientError('invalid_option', "the operator's name is missing or malformed.")
    return `${operators}/${encodeURIComponent(name)}`
  }
}

const callerShape: Shape = { id: 'string', name: 'string', role: 'string', session: 'string?', expires_at: 'string?' }
const operatorShape: Shape = {
  name: 'string',
  id: 'string',
  role: 'string',
  status: 'string',
  created_at: 'string',
  expires_at: 'string?',
  revoked_at: 'string?',
}

function readOperator(body: unknown): OperatorRecord {
  return readObject(body, operatorShape, 'an operator') as unknown as OperatorRecord
}

function readIssued({ body, headers }: ApiAnswer): Recorded<IssuedOperator> {
  const issued = readObject(body, { ...operatorShape, credential: 'string' }, 'an operator') as unknown as IssuedOperator
  return { ...issued, ...readAuditIndex(headers) }
}
