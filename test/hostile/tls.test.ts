import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { connect, type SecureVersion, type TLSSocket } from 'node:tls'
import { expect, onTestFinished, test } from 'vitest'
import { createTestFolder } from '../harness.ts'
import { head, listen, readAll, statusesIn, tokenRequest, type ListenOptions } from './wire.ts'

function createCertificate() {
  const folder = createTestFolder()
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert, '-subj', '/CN=stint', '-days', '2']
  execFileSync('openssl', args, { stdio: 'ignore' })
  return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') }
}

async function listenTls(options: ListenOptions = {}) {
  const tls = createCertificate()
  const listening = await listen({}, { ...options, tls })
  function openTls(version: { minVersion?: SecureVersion; maxVersion?: SecureVersion; ciphers?: string } = {}): TLSSocket {
    const socket = connect({ port: listening.port, host: '127.0.0.1', ca: tls.cert, checkServerIdentity: () => undefined, ...version })
    socket.on('error', () => undefined)
    onTestFinished(() => void socket.destroy())
    return socket
  }
  async function exchangeTls(bytes: string, version = {}): Promise<string> {
    const socket = openTls(version)
    const answer = readAll(socket)
    socket.write(bytes)
    return answer
  }
  return { ...listening, openTls, exchangeTls }
}

const health = head('GET /healthz HTTP/1.1\nhost: a\nconnection: close')

test('TLS 1.2 and 1.3 are spoken, nothing older, and nothing plain', async () => {
  const { exchange, exchangeTls } = await listenTls()
  expect(statusesIn(await exchangeTls(health, { minVersion: 'TLSv1.3' }))).toEqual([200])
  expect(statusesIn(await exchangeTls(health, { maxVersion: 'TLSv1.2' }))).toEqual([200])
  const old = { minVersion: 'TLSv1', ciphers: 'ALL:@SECLEVEL=0' } as const
  expect(await exchangeTls(health, { ...old, maxVersion: 'TLSv1.1' })).toBe('')
  expect(await exchangeTls(health, { ...old, maxVersion: 'TLSv1' })).toBe('')
  expect(await exchange(health)).not.toContain('alive')
  expect(await exchange(Buffer.concat([Buffer.from('160301', 'hex'), randomBytes(2_000)]).toString('latin1'))).not.toContain('alive')
})

test('every answer under an https issuer keeps browsers to https, and under plain http none does', async () => {
  const { exchangeTls } = await listenTls()
  for (const path of ['/healthz', '/nothing', '/v1/workloads', '/oauth2/jwks']) {
    const answer = await exchangeTls(head(`GET ${path} HTTP/1.1\nhost: a\nconnection: close`))
    expect(answer).toMatch(/\r\nstrict-transport-security: max-age=31536000\r\n/i)
    expect(answer).toMatch(/\r\ncontent-security-policy: default-src 'none'; frame-ancestors 'none'\r\n/i)
  }
  const plain = await listen({ issuer: 'http://127.0.0.1:1', development: true })
  expect(await plain.exchange(head('GET /healthz HTTP/1.1\nhost: 127.0.0.1:1\nconnection: close'))).not.toMatch(/strict-transport/i)
})

test('connections of one address are limited before their handshake', async () => {
  const { open, exchangeTls } = await listenTls({ connectionsPerAddressMax: 10 })
  const silent = Array.from({ length: 10 }, () => open())
  await setTimeout(100)
  expect(await exchangeTls(health)).toBe('')
  for (const socket of silent) socket.destroy()
  await setTimeout(100)
  expect(statusesIn(await exchangeTls(health))).toEqual([200])
})

test('a request that was begun over TLS is answered while the server is drained', async () => {
  const listening = await listenTls({ times: { drainMs: 20_000 } })
  const agent = await listening.broker.register('bot')
  const [first = '', body = ''] = tokenRequest(agent).replace('connection: close\r\n', '').split('\r\n\r\n')
  const socket = listening.openTls()
  const answer = readAll(socket)
  socket.write(`${first}\r\n\r\n`)
  const idle = listening.openTls()
  const idleAnswer = readAll(idle)
  idle.write(head('GET /healthz HTTP/1.1\nhost: a'))
  // No handshake follows.
  const silent = readAll(listening.open())
  await setTimeout(500)
  const beganMs = performance.now()
  const drained = listening.drain()
  await setTimeout(100)
  socket.write(body)
  expect(await answer).toMatch(/^HTTP\/1\.1 200 [^]*\r\nconnection: close\r\n[^]*access_token/i)
  expect(statusesIn(await idleAnswer)).toEqual([200])
  expect(await silent).toBe('')
  await drained
  expect(performance.now() - beganMs).toBeLessThan(6_000)
})

test('a huge body over TLS is refused before it is read', async () => {
  const { openTls } = await listenTls()
  const socket = openTls()
  const answer = readAll(socket)
  const piece = 'a'.repeat(2 ** 20)
  socket.write(head(`POST /oauth2/token HTTP/1.1\nhost: a\ncontent-type: application/x-www-form-urlencoded\ncontent-length: ${100 * piece.length}`))
  for (let i = 0; i < 100 && !socket.closed; i++) if (!socket.write(piece)) await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), answer])
  expect(statusesIn(await answer)).toEqual([413])
  expect(socket.bytesWritten / piece.length).toBeLessThan(50)
})
