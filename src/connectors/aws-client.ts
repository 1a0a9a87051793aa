import { createOutbound, type Outbound } from './outbound.ts'

/** How a tool's catalog file says where AWS is. */
export interface AwsPlace {
  readonly region: string
  /** In place of AWS's own addresses, for an emulator or a gateway. */
  readonly endpoint?: string | undefined
  readonly private_network: boolean
}

/** What this module needs of a request of the AWS SDK. */
interface SdkRequest {
  readonly protocol: string
  readonly hostname: string
  readonly port?: number | undefined
  readonly path: string
  readonly query: Readonly<Record<string, string | readonly string[] | null | undefined>>
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: unknown
}

interface SdkResponse {
  readonly statusCode: number
  readonly headers: Record<string, string>
  readonly body: Uint8Array
}

/** The `requestHandler` of an AWS client that speaks only to these hosts, by the rules for all outbound calls. */
export interface AwsTransport {
  readonly handler: {
    handle(request: SdkRequest, options?: { readonly abortSignal?: unknown }): Promise<{ response: SdkResponse }>
    updateHttpClientConfig(): void
    httpHandlerConfigs(): Record<string, never>
    destroy(): void
  }
  close(): Promise<void>
}

/**
 * Has the AWS SDK call out as every connector does: to an address that was judged, without a proxy of the environment, with
 * an answer of a bounded size. What fails is a `ConnectorError` that knows whether the call was sent, which the SDK passes on.
 */
export function createAwsTransport({ hosts, privateNetwork, timeoutMs = 10_000 }: { readonly hosts: readonly string[]; readonly privateNetwork: boolean; readonly timeoutMs?: number }): AwsTransport {
  const outbound: Outbound = createOutbound({ hosts, privateNetwork, timeoutMs })
  return {
    handler: {
      async handle(request, { abortSignal } = {}) {
        const answer = await outbound.fetch(toUrl(request), {
          method: request.method,
          headers: request.headers,
          redirect: 'error',
          ...(request.body !== undefined && request.body !== null && { body: toBody(request.body) }),
          ...(abortSignal instanceof AbortSignal && { signal: abortSignal }),
        })
        return { response: { statusCode: answer.status, headers: Object.fromEntries(answer.headers), body: new Uint8Array(await answer.arrayBuffer()) } }
      },
      updateHttpClientConfig: () => undefined,
      httpHandlerConfigs: () => ({}),
      destroy: () => undefined,
    },
    close: () => outbound.close(),
  }
}

function toUrl({ protocol, hostname, port, path, query }: SdkRequest): URL {
  const url = new URL(`${protocol}//${hostname}${port === undefined ? '' : `:${port}`}${path}`)
  for (const [name, value] of Object.entries(query)) {
    for (const one of value === null || value === undefined ? [] : [value].flat()) url.searchParams.append(name, one)
  }
  return url
}

/** The four services that Stint speaks to write short bodies, which are text or bytes. */
function toBody(body: unknown): string | Uint8Array<ArrayBuffer> {
  if (typeof body === 'string') return body
  if (body instanceof Uint8Array) return new Uint8Array(body)
  throw new TypeError('the AWS SDK gave a body that is neither text nor bytes')
}
