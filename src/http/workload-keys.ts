import { z } from 'zod'
import { overlapSecondsMax, rotateKey } from '../broker/rotate-key.ts'
import { spiffeId } from '../identity/workload.ts'
import { formatTime } from '../kernel/clock.ts'
import { defineRoute, type Route } from './route.ts'

const token = z.string('must be text: a compact JWS').min(1, 'must not be empty').max(8192, 'must be at most 8192 characters')
const overlapMessage = `must be a whole number of seconds from 0 to ${overlapSecondsMax}`

const rotationBody = z.strictObject({
  client_assertion: token.describe('A fresh JWT of at most five minutes, signed with the key that is to be replaced (RFC 7523 §2.2).'),
  proof: token.describe('Signed with the new key: {typ: stint-key+jwt, alg, jwk}, {aud: the issuer, iat, exp, jti, sub: the SPIFFE ID}.'),
  overlap_seconds: z
    .int(overlapMessage)
    .min(0, overlapMessage)
    .max(overlapSecondsMax, overlapMessage)
    .optional()
    .describe('How long the replaced key proves the workload too; an hour unless it says otherwise.'),
})
const rotationAnswer = z.strictObject({
  workload: z.string(),
  client_id: z.string(),
  kid: z.string(),
  replaces: z.string().describe('The key that signed the assertion.'),
  until: z.iso.datetime().describe('Until then the replaced key proves the workload too.'),
})

export const workloadKeyRoutes: readonly Route[] = [
  defineRoute({
    method: 'POST',
    path: '/v1/keys/rotate',
    access: 'workload',
    summary: 'Put a new key in place of the one that signs the request, as the workload that holds both',
    body: { type: 'json', schema: rotationBody },
    answers: { 200: { description: 'The rotation; the same again for the same new key', schema: rotationAnswer } },
    async handle(c, { body: { client_assertion: assertion, proof, overlap_seconds: overlapSeconds } }) {
      const broker = c.get('broker')
      const rotation = { proof, ...(overlapSeconds !== undefined && { overlapSeconds }) }
      const rotated = await rotateKey(broker, { assertion, onProven: (workload) => c.set('workload', workload) }, rotation, c.get('requestId'))
      if (rotated.auditIndex !== undefined) c.header('stint-audit-index', String(rotated.auditIndex))
      return c.json({
        workload: rotated.workload,
        client_id: spiffeId(broker.trustDomain, rotated.workload),
        kid: rotated.kid,
        replaces: rotated.replaces,
        until: formatTime(rotated.untilMs),
      })
    },
  }),
]
