/** What is counted as it happens, and by which labels: closed sets, so that no caller can make up a series. */
export interface Counters {
  /** Tokens that were given out. */
  readonly tokens_issued: { readonly tool: string }
  /** Credentials of outside tools that were given out. */
  readonly credentials_lent: { readonly tool: string }
  /** Tries to end a credential that its tool refused or did not answer. */
  readonly end_failures: { readonly tool: string }
  /** Steps of rotations that the system behind a secret has done, or has refused or not answered. */
  readonly rotation_steps: { readonly rotation: string; readonly step: string; readonly outcome: 'done' | 'failed' }
  /** Tries to write a list of what is denied that came to nothing. */
  readonly deny_failures: { readonly tool: string }
  /** How often a list of what is denied was found changed by somebody else. */
  readonly deny_repairs: { readonly tool: string }
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
  /** Tries to keep checkpoints in an anchor that failed. */
  readonly anchor_failures: { readonly kind: 'file' | 'http' | 'witness' }
  /** Transactions of the ledger that came to nothing as a whole, so that nothing of them was given out. */
  readonly ledger_failures: Readonly<Record<string, never>>
}

/** What is measured as it happens. Times are in seconds. */
export interface Measures {
  /** From a request's arrival at the app until its answer begins, by the route's own pattern. */
  readonly http_request_seconds: { readonly method: string; readonly route: string; readonly status: string }
  /** Changes in one commit of the ledger. */
  readonly ledger_batch_changes: Readonly<Record<string, never>>
  /** From a change's arrival in the queue to the begin of its transaction. */
  readonly ledger_wait_seconds: Readonly<Record<string, never>>
  /** One transaction, its commit included. */
  readonly ledger_commit_seconds: Readonly<Record<string, never>>
}

/** What is read when somebody asks for it. */
export interface Gauges {
  readonly epoch: Readonly<Record<string, never>>
  readonly log_entries: Readonly<Record<string, never>>
  /** 1 while nothing can be committed any more, else 0. */
  readonly log_halted: Readonly<Record<string, never>>
  /** 0 if the last transaction of the ledger came to nothing as a whole, or nothing can be committed any more, else 1. */
  readonly log_writable: Readonly<Record<string, never>>
  /** Entries of checkpoints that an anchor did not have when it was tried last. */
  readonly anchor_behind_entries: { readonly kind: string }
  /** How far the clock is behind the log; negative where it is ahead. */
  readonly clock_behind_seconds: Readonly<Record<string, never>>
  /** 1 if the database answered what this very reading asked, else 0. */
  readonly database_answers: Readonly<Record<string, never>>
  readonly policy_set_age_seconds: Readonly<Record<string, never>>
  readonly policies: Readonly<Record<string, never>>
  readonly tools: Readonly<Record<string, never>>
  readonly workloads: { readonly status: string }
  /** Active workloads that suspend themselves within 14 days. */
  readonly reviews_due: Readonly<Record<string, never>>
  /** Workloads, retired ones aside, whose review date has passed. */
  readonly reviews_overdue: Readonly<Record<string, never>>
  /** Grants whose credential lives in an outside tool and is not over, by state. */
  readonly credentials: { readonly state: string }
  /** Those of them that should have been looked at a minute ago: the sweeper does not keep up, or stands still. */
  readonly credentials_overdue: Readonly<Record<string, never>>
  /** 1 where a new version of a long-lived secret should have been in force for some time, else 0. */
  readonly rotations_overdue: { readonly rotation: string }
  /** 1 where the last rotation came to nothing, so that what was in force still is, else 0. */
  readonly rotations_failed: { readonly rotation: string }
  /** Grants that are over and have to be denied in the tool until their session dies, by the tool that writes the list. */
  readonly denials: { readonly tool: string }
  /** How many the list has room for. */
  readonly denials_max: { readonly tool: string }
  readonly operators: { readonly role: string }
  /** Active operators whose credential expires within 14 days. */
  readonly operators_expiring: { readonly role: string }
}

/** One figure as it was read. */
export type Reading = { [N in keyof Gauges]: { readonly name: N; readonly labels: Gauges[N]; readonly value: number } }[keyof Gauges]

/** Where the broker's figures go. Costs little, never throws, and never gets a secret or a caller's own text as a label. */
export interface Meter {
  count<N extends keyof Counters>(name: N, labels: Counters[N], by?: number): void
  observe<N extends keyof Measures>(name: N, value: number, labels: Measures[N]): void
}

/** For programs that nobody asks for figures. */
export const silentMeter: Meter = { count: () => undefined, observe: () => undefined }

/** The broker's figures, as they are handed to who asks for them. */
export interface Metrics {
  readonly contentType: string
  /** The text exposition format of Prometheus 0.0.4. What the database does not answer in time is left out. */
  read(): Promise<string>
}
