import { createOutbound, type Outbound } from './outbound.ts'

/** How a tool's catalog file says where AWS is. */
export interface AwsPlace {
  readonly region: string
  /** In place of AWS's own addresses, for an emulator or a gateway. */
  readonly endpoint?: string | undefined
  readonly private_network: boolean
}

/** The services that Stint speaks to, as AWS names them in addresses and signatures. */
export type AwsService = 'sts' | 'iam' | 'kms' | 'secretsmanager'

/** An AWS access key, and the session token where it is a session's. */
export interface AwsKey {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
}

/** The way to AWS, for as long as a tool is open. */
export interface AwsAccess {
  /**
   * What a client of the SDK is made with. A client is made for each call and signs with the key that was read for it, so
   * that a replaced one is used from then on; without a key the call is not signed. Nothing of the machine's own AWS
   * configuration counts: no profile, no variable, no metadata service.
   */
  settings(service: AwsService, key: AwsKey | undefined): AwsSettings
  /** Waits for the calls that are under way. */
  close(): Promise<void>
}

/** What every client of the SDK takes. */
export interface AwsSettings {
  readonly region: string
  readonly endpoint: string
  readonly credentials: AwsKey
  readonly requestHandler: AwsTransport['handler']
  readonly maxAttempts: number
  readonly retryMode: 'standard'
  readonly defaultsMode: 'standard'
  readonly useFipsEndpoint: boolean
  readonly useDualstackEndpoint: boolean
  readonly authSchemePreference: string[]
  readonly sigv4aSigningRegionSet: string[]
  readonly userAgentAppId: string
}

/** How often the SDK asks before a call counts as failed, where AWS throttles it or fails: not where a connection breaks. STS is asked once. */
const attemptsMax = 3

/** Stands where the SDK wants a key although the call is not signed, so that it looks for none on this machine. */
const noKey: AwsKey = { accessKeyId: 'none', secretAccessKey: 'none' }

export function openAws(place: AwsPlace, services: readonly AwsService[], timeoutMs?: number): AwsAccess {
  const hosts = services.map((service) => new URL(locateAws(service, place).endpoint).host)
  const transport = createAwsTransport({ hosts, privateNetwork: place.private_network, ...(timeoutMs !== undefined && { timeoutMs }) })
  return {
    settings: (service, key) => ({
      ...locateAws(service, place),
      credentials: key ?? noKey,
      requestHandler: transport.handler,
      // A session that was opened and whose answer was lost must not be hidden by what AWS answers to a second try.
      maxAttempts: service === 'sts' ? 1 : attemptsMax,
      retryMode: 'standard',
      defaultsMode: 'standard',
      useFipsEndpoint: false,
      useDualstackEndpoint: false,
      authSchemePreference: [],
      sigv4aSigningRegionSet: [],
      userAgentAppId: 'stint',
    }),
    close: () => transport.close(),
  }
}

/**
 * One call of the SDK, over when the signal is: the SDK itself would wait out its retries. Rejects as the SDK does, or with
 * the signal's reason.
 */
export async function askAws<T>(signal: AbortSignal, send: (options: { readonly abortSignal: AbortSignal }) => Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  const onAbort = () => reject(signal.reason)
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    const sending = send({ abortSignal: signal })
    sending.catch(() => undefined)
    return await Promise.race([sending, promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** Where a service is, and the region that its signatures name: IAM has one address in each partition of AWS. */
export function locateAws(service: AwsService, { region, endpoint }: Pick<AwsPlace, 'region' | 'endpoint'>): { readonly endpoint: string; readonly region: string } {
  const suffix = region.startsWith('cn-') ? 'amazonaws.com.cn' : region.startsWith('eusc-') ? 'amazonaws.eu' : 'amazonaws.com'
  if (service !== 'iam') return { endpoint: endpoint ?? `https://${service}.${region}.${suffix}`, region }
  const [host, signed] = region.startsWith('cn-') ? ['iam.cn-north-1', 'cn-north-1']
    : region.startsWith('us-gov-') ? ['iam.us-gov', 'us-gov-west-1']
    : region.startsWith('eusc-') ? ['iam.eusc-de-east-1', 'eusc-de-east-1']
    : ['iam', 'us-east-1']
  return { endpoint: endpoint ?? `https://${host}.${suffix}`, region: signed }
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
