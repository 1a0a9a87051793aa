import { createHash, randomUUID } from 'node:crypto'
import { issuer, signJws, type TestAgent, type TestBroker } from '../broker.ts'
import { answerOf, type Body } from './admin-requests.ts'

/** What differs from a good proof; `undefined` leaves a member out. */
export interface ProofChanges {
  readonly claims?: Record<string, unknown>
  readonly header?: Record<string, unknown>
  /** Who signs, when it is not the key in the header. */
  readonly signer?: TestAgent
}

function prove(broker: TestBroker, agent: TestAgent, typ: string, bound: Record<string, unknown>, { claims, header, signer = agent }: ProofChanges): string {
  const { kty, crv, x, y } = agent.publicJwk
  const nowSeconds = Math.floor(broker.clock.nowMs() / 1000)
  return signJws(
    { typ, alg: agent.alg, jwk: { kty, crv, x, y }, ...header },
    { aud: issuer, iat: nowSeconds, exp: nowSeconds + 60, jti: randomUUID(), ...bound, ...claims },
    signer.privateKey,
  )
}

export const digest = (code: string) => createHash('sha256').update(code).digest('base64url')

/** A proof that the agent holds its key, for that code. */
export function proofForCode(broker: TestBroker, agent: TestAgent, code: string, changes: ProofChanges = {}): string {
  return prove(broker, agent, 'stint-enrolment+jwt', { code_sha256: digest(code) }, changes)
}

/** A proof that the agent holds its key, for the workload of the agent's name. */
export function proofForWorkload(broker: TestBroker, agent: TestAgent, changes: ProofChanges = {}): string {
  return prove(broker, agent, 'stint-key+jwt', { sub: agent.clientId }, changes)
}

/** A fresh code for the workload. */
export async function makeCode(broker: TestBroker, name = 'bot'): Promise<{ code: string; enrolment: string }> {
  const { status, body } = await answerOf(await broker.sendAsAdmin('POST', `/v1/workloads/${name}/enrolments`))
  if (status !== 201) throw new Error(`no code: ${JSON.stringify(body)}`)
  return { code: String(body['code']), enrolment: String(body['enrolment']) }
}

export async function redeem(broker: TestBroker, code: string, proof: string) {
  return answerOf(await broker.send('POST', '/v1/enrolments/redeem', { json: { code, proof } }))
}

/** Rotates from the old key to the new one, with a fresh assertion and proof. */
export async function rotate(broker: TestBroker, old: TestAgent, fresh: TestAgent, changes: Body = {}) {
  const json = { client_assertion: old.assert(), proof: proofForWorkload(broker, fresh), ...changes }
  return answerOf(await broker.send('POST', '/v1/keys/rotate', { json }))
}
