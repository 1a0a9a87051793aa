import { describe, expect, test } from 'vitest'
import { bodyBytesMax, policyBytesMax } from '../../src/http/body.ts'
import { startBroker, type TestBroker } from '../broker.ts'

/** Sends a body of exactly these bytes as an admin. */
function sendBody(broker: TestBroker, method: string, path: string, body: string | Uint8Array<ArrayBuffer> | ReadableStream, headers: Record<string, string> = {}) {
  const init = {
    method,
    headers: { 'content-type': 'application/json', authorization: `Bearer ${broker.adminCredential}`, ...headers },
    body,
    ...(body instanceof ReadableStream && { duplex: 'half' as const }),
  }
  return broker.app.request(path, init)
}

describe('A body', () => {
  test('of any type but JSON is refused as such', async () => {
    const broker = await startBroker('sqlite')
    await broker.register('bot')
    const types = ['', 'application/x-www-form-urlencoded', 'text/plain', 'application/json-patch+json', 'application/json, text/plain']
    for (const type of [...types, 'application/json; charset=utf-16', 'application/json; profile=x']) {
      const response = await sendBody(broker, 'PATCH', '/v1/workloads/bot', '{"stage":"sandbox"}', { 'content-type': type })
      expect([type, response.status, await response.json()]).toMatchObject([type, 415, { type: 'urn:stint:problem:unsupported-media-type' }])
    }
  })

  test('is one JSON object that all parsers read alike, or refused', async () => {
    const broker = await startBroker('sqlite')
    await broker.register('bot')
    const events = await broker.events()
    const bodies: (string | Uint8Array<ArrayBuffer>)[] = [
      '',
      '{',
      '{"stage":"sandbox"',
      '{"stage":"sandbox",}',
      '{"stage":"sandbox"}x',
      "{'stage':'sandbox'}",
      '{"stage":"sandbox"} {"stage":"pilot"}',
      '{"stage":"sandbox","stage":"pilot"}',
      '{"stage":"sandbox","st\\u0061ge":"pilot"}',
      '{"owner":{"team":"a","team":"b","contact":"x:y"}}',
      '[{"stage":"sandbox"}]',
      '[]',
      'null',
      'true',
      '"stage"',
      '7',
      '\ufeff{"stage":"sandbox"}',
      '{"purpose":"\\ud800"}',
      Uint8Array.from(Buffer.from('{"purpose":"\xff"}', 'latin1')),
      Uint8Array.from(Buffer.from('{"stage":"sandbox"}', 'utf16le')),
      '['.repeat(30_000),
      `${'['.repeat(30_000)}${']'.repeat(30_000)}`,
      `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`,
      `{"tags":${'['.repeat(30_000)}${']'.repeat(30_000)}}`,
      `{"owner":${'{"team":'.repeat(7_000)}1${'}'.repeat(7_000)}}`,
    ]
    for (const body of bodies) {
      const response = await sendBody(broker, 'PATCH', '/v1/workloads/bot', body)
      const what = String(body).slice(0, 60)
      expect([what, response.status, await response.json()]).toMatchObject([what, 400, { type: 'urn:stint:problem:invalid-input' }])
    }
    expect(await broker.events()).toEqual(events)
    expect((await sendBody(broker, 'PATCH', '/v1/workloads/bot', ' {"stage":"sandbox"}\n', { 'content-type': 'Application/JSON; charset="UTF-8"' })).status).toBe(200)
  })

  /** A body of so many bytes that is sent in pieces, without a length. */
  function inPieces(bytes: number): ReadableStream<Uint8Array> {
    let left = bytes
    return new ReadableStream({
      pull(controller) {
        if (left <= 0) return controller.close()
        controller.enqueue(new Uint8Array(Math.min(left, 16_384)).fill(0x20))
        left -= 16_384
      },
    })
  }

  test.each([
    ['PATCH', '/v1/workloads/bot', bodyBytesMax],
    ['PUT', '/v1/policy', policyBytesMax],
    ['POST', '/oauth2/token', bodyBytesMax],
  ])('of %s %s that is too large is refused, whether it says its length or not', async (method, path, max) => {
    const broker = await startBroker('sqlite')
    const events = await broker.events()
    const type = path.startsWith('/oauth2') ? 'application/x-www-form-urlencoded' : 'application/json'
    for (const body of [inPieces(max + 1), new Uint8Array(max + 1).fill(0x20)]) {
      const announced = { 'content-type': type, ...(body instanceof Uint8Array && { 'content-length': String(body.length) }) }
      const response = await sendBody(broker, method, path, body, announced)
      expect([response.status, await response.json()]).toMatchObject([413, path.startsWith('/v1') ? { type: 'urn:stint:problem:payload-too-large' } : { error: 'invalid_request' }])
    }
    // At the limit it is read, and refused for what it holds.
    for (const body of [inPieces(max), new Uint8Array(max).fill(0x20)]) expect((await sendBody(broker, method, path, body, { 'content-type': type })).status).toBe(400)
    expect(await broker.events()).toEqual(events)
    expect(broker.logLines.filter((line) => line.includes('"error"'))).toEqual([])
  })
})

test('A stranger\'s body is not read on a route for admins', async () => {
  const broker = await startBroker('sqlite')
  let pulled = 0
  const endless = new ReadableStream({
    pull(controller) {
      pulled++
      controller.enqueue(new Uint8Array(64 * 1024))
    },
  })
  const init = { method: 'PUT', headers: { 'content-type': 'application/json' }, body: endless, duplex: 'half' as const }
  expect((await broker.app.request('/v1/policy', init)).status).toBe(401)
  // A stream fills its own queue of one.
  expect(pulled).toBeLessThanOrEqual(1)
})
