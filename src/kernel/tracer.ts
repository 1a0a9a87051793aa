/** Facts about a span: names, numbers and outcomes. Never a secret, a body, or a URL with its query. */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>

/** A piece of work under way. */
export interface Span {
  /** Adds what is known only later. */
  note(attributes: Attributes): void
  rename(name: string): void
  /** Marks it as failed, by the kind of error. */
  fail(kind: string): void
}

/** Tells what a request does inside the broker, as spans within spans. Costs little, and throws nothing of its own. */
export interface Tracer {
  /** Runs `body` as a part of what is under way. A body that throws, or rejects, has failed. */
  trace<T>(name: string, body: (span: Span) => T): T
  /** The same for a request from outside, in the trace that its `traceparent` header names (W3C Trace Context §3.2). */
  traceRequest<T>(name: string, traceparent: string | undefined, body: (span: Span) => T): T
  /** Sends what is left, within a few seconds. */
  close(): Promise<void>
}
