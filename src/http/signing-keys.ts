import { z } from 'zod'
import { rotateSigningKeys, showSigningKeys } from '../broker/rotate-signing-keys.ts'
import { keyStatuses } from '../crypto/key-life.ts'
import { roles } from '../identity/operator.ts'
import { formatTime } from '../kernel/clock.ts'
import { operatorCaller } from './guards.ts'
import { defineRoute, type Route } from './route.ts'
import { reasonSchema } from './workloads.ts'

const rotateBody = z.strictObject({
  now: z.boolean({ error: 'must be true or false' }).optional().describe('The new key signs at once, and no other is accepted any more.'),
  reason: reasonSchema.optional(),
})

const keysAnswer = z.strictObject({
  keys: z.array(
    z.strictObject({
      kid: z.string(),
      alg: z.literal('ES256'),
      status: z.enum(keyStatuses).describe('next: published, and signs later. verifying: signs no more, its tokens are still good.'),
      created_at: z.iso.datetime(),
      signs_from: z.iso.datetime(),
      verifies_until: z.iso.datetime().optional().describe('Absent until a successor has taken over.'),
    }),
  ),
  next_rotation_at: z.iso.datetime().describe('When the next key takes over, unless somebody rotates before.'),
})

const rotationAnswer = z.strictObject({
  kid: z.string(),
  signs_from: z.iso.datetime(),
  replaces: z
    .array(z.strictObject({ kid: z.string(), verifies_until: z.iso.datetime() }))
    .describe('The keys that it takes over from. What they have signed is accepted until then; where they go on signing for now, until then at the latest.'),
  ended_tokens: z
    .strictObject({
      count: z.int(),
      more: z.boolean().describe('There are more than were counted; all of them have ended.'),
      effect: z.literal('introspection').describe('Whoever introspects them is told at once.'),
      cached_until: z.iso.datetime().describe('Until then, who verifies offline may keep the old keys: it accepts their tokens and refuses those of the new key.'),
    })
    .optional()
    .describe('The live tokens that ended with their keys; absent where none ended.'),
  audit_index: z.int(),
})

export const signingKeyRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/signing-keys',
    access: roles,
    summary: 'The keys that sign and verify tokens',
    answers: { 200: { description: 'In the order of their lives, those that ended lately at the end', schema: keysAnswer } },
    async handle(c) {
      const { keys, nextRotationMs } = await showSigningKeys(c.get('broker'))
      return c.json({
        keys: keys.map(({ kid, alg, status, createdAtMs, signFromMs, verifyUntilMs }) => ({
          kid,
          alg,
          status,
          created_at: formatTime(createdAtMs),
          signs_from: formatTime(signFromMs),
          ...(verifyUntilMs !== undefined && { verifies_until: formatTime(verifyUntilMs) }),
        })),
        next_rotation_at: formatTime(nextRotationMs),
      })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/signing-keys/rotate',
    access: ['admin'],
    summary: 'Replace the key that signs tokens, before its time or at once',
    body: { type: 'json', schema: rotateBody },
    answers: { 200: { description: 'The new key, and what becomes of live tokens', schema: rotationAnswer } },
    async handle(c, { body: { now = false, reason } }) {
      const rotation = await rotateSigningKeys(c.get('broker'), operatorCaller(c), { now, ...(reason !== undefined && { reason }) })
      const { kid, signFromMs, replaces, endedTokens, auditIndex } = rotation
      c.header('stint-audit-index', String(auditIndex))
      return c.json({
        kid,
        signs_from: formatTime(signFromMs),
        replaces: replaces.map((key) => ({ kid: key.kid, verifies_until: formatTime(key.verifyUntilMs) })),
        ...(endedTokens !== undefined && {
          ended_tokens: {
            count: endedTokens.count,
            more: endedTokens.more,
            effect: 'introspection',
            cached_until: formatTime(endedTokens.cachedUntilMs),
          },
        }),
        audit_index: auditIndex,
      })
    },
  }),
]
