import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { parseArgs } from 'node:util'

/**
 * Sends prepared bodies where there is no wrk, with the options of wrk that `sendLoad` gives, and prints what load.lua
 * prints. It knows just as much of HTTP as the answers of a token endpoint need.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', short: 't' },
    connections: { type: 'string', short: 'c', default: '1' },
    duration: { type: 'string', short: 'd', default: '1s' },
    timeout: { type: 'string', default: '5s' },
    script: { type: 'string', short: 's' },
  },
})
const [address = '', first = '0', count = '0', ...files] = positionals
const { hostname, port, pathname } = new URL(address)
const durationMs = Number.parseFloat(values.duration) * 1000
const timeoutMs = Number.parseFloat(values.timeout) * 1000

const bodies = files
  .flatMap((file) => readFileSync(file, 'utf8').split('\n').slice(0, -1))
  .slice(Number(first), Number(first) + Number(count))
const head = `POST ${pathname} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: `
const requests = bodies.map((body) => `${head}${Buffer.byteLength(body)}\r\n\r\n${body}`)

const errors = { connect: 0, read: 0, write: 0, timeout: 0, status: 0 }
const latency = new Map<number, number>()
let sent = 0
let answered = 0
let over = false
let exhausted = false

const beganMs = performance.now()
await Promise.all(Array.from({ length: Number(values.connections) }, () => converse()))
const durationUs = Math.round((performance.now() - beganMs) * 1000)
const counts = Object.entries({ requests: answered, duration_us: durationUs, ...errors, exhausted: Number(exhausted) })
process.stdout.write(`bench ${counts.map(([name, value]) => `${name}=${value}`).join(' ')}\n`)
process.stdout.write(`latency_us ${[...latency].map(([us, times]) => `${us}:${times}`).join(' ')}\n`)

/** Sends one request after another on one connection until the time is over. */
function converse(): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname)
    let sentMs = 0
    let received = ''
    const timer = setTimeout(() => {
      over = true
      socket.destroy()
    }, durationMs)
    const send = (): void => {
      const request = requests[sent++]
      if (request === undefined) exhausted = true
      if (over || request === undefined) {
        socket.destroy()
        return
      }
      sentMs = performance.now()
      socket.write(request)
    }
    socket.setNoDelay(true)
    socket.setTimeout(timeoutMs, () => {
      errors.timeout++
      socket.destroy()
    })
    socket.once('connect', send)
    socket.on('data', (piece) => {
      // Token answers are ASCII: a character is a byte.
      received += piece.toString('latin1')
      const headEnd = received.indexOf('\r\n\r\n')
      if (headEnd === -1) return
      const [, length = '0'] = /\r\ncontent-length: *(\d+)/i.exec(received.slice(0, headEnd)) ?? []
      if (received.length < headEnd + 4 + Number(length)) return
      const us = Math.round((performance.now() - sentMs) * 1000)
      latency.set(us, (latency.get(us) ?? 0) + 1)
      if (Number(received.slice(9, 12)) >= 400) errors.status++
      answered++
      received = ''
      send()
    })
    socket.once('error', () => errors.read++)
    socket.once('close', () => {
      // One that the server closed has not seen the end.
      if (!over && !exhausted) errors.read++
      clearTimeout(timer)
      resolve()
    })
  })
}
