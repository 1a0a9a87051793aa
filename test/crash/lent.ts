import { createHash } from 'node:crypto'
import pg from 'pg'
import type { Agent } from './agents.ts'
import { createCounts, type Counts } from './book.ts'

/** A credential that an agent has read to its end. */
export interface Lent {
  readonly grant: string
  readonly workload: string
  readonly task: string
  /** The entry that the answer named. */
  readonly index: number
  readonly issuedAtMs: number
  /** In the form that the tool's own clients take. */
  readonly credential: Readonly<Record<string, unknown>>
  readonly asked: Asked
  expiresAtMs: number
  /** Whether it was ended by an order whose answer said so (`yes`), or an order was given (`maybe`). */
  ended: 'no' | 'maybe' | 'yes'
  /** Renewals of which it is not known what became of them. */
  renewing: number
  /** A connection that the agent keeps open. */
  session?: pg.Client | undefined
}

/** What an agent wants. */
export interface Wish {
  readonly tool: string
  readonly actions: readonly string[]
  readonly target?: string
  readonly ttl_seconds: number
}

/** A request for a credential, which may be sent again where it has a key. */
export interface Asked {
  readonly agent: Agent
  readonly body: Wish & { readonly task: string }
  readonly key?: string
  /** How many answers are awaited. */
  pending: number
  /** Whether one did not come. */
  unanswered: boolean
}

/** An order to end all that fits. */
export interface EndOrder {
  readonly tool?: string
  readonly workload?: string
  readonly task?: string
  /** The entry that records it; absent while there is no answer. */
  index?: number
}

/** What the agents of a broker know: kept outside of it, so that a broker that dies takes nothing of it along. */
export interface LentBook {
  readonly lent: Map<string, Lent>
  /** Requests with a key that are to be sent again. */
  readonly toRepeat: Set<Asked>
  /** Those given since the log was last looked at. */
  readonly orders: Set<EndOrder>
  /** How many tables agents were told that they have made. */
  tables: number
  /** Whether somebody cuts the broker's connections to the tool. */
  cutting: boolean
  readonly problems: string[]
  readonly counts: LendingCounts
}

export interface LendingCounts extends Counts {
  asked: number
  received: number
  /** Requests under a key that were sent again. */
  repeated: number
  renewed: number
  givenBack: number
  /** Connections that agents opened. */
  logins: number
  /** Logins with a credential that was ended, which all failed. */
  refusedLogins: number
  /** Requests to which the broker said that the tool did not do it, while its connections were being cut. */
  toolFailures: number
  cuts: number
  /** Sweeps beyond the first one after a start, for what a tool that did not answer had put off. */
  sweepsMore: number
}

export function createLendingCounts(): LendingCounts {
  return { ...createCounts(), asked: 0, received: 0, repeated: 0, renewed: 0, givenBack: 0, logins: 0, refusedLogins: 0, toolFailures: 0, cuts: 0, sweepsMore: 0 }
}

export function createLentBook({ counts, problems }: Pick<LentBook, 'counts' | 'problems'>): LentBook {
  return { lent: new Map(), toRepeat: new Set(), orders: new Set(), tables: 0, cutting: false, problems, counts }
}

/** Whether the credential must work, must not, or either. */
export function stateOfLent({ orders }: Pick<LentBook, 'orders'>, lent: Lent, nowMs: number): 'live' | 'ended' | 'unsure' {
  if (lent.ended === 'yes') return 'ended'
  if (lent.ended === 'maybe' || lent.renewing > 0 || lent.asked.pending > 0 || lent.asked.unanswered) return 'unsure'
  for (const order of orders) if (fits(order, lent)) return 'unsure'
  // Not to the second: the broker's clock is read a little later.
  return lent.expiresAtMs > nowMs + 3_000 ? 'live' : 'unsure'
}

/** Whether the order covers it: what was asked for later than the order was recorded is none of its business. */
export function fits({ tool, workload, task, index = Infinity }: EndOrder, lent: Pick<Lent, 'workload' | 'task' | 'index'> & { readonly asked: { readonly body: Pick<Wish, 'tool'> } }): boolean {
  const isOf = (tool === undefined || tool === lent.asked.body.tool) && (workload === undefined || workload === lent.workload)
  return isOf && (task === undefined || task === lent.task) && index > lent.index
}

/** The connection, or the server's word for why there is none. */
export async function logIn(config: pg.ClientConfig): Promise<pg.Client | string> {
  const client = new pg.Client({ ...config, connectionTimeoutMillis: 20_000 })
  client.on('error', () => undefined)
  try {
    await client.connect()
    return client
  } catch (error) {
    return describeRefusal(error)
  }
}

/** The result's first row, or the server's word for why there is none. */
export async function query(client: pg.Client, text: string): Promise<unknown[] | string> {
  try {
    return (await client.query(text)).rows as unknown[]
  } catch (error) {
    return describeRefusal(error)
  }
}

function describeRefusal(error: unknown): string {
  const { code = '', message = '' } = error instanceof Error ? (error as Error & { readonly code?: string }) : {}
  return `${code} ${message}`.trim()
}

/** A name of one's own for a table that goes on to be there. */
export function nameTable({ grant }: Lent, n: number): string {
  return `made_${createHash('sha256').update(`${grant} ${n}`).digest('hex').slice(0, 16)}`
}

/** Closes what the agent has open. */
export async function drop(lent: Lent): Promise<void> {
  const { session } = lent
  lent.session = undefined
  await session?.end().catch(() => undefined)
}
