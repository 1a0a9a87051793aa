/** What is counted as it happens, and by which labels: closed sets, so that no caller can make up a series. */
export interface Counters {
  /** Tokens that were given out. */
  readonly tokens_issued: { readonly tool: string }
  /** Requests of proven workloads that ended without a token: `denied`, `needs_approval`, or the error's code. */
  readonly requests_denied: { readonly reason: string }
  /** Callers who were not believed, by the reasons of `identity/refusal.ts`; replays among them. */
  readonly refusals: { readonly realm: string; readonly reason: string }
  /** Requests that were told to wait. */
  readonly requests_limited: { readonly scope: 'address' | 'workload' }
  /** How often the policy folder was read again, and what came of it. */
  readonly policy_reloads: { readonly outcome: 'changed' | 'unchanged' | 'failed' }
  /** Scheduled jobs that failed. */
  readonly job_failures: { readonly job: string }
}

/** What is measured as it happens. Times are in seconds. */
export interface Measures {
  /** From the first byte of a request's head to its answer, by the route's own pattern. */
  readonly http_request_seconds: { readonly method: string; readonly route: string; readonly status: string }
  /** Changes in one commit of the ledger. */
  readonly ledger_batch_changes: Readonly<Record<string, never>>
  /** From a change's arrival in the queue to the begin of its transaction. */
  readonly ledger_wait_seconds: Readonly<Record<string, never>>
  /** One transaction, its commit included. */
  readonly ledger_commit_seconds: Readonly<Record<string, never>>
}

/** Where the broker's figures go. Costs little, never throws, and never gets a secret or a caller's own text as a label. */
export interface Meter {
  count<N extends keyof Counters>(name: N, labels: Counters[N], by?: number): void
  observe<N extends keyof Measures>(name: N, value: number, labels: Measures[N]): void
}

/** For programs that nobody asks for figures. */
export const silentMeter: Meter = { count: () => undefined, observe: () => undefined }
