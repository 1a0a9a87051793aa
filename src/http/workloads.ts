import { z } from 'zod'
import { addWorkloadKeys, changeWorkload, registerWorkload, removeWorkloadKey, type ChangedWorkload } from '../broker/register.ts'
import { resumeWorkload, retireWorkload, suspendWorkload } from '../broker/standing.ts'
import { spiffeId, stages, workloadNamePattern, workloadStatuses, type Workload } from '../identity/workload.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { findWorkload, listWorkloads } from '../storage/workloads.ts'
import { readJson } from './body.ts'
import { operatorCaller } from './guards.ts'
import { oneOf, parseInput, readQuery, searchText, shortText, wholeNumber } from './query.ts'
import type { Route, RouteContext } from './route.ts'

const listQuery = z.strictObject({
  status: oneOf(workloadStatuses).optional(),
  stage: oneOf(stages).optional(),
  team: searchText(64).optional(),
  limit: wholeNumber(1, 500).optional(),
  after: z.string().regex(workloadNamePattern, 'must be the name of a workload').optional(),
})

/** Why, for whoever reads the log later. Stands in the log for ever: no secrets, no people's names. */
export const reasonSchema = shortText(500).regex(/^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]*$/u, 'must be one line of text')

const reasonBody = z.strictObject({ reason: reasonSchema.optional() })
const keysBody = z.strictObject({ jwks: z.unknown() })

export const workloadRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/workloads',
    access: 'admin',
    async handle(c) {
      const registered = await registerWorkload(c.get('broker'), operatorCaller(c), await readJson(c))
      c.header('location', `/v1/workloads/${registered.workload.name}`)
      return answerChange(c, registered, 201)
    },
  },
  { method: 'GET', path: '/v1/workloads', access: 'admin', takesQuery: true, handle: answerList },
  {
    method: 'GET',
    path: '/v1/workloads/:name',
    access: 'admin',
    async handle(c) {
      const name = readName(c)
      const workload = await findWorkload(c.get('broker').database.read, name)
      if (workload === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no workload ${name}.` })
      return c.json(describe(c, workload))
    },
  },
  {
    method: 'PATCH',
    path: '/v1/workloads/:name',
    access: 'admin',
    handle: async (c) => answerChange(c, await changeWorkload(c.get('broker'), operatorCaller(c), readName(c), await readJson(c))),
  },
  standingRoute('suspend', suspendWorkload),
  standingRoute('resume', resumeWorkload),
  standingRoute('retire', retireWorkload),
  {
    method: 'POST',
    path: '/v1/workloads/:name/keys',
    access: 'admin',
    async handle(c) {
      const { jwks } = parseInput(keysBody, await readJson(c))
      return answerChange(c, await addWorkloadKeys(c.get('broker'), operatorCaller(c), readName(c), jwks), 201)
    },
  },
  {
    method: 'DELETE',
    path: '/v1/workloads/:name/keys/:kid',
    access: 'admin',
    async handle(c) {
      const kid = c.req.param('kid') ?? ''
      if (!/^[\w-]{43}$/.test(kid)) throw new BrokerError({ code: 'not_found', publicMessage: 'A kid is an RFC 7638 thumbprint of 43 characters.' })
      return answerChange(c, await removeWorkloadKey(c.get('broker'), operatorCaller(c), readName(c), kid))
    },
  },
]

function standingRoute(verb: string, change: typeof suspendWorkload): Route {
  return {
    method: 'POST',
    path: `/v1/workloads/:name/${verb}`,
    access: 'admin',
    async handle(c) {
      const { reason } = parseInput(reasonBody, await readJson(c))
      return answerChange(c, await change(c.get('broker'), operatorCaller(c), readName(c), reason))
    },
  }
}

async function answerList(c: RouteContext): Promise<Response> {
  const { status, stage, team, limit = 100, after } = readQuery(c, listQuery)
  const workloads = await listWorkloads(c.get('broker').database.read, {
    // One more than asked for tells whether there is a next page.
    limit: limit + 1,
    ...(status !== undefined && { status }),
    ...(stage !== undefined && { stage }),
    ...(team !== undefined && { team }),
    ...(after !== undefined && { after }),
  })
  const page = workloads.slice(0, limit)
  return c.json({
    workloads: page.map((workload) => describe(c, workload)),
    next: workloads.length > limit ? page.at(-1)?.name : undefined,
  })
}

function readName(c: RouteContext): string {
  const name = c.req.param('name') ?? ''
  if (workloadNamePattern.test(name)) return name
  throw new BrokerError({ code: 'not_found', publicMessage: 'There is no such workload: names are 1 to 63 of a-z, 0-9 and -.' })
}

function answerChange(c: RouteContext, { workload, auditIndex }: ChangedWorkload, status: 200 | 201 = 200): Response {
  if (auditIndex !== undefined) c.header('stint-audit-index', String(auditIndex))
  return c.json(describe(c, workload), status)
}

function describe(c: RouteContext, workload: Workload) {
  return {
    name: workload.name,
    spiffe_id: spiffeId(c.get('broker').trustDomain, workload.name),
    environment: workload.environment,
    stage: workload.stage,
    owner: workload.owner,
    purpose: workload.purpose,
    tags: workload.tags,
    review_at: formatTime(workload.reviewAtMs),
    status: workload.status,
    created_at: formatTime(workload.createdAtMs),
    updated_at: formatTime(workload.updatedAtMs),
    keys: workload.keys.map(({ kid, alg, jwk, addedAtMs, removedAtMs }) => ({
      kid,
      alg,
      jwk,
      status: removedAtMs === undefined ? 'active' : 'removed',
      added_at: formatTime(addedAtMs),
      ...(removedAtMs !== undefined && { removed_at: formatTime(removedAtMs) }),
    })),
  }
}
