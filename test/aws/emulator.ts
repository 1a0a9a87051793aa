import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer, request as send, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { findFreePort } from '../free-port.ts'

const bin = process.env['MOTO_BIN'] ?? fileURLToPath(new URL('../../.venv/bin', import.meta.url))

/** What to do where the emulator is not installed; empty where it is. */
export const emulatorMissing = existsSync(`${bin}/moto_server`) ? '' : 'install the emulator with python3 -m venv .venv && .venv/bin/pip install -r test/aws/requirements.txt'

/** The AWS CLI that came with the emulator. */
export const awsCli = `${bin}/aws`

/** What arrived at AWS. */
export interface AwsRequest {
  /** `sts`, `iam`, `kms` or `secretsmanager`: as the signature's scope says; `sts` for what is not signed. */
  readonly service: string
  /** `AssumeRole`, `PutSecretValue`, … */
  readonly action: string
  /** Of the query protocol the parameters, of JSON its members. */
  readonly parameters: Readonly<Record<string, unknown>>
  readonly headers: IncomingHttpHeaders
}

export interface AwsFault {
  /** In place of AWS's answer. */
  readonly status?: number
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
  /** What AWS answered is changed by this. */
  readonly change?: (body: string) => string
  readonly delayMs?: number
  /** The connection breaks: before AWS has heard of the call, after it has done it, or in the middle of the answer. */
  readonly cut?: 'before' | 'after' | 'half'
}

export interface Aws {
  /** The `endpoint` of a catalog file; it needs `private_network: true`. */
  readonly url: string
  /** All that arrived, in order. */
  readonly requests: readonly AwsRequest[]
  /** The parameters of the calls of that action so far. */
  calls(action: string): readonly Readonly<Record<string, unknown>>[]
  /** From now on, calls of this action go wrong so, as many times. */
  fail(action: string | RegExp, fault: AwsFault, times?: number): void
  mend(): void
  /** Forgets what arrived so far. */
  forget(): void
  /** Called after AWS has done a call and before its answer goes back. */
  onAnswer?: (request: AwsRequest) => Promise<void> | void
  /** Changes what AWS has answered, before any fault does. */
  rewrite?: (request: AwsRequest, body: string) => string
  close(): Promise<void>
}

