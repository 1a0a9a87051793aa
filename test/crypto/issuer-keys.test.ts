import { generateKeyPairSync } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { createIssuerKeys } from '../../src/crypto/issuer-keys.ts'
import { discoveryPath, sendJson, startCompanyIssuer } from '../company-issuer.ts'
import { createTestClock } from '../harness.ts'

async function setUp(timeoutMs = 5_000) {
  const clock = createTestClock()
  const company = await startCompanyIssuer(clock)
  const keys = createIssuerKeys({ issuer: company.url, clock, timeoutMs })
  /** Whether the key of a token that the issuer signs now is found. */
  const finds = async (header: Record<string, unknown> = {}) => {
    const [protectedPart = ''] = (await company.sign({}, header)).split('.')
    const { alg, kid } = JSON.parse(Buffer.from(protectedPart, 'base64url').toString()) as { alg: string; kid?: string }
    return (await keys.find({ alg, kid })) !== undefined
  }
  return { clock, company, keys, finds }
}

const unavailable = { code: 'unavailable', publicMessage: expect.stringContaining('try again shortly') }

describe('The keys of the company issuer', () => {
  test('are asked for once, by however many at a time', async () => {
    const { company, finds } = await setUp()
    expect(await Promise.all(Array.from({ length: 10 }, () => finds()))).toEqual(Array.from({ length: 10 }, () => true))
    expect(await finds()).toBe(true)
    expect(company.asked).toEqual([discoveryPath, '/keys'])
  })

  test('are asked for again when another one is named, but not by everybody who names one', async () => {
    const { company, clock, finds, keys } = await setUp()
    await finds()
    await company.rotate()
    clock.advance(29_999)
    expect(await finds()).toBe(false)
    expect(company.asked).toHaveLength(2)
    clock.advance(1)
    const strangers = Array.from({ length: 20 }, (_, i) => keys.find({ alg: 'RS256', kid: `unknown-${i}` }))
    expect(await Promise.all(strangers)).toEqual(Array.from({ length: 20 }, () => undefined))
    expect(company.asked).toHaveLength(4)
    expect(await finds()).toBe(true)
    expect(company.asked).toHaveLength(4)
  })

  test('are believed for ten minutes after they were taken away, and no longer', async () => {
    const { company, clock, keys } = await setUp()
    const old = await company.sign()
    const header = JSON.parse(Buffer.from(old.split('.')[0] ?? '', 'base64url').toString()) as { alg: string; kid: string }
    expect(await keys.find(header)).toBeDefined()
    await company.rotate()
    clock.advance(599_999)
    expect(await keys.find(header)).toBeDefined()
    clock.advance(1)
    expect(await keys.find(header)).toBe(undefined)
  })

  test('are believed no longer by a clock that was set back', async () => {
    const { company, clock, finds } = await setUp()
    await finds()
    clock.advance(-3_600_000)
    await company.rotate()
    expect(await finds()).toBe(true)
  })

  test('need a name where there are several', async () => {
    const { company, keys } = await setUp()
    const jwks = [1, 2].map((i) => ({ ...generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' }), kid: `k${i}`, alg: 'RS256' }))
    company.answer('/keys', (response) => sendJson(response, { keys: jwks }))
    expect(await keys.find({ alg: 'RS256', kid: undefined })).toBe(undefined)
    expect(await keys.find({ alg: 'RS256', kid: 'k1' })).toBeDefined()
    expect(await keys.find({ alg: 'PS256', kid: 'k1' })).toBe(undefined)
    expect(await keys.find({ alg: 'ES256', kid: 'k1' })).toBe(undefined)
  })

  test.each<Record<string, unknown>>([
    { kty: 'RSA' },
    { kty: 'RSA', n: '!', e: 'AQAB' },
    { kty: 'oct', k: 'AAAA' },
    { ...generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' }) },
    { ...generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' }), use: 'enc' },
    { ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }) },
  ])('that are none are not used', async (jwk) => {
    const { company, keys } = await setUp()
    company.answer('/keys', (response) => sendJson(response, { keys: [{ ...jwk, kid: 'k', alg: 'RS256' }] }))
    expect(await keys.find({ alg: 'RS256', kid: 'k' })).toBe(undefined)
  })

  test.each<[string, string, (response: ServerResponse) => unknown, string]>([
    ['an error', discoveryPath, (response) => response.writeHead(500).end(), 'answered 500'],
    ['a page', discoveryPath, (response) => response.end('<html>'), 'did not answer with one JSON object'],
    ['a list', discoveryPath, (response) => sendJson(response, []), 'did not answer with one JSON object'],
    ['another name', discoveryPath, (response) => sendJson(response, { issuer: `${selfOf(response)}/`, jwks_uri: `${selfOf(response)}/keys` }), 'names another issuer'],
    ['no address of keys', discoveryPath, (response) => sendJson(response, { issuer: selfOf(response) }), 'has no jwks_uri'],
    ['keys by plain http elsewhere', discoveryPath, (response) => sendJson(response, { issuer: selfOf(response), jwks_uri: 'http://issuer.example/keys' }), 'is not https'],
    ['keys in a file', discoveryPath, (response) => sendJson(response, { issuer: selfOf(response), jwks_uri: 'file:///etc/passwd' }), 'is not https'],
    ['a redirect', discoveryPath, (response) => response.writeHead(302, { location: '/moved' }).end(), 'redirect'],
    ['a redirect of the keys', '/keys', (response) => response.writeHead(302, { location: '/moved-keys' }).end(), 'redirect'],
    ['a huge document', '/keys', (response) => response.end(`{"keys":[],"x":"${'x'.repeat(600_000)}"}`), 'more than 524288 bytes'],
    ['keys that are no list', '/keys', (response) => sendJson(response, { keys: {} }), 'malformed'],
    ['half an answer', '/keys', (response) => response.writeHead(200, { 'content-length': '100' }).write('{', () => response.destroy()), 'terminated'],
    ['silence', '/keys', () => undefined, 'timeout'],
    ['an answer that drips', '/keys', (response) => drip(response), 'timeout'],
  ])('cannot be had from %s, and are asked for again only after a while', async (_, path, respond, why) => {
    const { company, clock, finds } = await setUp(why === 'timeout' ? 1_000 : undefined)
    company.answer(path, (response) => void respond(response))
    await expect(finds()).rejects.toMatchObject({ ...unavailable, detail: expect.stringMatching(`^${company.url}: .*${why}`) })
    const { length } = company.asked
    await expect(finds()).rejects.toMatchObject(unavailable)
    expect(company.asked).toHaveLength(length)
    company.answer(path)
    clock.advance(5_000)
    expect(await finds()).toBe(true)
  })

  test('that are known go on to serve while another one cannot be asked for', async () => {
    const { company, clock, finds } = await setUp()
    await finds()
    await company.stop()
    clock.advance(60_000)
    await expect(finds({ kid: 'unknown' })).rejects.toMatchObject(unavailable)
    expect(await finds()).toBe(true)
  })

  test('are found behind an issuer with a path', async () => {
    const { company, clock } = await setUp()
    const issuer = `${company.url}/tenant/`
    company.answer('/tenant/.well-known/openid-configuration', (response) => sendJson(response, { issuer, jwks_uri: `${company.url}/keys` }))
    const keys = createIssuerKeys({ issuer, clock })
    expect(await keys.find({ alg: 'RS256', kid: undefined })).toBeDefined()
  })
})

function selfOf({ req }: ServerResponse): string {
  return `http://${req.headers.host ?? ''}`
}

/** A byte now and then: each alone is in time. */
async function drip(response: ServerResponse): Promise<void> {
  response.writeHead(200)
  while (!response.destroyed) {
    response.write(' ')
    await setTimeout(50)
  }
}
