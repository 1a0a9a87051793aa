import { expect } from 'vitest'
import type { Route } from '../../src/http/route.ts'
import { createAgent, issuer, type TestAgent, type TestBroker } from '../broker.ts'

export type Body = Record<string, unknown>

/** An answer, read. */
export async function answerOf(response: Response): Promise<{ status: number; body: Body; index: string | null }> {
  return { status: response.status, body: (await response.json()) as Body, index: response.headers.get('stint-audit-index') }
}

/** A workload's side that nobody has registered yet. */
export async function newAgent(broker: TestBroker, name = 'bot'): Promise<TestAgent> {
  return createAgent(name, issuer, broker.clock)
}

/** The address of a route as it stands in the table, with something in each place of its path. */
export function pathOf({ path }: Pick<Route, 'path'>): string {
  return path.replaceAll(':kid', 'A'.repeat(43)).replaceAll(':id', '0'.repeat(16)).replace(':level', '0').replace(':index{.+}', '000').replace(':grant', `grant_${'0'.repeat(26)}`).replaceAll(/:\w+(?:\{[^}]+\})?/g, 'bot')
}

/** A registration that is in order, with single members replaced. */
export function registrationOf(agent: TestAgent, changes: Body = {}): Body {
  return {
    name: agent.name,
    environment: 'prod',
    stage: 'pilot',
    owner: { team: 'support', contact: 'oncall:support' },
    purpose: 'Labels tickets',
    tags: ['tier:1'],
    review_at: '2026-06-30',
    jwks: { keys: [agent.publicJwk] },
    ...changes,
  }
}

/** The workload `bot` as an admin sees it. */
export const readBot = async (broker: TestBroker) => (await answerOf(await broker.sendAsAdmin('GET', '/v1/workloads/bot'))).body

/** Runs the call, which must change nothing: the log has no more than refusals after it. */
export async function unrecorded<T>(broker: TestBroker, call: () => Promise<T>): Promise<T> {
  const before = await broker.events()
  const result = await call()
  const after = await broker.events()
  expect([...before, ...after.slice(before.length).filter(({ type }) => type !== 'change.refused')]).toEqual(before)
  return result
}
