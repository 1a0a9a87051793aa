import { AsyncLocalStorage } from 'node:async_hooks'
import { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace, type Context, type Span as SdkSpan, type SpanContext } from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { BatchSpanProcessor, TracerProvider, type SpanExporter } from '@opentelemetry/sdk-trace'
import type { Clock } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Log } from '../kernel/log.ts'
import type { Span, Tracer } from '../kernel/tracer.ts'

export interface TracerOptions {
  /** The base URL of a collector that takes OTLP over HTTP. */
  readonly url: string
  readonly version: string
  readonly clock: Clock
  readonly log: Log
  /** How long spans are gathered before they are sent. */
  readonly delayMs?: number
}

/** For how long one sending is tried, and how long the last one may hold up the end of the process. */
const sendMsMax = 3_000

/**
 * A tracer that sends to an OpenTelemetry collector. Spans that it does not take in time are dropped: the queue is bounded,
 * and no request waits for it. Nothing is registered globally, so that two brokers in one process do not mix.
 */
export function createTracer({ url, version, clock, log, delayMs = 2_000 }: TracerOptions): Tracer {
  const exporter = new OTLPTraceExporter({ url: `${url.replace(/\/+$/, '')}/v1/traces`, timeoutMillis: sendMsMax, concurrencyLimit: 4 })
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'stint', 'service.version': version }),
    spanLimits: { attributeValueLengthLimit: 256 },
    spanProcessors: [
      new BatchSpanProcessor({ exporter: warnOfFailures(exporter, clock, log), maxQueueSize: 4_096, maxExportBatchSize: 512, scheduledDelayMillis: delayMs }),
    ],
  })
  const sdk = provider.getTracer('stint', version)
  const current = new AsyncLocalStorage<Context>()

  function run<T>(name: string, kind: SpanKind, parent: Context, body: (span: Span) => T): T {
    const span = sdk.startSpan(name, { kind }, parent)
    const shown = showSpan(span)
    const settle = (error: unknown): void => {
      shown.fail(error instanceof BrokerError ? error.code : error instanceof Error ? error.name : 'unknown')
      span.end()
    }
    try {
      const result = current.run(trace.setSpan(parent, span), body, shown)
      if (result instanceof Promise) result.then(() => span.end(), settle)
      else span.end()
      return result
    } catch (error) {
      settle(error)
      throw error
    }
  }

  return {
    trace(name, body) {
      const parent = current.getStore()
      // What a scheduled job does is part of no request.
      return parent === undefined ? body(unseenSpan) : run(name, SpanKind.INTERNAL, parent, body)
    },
    traceRequest: (name, traceparent, body) => run(name, SpanKind.SERVER, readParent(traceparent), body),
    async close() {
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, sendMsMax)
      })
      // What could not be sent was said as it failed.
      await Promise.race([provider.shutdown().catch(() => undefined), late])
      clearTimeout(timer)
    },
  }
}

function showSpan(span: SdkSpan): Span {
  return {
    note: (attributes) => void span.setAttributes(attributes),
    rename: (name) => void span.updateName(name),
    // Only the kind: a message may repeat what a caller sent.
    fail: (kind) => void span.setStatus({ code: SpanStatusCode.ERROR }).setAttribute('error.type', kind),
  }
}

const unseenSpan: Span = { note: () => undefined, rename: () => undefined, fail: () => undefined }

/** The caller's own span, or none where the header is missing or is not what W3C Trace Context §3.2 says. */
function readParent(traceparent: string | undefined): Context {
  const [, version, traceId, spanId, flags, rest] = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(traceparent ?? '') ?? []
  if (version === undefined || traceId === undefined || spanId === undefined || flags === undefined) return ROOT_CONTEXT
  // §3.2.2.1 and §4.3: ff is no version, and only a later one than 00 may say more.
  if (version === 'ff' || (version === '00' && rest !== undefined)) return ROOT_CONTEXT
  const parent: SpanContext = { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1, isRemote: true }
  return trace.setSpanContext(ROOT_CONTEXT, parent)
}

const warnEveryMs = 60_000

/** Says at most once a minute that spans were lost: a collector that is down must not fill the log. */
function warnOfFailures(exporter: SpanExporter, clock: Clock, log: Log): SpanExporter {
  let warnedMs = -Infinity
  let lost = 0
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        if (result.error !== undefined) {
          lost += spans.length
          if (Math.abs(clock.nowMs() - warnedMs) >= warnEveryMs) {
            log.warn('traces could not be sent; requests are not held up by it', { spans: lost, reason: result.error.message.slice(0, 200) })
            warnedMs = clock.nowMs()
            lost = 0
          }
        }
        done(result)
      })
    },
    shutdown: () => exporter.shutdown(),
  }
}
