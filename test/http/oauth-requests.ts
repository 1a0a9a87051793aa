import { expect } from 'vitest'
import type { SendOptions, TestAgent, TestBroker } from '../broker.ts'

export type Endpoint = 'token' | 'introspect' | 'revoke'

/** An OAuth endpoint's answer, read to its end. */
export interface OAuthAnswer {
  readonly status: number
  /** The JSON object; empty where the answer has no body. */
  readonly body: Readonly<Record<string, unknown>>
  readonly text: string
  readonly headers: Headers
  readonly requestId: string
}

// RFC 6749 §5.2: what an error_description may hold.
const descriptionPattern = /^[\x20\x21\x23-\x5b\x5d-\x7e]+$/

/** Posts to an OAuth endpoint and checks what holds for every answer: not kept by caches, named, errors in OAuth's form. */
export async function post(broker: TestBroker, endpoint: Endpoint, options: SendOptions): Promise<OAuthAnswer> {
  const response = await broker.send('POST', `/oauth2/${endpoint}`, options)
  const text = await response.text()
  const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>)
  const requestId = response.headers.get('stint-request-id') ?? ''
  expect(response.headers.get('cache-control')).toBe('no-store')
  expect(requestId).toMatch(/^req_[0-9a-z]{26}$/)
  if (response.status >= 400) {
    expect(Object.keys(body)).toEqual(['error', 'error_description'])
    expect(body['error_description']).toMatch(descriptionPattern)
    expect(text).not.toContain('access_token"')
  }
  return { status: response.status, body, text, headers: response.headers, requestId }
}

/** Asks for a token with a fresh assertion of the agent's. */
export function askToken(
  broker: TestBroker,
  agent: TestAgent,
  parameters: Readonly<Record<string, string>>,
  options: Pick<SendOptions, 'from'> = {},
): Promise<OAuthAnswer> {
  return post(broker, 'token', { form: agent.form({ grant_type: 'client_credentials', ...parameters }), ...options })
}

/** Whether the token is alive, as the asker is told. */
export async function isActive(broker: TestBroker, asker: TestAgent, token: string): Promise<boolean> {
  const { status, body } = await post(broker, 'introspect', { form: asker.form({ token }) })
  expect(status).toBe(200)
  if (body['active'] !== true) expect(body).toEqual({ active: false })
  return body['active'] === true
}

/** `authorization_details` of one object of Stint's type. */
export function details(members: Readonly<Record<string, unknown>>): string {
  return JSON.stringify([{ type: 'stint', ...members }])
}

/** How many grants were ever issued. */
export async function countGrants(broker: TestBroker): Promise<number> {
  return (await broker.broker.database.read.selectFrom('grants').select('id').execute()).length
}

/** The events that the request caused. */
export async function eventsOf(broker: TestBroker, answer: OAuthAnswer) {
  return (await broker.events()).filter((event) => event.request_id === answer.requestId)
}
