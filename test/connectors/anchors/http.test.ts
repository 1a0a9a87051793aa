import { describe, expect, test } from 'vitest'
import { AnchorFailure } from '../../../src/connectors/anchors/anchor.ts'
import { createHttpAnchor } from '../../../src/connectors/anchors/http.ts'
import { Secret } from '../../../src/kernel/secret.ts'
import { startAnchorServer } from '../../anchor-server.ts'

const token = 'a-bearer-token-that-nobody-sees'

async function setUp() {
  const server = await startAnchorServer()
  return { server, anchor: createHttpAnchor({ url: server.url, token: new Secret(token), timeoutMs: 500 }) }
}

describe('An HTTP anchor', () => {
  test('is posted each note as text, with the token, and gives the newest back', async () => {
    const { server, anchor } = await setUp()
    expect(await anchor.last()).toBeUndefined()
    await anchor.keep(['one\n'])
    await anchor.keep(['two\n'])
    expect(server.notes).toEqual(['one\n', 'two\n'])
    expect(await anchor.last()).toEqual({ note: 'two\n' })
    expect(server.requests.map(({ method }) => method)).toEqual(['GET', 'POST', 'POST', 'GET'])
    for (const { headers } of server.requests) expect(headers['authorization']).toBe(`Bearer ${token}`)
    expect(server.requests[1]?.headers['content-type']).toBe('text/plain; charset=utf-8')
  })

  test.each([404, 405])('that answers GET with %d only takes, or has nothing', async (status) => {
    const { server, anchor } = await setUp()
    server.answer(status, 'no')
    expect(await anchor.last()).toBeUndefined()
  })

  test.each([
    ['an error', 500, '', {}],
    ['a refusal', 401, '', {}],
    ['a redirect', 302, '', { location: 'http://127.0.0.1:1/elsewhere' }],
    ['more than any note has', 200, 'x'.repeat(70_000), {}],
  ])('that answers with %s has failed', async (_, status, text, headers) => {
    const { server, anchor } = await setUp()
    server.answer(status, text, headers)
    const outcomes = await Promise.allSettled([anchor.last(), ...(status === 200 ? [] : [anchor.keep(['note\n'])])])
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: expect.any(AnchorFailure) })
      expect(JSON.stringify(outcome)).not.toContain(token)
      if (outcome.status === 'rejected') expect(String(outcome.reason)).toContain(server.url)
    }
  })

  test('that does not answer has failed after its time', async () => {
    const { server, anchor } = await setUp()
    server.hang(true)
    await expect(anchor.keep(['note\n'])).rejects.toThrow(/timeout/)
    await expect(createHttpAnchor({ url: 'http://127.0.0.1:1/' }).last()).rejects.toThrow(/http:\/\/127\.0\.0\.1:1\/: .*ECONNREFUSED|bad port/)
  })
})
