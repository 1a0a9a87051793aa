import { z } from 'zod'
import { receiptSchema } from '../audit/receipt.ts'
import { readReceipt } from '../broker/receipt.ts'
import { defineRoute, type Route } from './route.ts'

const receiptParams = z.strictObject({ grant: z.string().regex(/^grant_[0-9a-z]{26}$/, "must be the id of a grant, as in a token's jti") })

export const receiptRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/audit/receipts/:grant',
    access: ['admin', 'auditor'],
    summary: "A grant's receipt: its entries with the proof that they are in the log",
    params: receiptParams,
    answers: { 200: { description: 'The receipt, which verifies alone, against the public key of the log', schema: receiptSchema } },
    async handle(c, { params: { grant } }) {
      return c.json(await readReceipt(c.get('broker'), grant))
    },
  }),
]
