import { z } from 'zod'
import { rewrapSealingKeys } from '../broker/rewrap-keys.ts'
import { showSealingKeys } from '../broker/rotate-sealing-keys.ts'
import { sealingKeyStatuses } from '../crypto/sealing-key-life.ts'
import { formatTime } from '../kernel/clock.ts'
import { operatorCaller } from './guards.ts'
import { defineRoute, type Route } from './route.ts'

const rootName = z.string().describe('The ARN of a key of AWS KMS, or raw: and a fingerprint of 32 bytes from a file or from the environment.')

const keysAnswer = z.strictObject({
  keys: z.array(
    z.strictObject({
      version: z.int(),
      status: z.enum(sealingKeyStatuses).describe('next: seals later. replaced: seals no more, and opens what is still under it. erased: opens nothing any more.'),
      created_at: z.iso.datetime(),
      seals_from: z.iso.datetime(),
      root: rootName.optional().describe('The root key that wraps it; absent where that was before root keys had names, and once it was erased.'),
    }),
  ),
  root: rootName.describe('The root key of the process that answers.'),
  previous_root: rootName.optional().describe('The root key that it gives up.'),
  remaining: z.int().describe('How many sealed values are still under a key that was replaced.'),
  next_rotation_at: z.iso.datetime().describe('When the next key is made, unless somebody rotates before.'),
})

const rewrapAnswer = z.strictObject({
  root: rootName.describe('The root key of the process that answers.'),
  previous: rootName.optional().describe('The root key that it gives up.'),
  moved: z.array(z.int()).describe('The versions of the sealing keys that were wrapped anew.'),
  elsewhere: z
    .array(z.strictObject({ version: z.int(), root: rootName }))
    .describe('Sealing keys that a root key wraps which the process that answers was not given: it was started with a configuration of before.'),
  previous_is_needed: z.boolean().describe('Whether the previous root key has to stay in the configuration.'),
  audit_index: z.int().optional().describe('The entry that records it; absent where nothing was to be moved.'),
})

export const sealingKeyRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/sealing-keys',
    access: ['admin', 'auditor'],
    summary: 'The keys that seal what the database keeps secret, and which root key wraps them',
    answers: { 200: { description: 'The newest first', schema: keysAnswer } },
    async handle(c) {
      const broker = c.get('broker')
      const { versions, remaining, nextMs } = await showSealingKeys(broker)
      const { root, previous } = broker.sealingKeys
      return c.json({
        keys: versions.map(({ version, status, createdAtMs, sealsFromMs, root }) => ({
          version,
          status,
          created_at: formatTime(createdAtMs),
          seals_from: formatTime(sealsFromMs),
          ...(root !== undefined && { root }),
        })),
        root: root.name,
        ...(previous && { previous_root: previous.name }),
        remaining,
        next_rotation_at: formatTime(nextMs),
      })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/sealing-keys/rewrap',
    access: ['admin'],
    summary: 'Wrap the sealing keys by the root key of the configuration, in place of the previous one',
    answers: { 200: { description: 'What was moved', schema: rewrapAnswer } },
    errors: ['config_invalid', 'unavailable'],
    async handle(c) {
      const { root, previous, moved, elsewhere, isPreviousNeeded, auditIndex } = await rewrapSealingKeys(c.get('broker'), operatorCaller(c))
      if (auditIndex !== undefined) c.header('stint-audit-index', String(auditIndex))
      return c.json({
        root,
        ...(previous !== undefined && { previous }),
        moved,
        elsewhere,
        previous_is_needed: isPreviousNeeded,
        ...(auditIndex !== undefined && { audit_index: auditIndex }),
      })
    },
  }),
]
