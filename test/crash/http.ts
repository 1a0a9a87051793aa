import { Agent, request } from 'node:http'

export interface Request {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  readonly path: string
  readonly form?: Readonly<Record<string, string>>
  readonly json?: unknown
  readonly bearer?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** An answer that was read to its end. */
export interface Answer {
  /** 0 where nobody listens: then it was never sent. */
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
  /** The body as a JSON object; empty where it is none. */
  readonly body: Readonly<Record<string, unknown>>
}

/** A client that keeps its connections. */
export interface Client {
  /** The answer, or `undefined` where it did not come, or not to its end. */
  send(request: Request): Promise<Answer | undefined>
  /** Closes the connections that it has; those of the process that is gone among them. */
  drop(): void
}

/** Whether the broker could not do it, or there was none: nothing came of the request. */
export function cameToNothing({ status }: Answer): boolean {
  return status === 503 || status === 0
}

const silenceMsMax = 30_000
const unsent: Answer = { status: 0, headers: {}, text: '', body: {} }

export function createClient(port: number): Client {
  let agent = new Agent({ keepAlive: true, maxSockets: 256 })
  return {
    send({ method, path, form, json, bearer, headers: others }) {
      const body = form === undefined ? (json === undefined ? undefined : JSON.stringify(json)) : new URLSearchParams(form).toString()
      const headers = {
        ...(body !== undefined && { 'content-type': form === undefined ? 'application/json' : 'application/x-www-form-urlencoded', 'content-length': Buffer.byteLength(body) }),
        ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
        ...others,
      }
      return new Promise((resolve) => {
        const outgoing = request({ host: '127.0.0.1', port, method, path, headers, agent, timeout: silenceMsMax }, (response) => {
          const pieces: Buffer[] = []
          response.on('data', (piece: Buffer) => pieces.push(piece))
          response.on('error', () => resolve(undefined))
          response.on('close', () => {
            if (!response.complete) return resolve(undefined)
            const text = Buffer.concat(pieces).toString()
            resolve({ status: response.statusCode ?? 0, headers: response.headers, text, body: readObject(text) })
          })
        })
        outgoing.on('timeout', () => outgoing.destroy())
        outgoing.on('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED' ? unsent : undefined))
        outgoing.end(body)
      })
    },
    drop() {
      agent.destroy()
      agent = new Agent({ keepAlive: true, maxSockets: 256 })
    },
  }
}

function readObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    // An object of whatever members; each is looked at where it is used.
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
