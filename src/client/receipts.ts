import { readObject, readObjects, type Shape } from './answer.ts'
import { clientError } from './errors.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'
import type { Receipt } from './log-records.ts'

/** What an operator may prove of one grant: a part of `AdminClient`. */
export interface ReceiptMethods {
  /** The grant's entries with the proof that they are in the log. It is not verified here: `stint audit verify` does that. */
  getReceipt(grant: string): Promise<Receipt>
}

/** The methods of a client that sends with an operator's credential. */
export function createReceiptMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): ReceiptMethods {
  return {
    async getReceipt(grant) {
      if (!/^grant_[0-9a-z]{26}$/.test(grant)) throw clientError('invalid_option', "the grant's id is malformed: it is a token's jti, grant_ and 26 characters.")
      // A long log has many hashes to read for it.
      const { body } = await send({ method: 'GET', path: `/v1/audit/receipts/${grant}`, timeoutMsDefault: 60_000 })
      const receipt = readObject(body, receiptShape, 'a receipt')
      readObjects(receipt['entries'], entryShape, 'a receipt')
      // The shape was checked; the type states the same.
      return receipt as unknown as Receipt
    },
  }
}

const receiptShape: Shape = { receipt: 'number', grant: 'string', entries: 'array', left_out: 'number?', checkpoint: 'string' }
const entryShape: Shape = { index: 'number', body: 'string', proof: 'list of strings' }