/** Root credentials that moto takes: it knows no users unless a test makes some. */
export const rootCredentials = { AccessKeyId: 'AKIAIOSFODNN7EXAMPLE', SecretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' } as const

/**
 * moto behind a proxy that keeps what was asked for, for moto keeps neither source identity nor tags, and can do wrong what no
 * emulator does. What moto itself does not do is not made up: it enforces no policy. `port` keeps an address over restarts. It works in `folder`.
 */
export async function startEmulator({ port: asked, folder }: { readonly port?: number; readonly folder: string }): Promise<Aws> {
  const motoPort = await findFreePort()
  const child = spawn(`${bin}/moto_server`, ['-H', '127.0.0.1', '-p', String(motoPort)], { cwd: folder, stdio: 'ignore', env: { PATH: process.env['PATH'], MOTO_IAM_LOAD_MANAGED_POLICIES: 'false' } })
  const exited = once(child, 'exit')
  await untilAnswers(motoPort, exited)

  const requests: AwsRequest[] = []
  let faults: { readonly action: string | RegExp; readonly fault: AwsFault; left: number }[] = []
  const server = createServer((incoming, outgoing) => {
    void (async () => {
      const body = Buffer.concat(await incoming.toArray())
      const request = readRequest(incoming.headers, body)
      requests.push(request)
      const found = faults.find(({ action, left }) => left > 0 && (typeof action === 'string' ? action === request.action : action.test(request.action)))
      if (found !== undefined) found.left--
      const fault = found?.fault ?? {}
      if (fault.delayMs !== undefined) await setTimeout(fault.delayMs)
      if (fault.cut === 'before') return void incoming.socket.destroy()
      if (fault.status !== undefined) return void answer(outgoing, { status: fault.status, headers: { 'content-type': 'text/xml', ...fault.headers }, body: fault.body ?? '' })
      const forwarded = await forward(motoPort, incoming.method ?? 'GET', incoming.url ?? '/', incoming.headers, body)
      const real = { ...forwarded, body: addSourceIdentity(request, forwarded.body) }
      await aws.onAnswer?.(request)
      if (fault.cut === 'after') return void incoming.socket.destroy()
      const told = aws.rewrite?.(request, real.body) ?? real.body
      const text = fault.change?.(told) ?? told
      if (fault.cut === 'half') {
        outgoing.writeHead(real.status, { 'content-type': real.headers['content-type'] ?? '', 'content-length': Buffer.byteLength(text) })
        outgoing.write(text.slice(0, text.length / 2), () => incoming.socket.destroy())
        return
      }
      answer(outgoing, { status: real.status, headers: { 'content-type': real.headers['content-type'] ?? '', 'x-amzn-requestid': String(real.headers['x-amzn-requestid'] ?? '') }, body: text })
    })().catch(() => incoming.socket.destroy())
  })
  server.listen(asked ?? 0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  const aws: Aws = {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    calls: (action) => requests.filter((one) => one.action === action).map(({ parameters }) => parameters),
    fail(action, fault, times = Infinity) {
      faults.push({ action, fault, left: times })
    },
    mend() {
      faults = []
    },
    forget() {
      requests.length = 0
    },
    async close() {
      server.closeAllConnections()
      server.close()
      child.kill()
      await exited
    },
  }
  return aws
}

/** The XML by which the query protocol of STS and IAM refuses. */
export function queryError(code: string, message: string): string {
  return `<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>${message}</Message></Error><RequestId>a-request</RequestId></ErrorResponse>`
}

function readRequest(headers: IncomingHttpHeaders, body: Buffer): AwsRequest {
  const [, service = 'sts'] = /Credential=[^/]+\/\d+\/[^/]+\/([a-z0-9-]+)\//.exec(headers.authorization ?? '') ?? []
  const target = headers['x-amz-target']
  if (typeof target === 'string') return { service, action: target.slice(target.lastIndexOf('.') + 1), parameters: JSON.parse(body.toString() || '{}') as Record<string, unknown>, headers }
  const parameters = Object.fromEntries(new URLSearchParams(body.toString()))
  return { service, action: parameters['Action'] ?? '', parameters, headers }
}

/** AWS answers the source identity that it was told, by a parameter or in a token; moto leaves it out. */
function addSourceIdentity({ parameters }: AwsRequest, body: string): string {
  const [, claims = ''] = String(parameters['WebIdentityToken'] ?? '').split('.')
  const told = parameters['SourceIdentity'] ?? (claims === '' ? undefined : readClaims(claims)['https://aws.amazon.com/source_identity'])
  if (typeof told !== 'string' || body.includes('<SourceIdentity>')) return body
  return body.replace(/<\/AssumeRole(?:WithWebIdentity)?Result>/, (end) => `<SourceIdentity>${told}</SourceIdentity>${end}`)
}

/** Of what is no token there are none. */
function readClaims(claims: string): Readonly<Record<string, unknown>> {
  try {
    return JSON.parse(Buffer.from(claims, 'base64url').toString()) as Record<string, unknown>
  } catch {
    return {}
  }
}

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

function answer(outgoing: ServerResponse, { status, headers, body }: Answer): void {
  outgoing.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body) })
  outgoing.end(body)
}

async function forward(port: number, method: string, path: string, headers: IncomingHttpHeaders, body: Buffer): Promise<Answer> {
  const { host: _, ...others } = headers
  const outgoing = send({ host: '127.0.0.1', port, method, path, headers: { ...others, 'content-length': body.length } })
  outgoing.end(body)
  const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage]
  return { status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(await incoming.toArray()).toString() }
}

async function untilAnswers(port: number, exited: Promise<unknown>): Promise<void> {
  let gone = false
  void exited.then(() => (gone = true))
  for (let tries = 0; tries < 300; tries++) {
    if (gone) throw new Error('moto_server ended before it answered')
    try {
      await fetch(`http://127.0.0.1:${port}/moto-api/`)
      return
    } catch {
      await setTimeout(100)
    }
  }
  throw new Error('moto_server does not answer')
}
