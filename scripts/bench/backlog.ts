import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import SqliteDatabase from 'better-sqlite3'
import { createClient, type Client, type Request } from '../../test/crash/http.ts'
import { createLedgerTool } from '../../test/crash/ledger-tool.ts'
import { createAsserter, type Signer } from './bodies.ts'
import type { Children } from './children.ts'
import type { Postgres } from './postgres.ts'
import { startStint } from './stint.ts'
import { percentileOf } from './statistics.ts'

/** What is to be cleared after the start. */
export interface BacklogPlan {
  readonly name: string
  readonly grants: number
  readonly real: boolean
}

/** How long requests of one kind took, in milliseconds. */
export interface Latency {
  readonly requests: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export interface BacklogFigures {
  readonly name: string
  readonly grants: number
  readonly clearedSeconds: number
  /** Of new grants while the backlog is cleared, and after that. */
  readonly meanwhile: Readonly<Record<Kind, Latency>>
  readonly afterwards: Readonly<Record<Kind, Latency>>
}

type Kind = 'token' | 'credential'

const clearedSecondsMax = 2_400
/** Requests of one after another, with a rest in between: as steady in either case, and far from what the broker can do. */
const paces: Readonly<Record<Kind, { readonly clients: number; readonly restMs: number }>> = {
  token: { clients: 2, restMs: 10 },
  credential: { clients: 2, restMs: 40 },
}
const workload = 'backlog-bot'

/**
 * Starts a broker whose database has so many credentials of PostgreSQL that expired while it was down, and measures new
 * grants while it clears them, and for as many seconds afterwards.
 */
export async function measureBacklog(children: Children, folder: string, postgres: Postgres, plan: BacklogPlan, seconds: number): Promise<BacklogFigures> {
  const { name, grants, real } = plan
  const [policies, secrets] = [join(folder, `${name}-policies`), join(folder, `${name}-secrets`)]
  for (const made of [join(policies, 'tools'), secrets]) mkdirSync(made, { recursive: true })
  const tool = await createLedgerTool(postgres.server, secrets)
  for (const [file, text] of Object.entries({ ...tool.policies, ...ticketFiles })) writeFileSync(join(policies, file), text)
  const subject = await startStint(children, folder, {
    name,
    policies,
    workloads: [workload],
    teams: ['support'],
    scope: 'tickets:read',
    resource: 'https://tickets.example.com',
    backlog: { tool: 'ledger', action: 'ledger:read', count: grants, real },
  })
  const beganMs = performance.now()
  const client = createClient(Number(new URL(subject.log?.url ?? '').port))
  // Of our own making.
  const [signer] = JSON.parse(readFileSync(subject.signersFile, 'utf8')) as Signer[]
  if (signer === undefined) throw new Error('there is no workload')
  const asker = { client, assert: createAsserter(signer, subject.audience) }
  const file = join(folder, name, 'stint.db')
  const firstMs = new Date().toISOString()
  const meanwhile = await measureUntil(asker, async () => {
    if (performance.now() - beganMs > clearedSecondsMax * 1000) throw new Error(`${countDue(file, firstMs)} of ${grants} are not cleared after ${clearedSecondsMax} s`)
    return countDue(file, firstMs) === 0
  })
  const clearedSeconds = (performance.now() - beganMs) / 1000
  const untilMs = performance.now() + seconds * 1000
  const afterwards = await measureUntil(asker, async () => performance.now() > untilMs)
  client.drop()
  for (const server of subject.servers) await server.stop()
  const left = [...(await tool.readRoles()).values()].length
  const lent = meanwhile.credential.requests + afterwards.credential.requests
  if (left !== lent) throw new Error(`${lent} credentials are alive, and the tool has ${left} roles`)
  return { name, grants, clearedSeconds, meanwhile, afterwards }
}

const ticketFiles = {
  'tools/tickets.yaml': `tool: tickets
connector: jwt
audience: https://tickets.example.com
sensitivity: low
ttl: { default: 10m, max: 1h }
actions: { read: {} }
`,
  'tickets.cedar': `@id("support-reads-tickets")
permit (principal in Team::"support", action == Action::"tickets:read", resource in Tool::"tickets");
`,
}

/** Beside the broker: its own figures would be part of what is measured. */
function countDue(file: string, before: string): number {
  const database = new SqliteDatabase(file, { readonly: true })
  try {
    // What one statement counts.
    return (database.prepare('select count(*) as due from credential where due_at <= ?').get(before) as { due: number }).due
  } finally {
    database.close()
  }
}

interface Asker {
  readonly client: Client
  assert(): string
}

async function measureUntil({ client, assert }: Asker, isOver: () => Promise<boolean>): Promise<Record<Kind, Latency>> {
  const over = new AbortController()
  const run = async (kind: Kind): Promise<Latency> => {
    const latencies = new Map<number, number>()
    const { clients, restMs } = paces[kind]
    const ask = async (): Promise<void> => {
      while (!over.signal.aborted) {
        const request = makeRequest(kind, assert())
        const sentMs = performance.now()
        const answer = await client.send(request)
        const us = Math.round((performance.now() - sentMs) * 1000)
        if (answer?.status !== 200 && answer?.status !== 201) throw new Error(`a ${kind} was not given: ${String(answer?.status)} ${String(answer?.text)}`)
        latencies.set(us, (latencies.get(us) ?? 0) + 1)
        await setTimeout(restMs)
      }
    }
    await Promise.all(Array.from({ length: clients }, ask))
    const requests = [...latencies.values()].reduce((sum, count) => sum + count, 0)
    return { requests, p50Ms: percentileOf(latencies, 0.5) / 1000, p99Ms: percentileOf(latencies, 0.99) / 1000 }
  }
  const watch = async (): Promise<void> => {
    try {
      // Long enough for some requests of each kind, whatever there was to clear.
      do await setTimeout(500)
      while (!(await isOver()))
    } finally {
      over.abort()
    }
  }
  const [token, credential] = await Promise.all([run('token'), run('credential'), watch()])
  return { token, credential }
}

function makeRequest(kind: Kind, assertion: string): Request {
  if (kind === 'credential') return { method: 'POST', path: '/v1/grants', json: { tool: 'ledger', actions: ['read'], ttl_seconds: 3_600 }, headers: { 'client-assertion': assertion } }
  const form = { grant_type: 'client_credentials', scope: 'tickets:read', client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', client_assertion: assertion }
  return { method: 'POST', path: '/oauth2/token', form }
}
