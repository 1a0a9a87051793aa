import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { BacklogPlan } from './backlog.ts'
import type { Children } from './children.ts'
import { startOidcProvider } from './oidc.ts'
import { teamsOf, writePolicies, type PolicyPlan } from './policies.ts'
import type { Postgres } from './postgres.ts'
import { startStint, type StintOptions } from './stint.ts'
import type { Subject } from './subject.ts'

/** Where subjects are started, and what they share. */
export interface Surroundings {
  readonly children: Children
  readonly folder: string
  /** There for the subjects that need it. */
  readonly postgres?: Postgres
  /** What the Node of a broker is told. */
  readonly nodeOptions?: readonly string[]
}

/** One line of the table: a subject under so many connections. */
export interface Case {
  readonly name: string
  /** By what `--only` picks it. */
  readonly groups: readonly string[]
  readonly subject: string
  readonly connections: number
}

export interface SubjectPlan {
  readonly name: string
  readonly needsPostgres?: boolean
  start(surroundings: Surroundings): Promise<Subject>
}

/** What is compared: how much the first costs more, or gives more, than the second. */
export interface Comparison {
  readonly title: string
  readonly of: string
  readonly to: string
  /** What is aimed at: at least this ratio of rates, or at most this ratio of costs. */
  readonly rateMin?: number
  readonly costMax?: number
}

export interface Plan {
  readonly subjects: readonly SubjectPlan[]
  readonly cases: readonly Case[]
  readonly comparisons: readonly Comparison[]
  /** The subject whose log is exported and verified at the end. */
  readonly verified?: string
  /** What is cleared while new grants are measured; with a PostgreSQL alone. */
  readonly backlogs: readonly BacklogPlan[]
}

export const groups = ['sqlite', 'oidc', 'policies', 'workloads', 'log', 'postgres', 'verify', 'backlog']

const costMax = 1.2
/** Of the sample set: what one agent, or a whole team, may do. */
const tickets = { scope: 'tickets:read', resource: 'https://tickets.example.com' }
const docs = { scope: 'docs:read', resource: 'https://docs.example.com' }
const triageBot = { workloads: ['triage-bot'], teams: ['support'], ...tickets }
const namesOf = (count: number) => Array.from({ length: count }, (_, i) => `agent-${i}`)

/** What is measured. A quick run has smaller sizes, and names them as they are. */
export function planCases(quick: boolean, only: readonly string[]): Plan {
  const policyCounts = quick ? [10, 1_000] : [10, 1_000, 10_000]
  const workloadCounts = quick ? [10, 1_000] : [10, 10_000]
  const entries = quick ? 50_000 : 1_000_000
  const largeLog = `log-${entries}`
  const policyPlans = [0, 5].flatMap((unconstrainedPercent) => policyCounts.map((count) => ({ count, unconstrainedPercent })))
  const policyName = ({ count, unconstrainedPercent }: PolicyPlan) => `policies-${count}${unconstrainedPercent === 0 ? '' : '-unconstrained'}`

  const all: { readonly plan: SubjectPlan; readonly connections: readonly number[]; readonly groups: readonly string[] }[] = [
    { plan: planStint({ name: 'sqlite', ...triageBot }), connections: [1, 32], groups: ['sqlite', 'log'] },
    { plan: { name: 'oidc', start: ({ children, folder }) => startOidcProvider(children, folder) }, connections: [1, 32], groups: ['oidc'] },
    ...policyPlans.map((plan) => ({ plan: planPolicies(policyName(plan), plan), connections: [32], groups: ['policies'] })),
    ...workloadCounts.map((count) => ({
      plan: planStint({ name: `workloads-${count}`, workloads: namesOf(count), teams: ['support'], ...docs }),
      connections: [32],
      groups: ['workloads'],
    })),
    { plan: planStint({ name: largeLog, ...triageBot, entries }), connections: [32], groups: ['log', 'verify'] },
    ...[1, 2].map((processes) => ({
      plan: planPostgres({ name: `postgres-${processes}`, ...triageBot, processes }),
      connections: [32],
      groups: ['postgres'],
    })),
  ]
  const picked = all.filter((one) => only.length === 0 || one.groups.some((group) => only.includes(group)))
  const cases = picked.flatMap(({ plan, connections, groups }) =>
    connections.map((count) => ({ name: `${plan.name} ×${count}`, groups, subject: plan.name, connections: count })),
  )
  const [policiesMin = 0, policiesMax = 0] = [policyCounts[0], policyCounts.at(-1)]
  const [workloadsMin = 0, workloadsMax = 0] = [workloadCounts[0], workloadCounts.at(-1)]
  const comparisons: Comparison[] = [
    { title: 'Stint : node-oidc-provider, 32 connections', of: 'sqlite ×32', to: 'oidc ×32', rateMin: 2 },
    { title: 'Stint : node-oidc-provider, 1 connection', of: 'sqlite ×1', to: 'oidc ×1' },
    ...[0, 5].map((unconstrainedPercent) => ({
      title: `${policiesMax} : ${policiesMin} policies${unconstrainedPercent === 0 ? '' : `, ${unconstrainedPercent} % of them unconstrained`}`,
      of: `${policyName({ count: policiesMax, unconstrainedPercent })} ×32`,
      to: `${policyName({ count: policiesMin, unconstrainedPercent })} ×32`,
      costMax,
    })),
    { title: `${workloadsMax} : ${workloadsMin} workloads`, of: `workloads-${workloadsMax} ×32`, to: `workloads-${workloadsMin} ×32`, costMax },
    { title: `a log of ${entries} : an empty log`, of: `${largeLog} ×32`, to: 'sqlite ×32', costMax },
    { title: 'PostgreSQL with two processes : with one', of: 'postgres-2 ×32', to: 'postgres-1 ×32' },
  ]
  const names = cases.map(({ name }) => name)
  return {
    subjects: picked.map(({ plan }) => plan),
    cases,
    comparisons: comparisons.filter(({ of, to }) => names.includes(of) && names.includes(to)),
    ...((only.length === 0 || only.includes('verify')) && { verified: largeLog }),
    backlogs: only.includes('backlog') || (only.length === 0 && !quick) ? planBacklogs(quick) : [],
  }
}

function planBacklogs(quick: boolean): BacklogPlan[] {
  const [unreal, real] = quick ? [2_000, 200] : [50_000, 2_000]
  return [
    { name: `backlog-${unreal}`, grants: unreal, real: false },
    { name: `backlog-${real}-real`, grants: real, real: true },
  ]
}

function planStint(options: StintOptions): SubjectPlan {
  return { name: options.name, start: ({ children, folder, nodeOptions = [] }) => startStint(children, folder, { ...options, nodeOptions }) }
}

/** Ten agents of the first teams ask, each allowed by a rule of its team among all the others. */
function planPolicies(name: string, plan: PolicyPlan): SubjectPlan {
  return {
    name,
    start({ children, folder }) {
      const policies = join(folder, `${name}-rules`)
      mkdirSync(policies)
      writePolicies(policies, plan)
      return startStint(children, folder, { name, policies, workloads: namesOf(10), teams: teamsOf(plan), ...tickets })
    },
  }
}

function planPostgres(options: StintOptions): SubjectPlan {
  return {
    name: options.name,
    needsPostgres: true,
    async start({ children, folder, postgres }) {
      if (postgres === undefined) throw new Error(`${options.name} needs PostgreSQL`)
      return startStint(children, folder, { ...options, postgres: await postgres.createDatabase(options.name.replace('-', '_')) })
    },
  }
}
