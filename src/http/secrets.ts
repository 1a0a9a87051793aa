import { z } from 'zod'
import { putSecret, secretBytesMax } from '../broker/secrets.ts'
import { formatTime } from '../kernel/clock.ts'
import { secretNamePattern } from '../kernel/secret-source.ts'
import { Secret } from '../kernel/secret.ts'
import { BrokerError } from '../kernel/errors.ts'
import { listSecrets, listVersions } from '../storage/secrets.ts'
import { operatorCaller } from './guards.ts'
import { wholeNumber } from './query.ts'
import { defineRoute, type Route } from './route.ts'

const nameRule = '1 to 63 of a-z, 0-9 and dashes, and begins with a letter'
const nameSchema = z.string({ error: 'must be a name' }).regex(secretNamePattern, `must be ${nameRule}`)
const secretParams = z.strictObject({ name: z.string().regex(secretNamePattern, `is ${nameRule}`) })
const valueRule = `must be text of 1 to ${secretBytesMax} bytes`
const putBody = z.strictObject({
  value: z
    .string({ error: valueRule })
    .min(1, valueRule)
    .max(secretBytesMax, valueRule)
    .refine((value) => Buffer.byteLength(value) <= secretBytesMax, valueRule)
    .describe('Kept sealed, exactly as it is sent; no answer ever holds it.'),
})
const listQuery = z.strictObject({ limit: wholeNumber(1, 500).optional(), after: nameSchema.optional() })

const secretAnswer = z.strictObject({
  name: z.string(),
  version: z.int().describe('The one that is in use. Versions count from 1.'),
  created_at: z.iso.datetime(),
})
const versionsQuery = z.strictObject({ limit: wholeNumber(1, 500).optional(), before: wholeNumber(1, 2 ** 31).optional() })
const versionsAnswer = z.strictObject({
  versions: z.array(
    z.strictObject({
      version: z.int(),
      stage: z
        .enum(['current', 'pending', 'previous', 'erased'])
        .describe('`current`: in use. `pending`: to be the next, once its rotation is finished. `previous`: replaced, and may still open something. `erased`: opens nothing.'),
      created_at: z.iso.datetime(),
      rotation: z.string().optional().describe('The rotation that made it; absent where it was put.'),
    }),
  ),
  next: z.int().optional().describe('Pass it as before for the next page; absent on the last one.'),
})
const listAnswer = z.strictObject({
  secrets: z.array(
    secretAnswer.extend({
      needs_reconnection: z
        .strictObject({ tool: z.string(), problem: z.string() })
        .optional()
        .describe('The tool that waits for a fresh one, and why this one opens nothing any more.'),
    }),
  ),
  next: z.string().optional().describe('Pass it as after for the next page; absent on the last one.'),
})

export const secretRoutes: readonly Route[] = [
  defineRoute({
    method: 'PUT',
    path: '/v1/secrets/:name',
    access: ['admin'],
    summary: 'Hand over a secret that the catalog names, in place of the one before, which is erased',
    params: secretParams,
    // JSON may write each byte of the value with six.
    body: { type: 'json', schema: putBody, bytesMax: 6 * secretBytesMax + 1024 },
    answers: { 200: { description: 'The version that is in use from now on', schema: secretAnswer } },
    async handle(c, { params: { name }, body: { value } }) {
      const { version, createdAtMs, auditIndex } = await putSecret(c.get('broker'), operatorCaller(c), name, new Secret(value))
      c.header('stint-audit-index', String(auditIndex))
      return c.json({ name, version, created_at: formatTime(createdAtMs) })
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/secrets',
    access: ['admin', 'auditor'],
    summary: 'List the secrets that the broker keeps for tools, without their values',
    query: listQuery,
    answers: { 200: { description: 'A page of secrets', schema: listAnswer } },
    async handle(c, { query: { limit = 100, after } }) {
      const found = await listSecrets(c.get('broker').database.read, { limit: limit + 1, ...(after !== undefined && { after }) })
      const page = found.slice(0, limit)
      return c.json({
        secrets: page.map(({ name, version, createdAtMs, usedUp }) => ({
          name,
          version,
          created_at: formatTime(createdAtMs),
          ...(usedUp && { needs_reconnection: usedUp }),
        })),
        ...(found.length > limit && { next: page.at(-1)?.name }),
      })
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/secrets/:name/versions',
    access: ['admin', 'auditor'],
    summary: 'List the versions of a secret, the newest first, without their values',
    params: secretParams,
    query: versionsQuery,
    answers: { 200: { description: 'A page of versions', schema: versionsAnswer } },
    async handle(c, { params: { name }, query: { limit = 100, before } }) {
      const found = await listVersions(c.get('broker').database.read, name, { limit: limit + 1, before })
      if (found.length === 0 && before === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no secret ${name}: an admin puts it, with stint secret put ${name}.` })
      const page = found.slice(0, limit)
      return c.json({
        versions: page.map(({ version, stage = 'erased', createdAtMs, rotation }) => ({ version, stage, created_at: formatTime(createdAtMs), ...(rotation !== undefined && { rotation }) })),
        ...(found.length > limit && { next: page.at(-1)?.version }),
      })
    },
  }),
]
