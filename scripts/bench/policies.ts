import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './children.ts'

/** What a made-up policy set is like. */
export interface PolicyPlan {
  readonly count: number
  /** How many of a hundred rules name neither a principal nor an action nor a resource: no scope keeps them from any request. */
  readonly unconstrainedPercent: number
}

/** How many tools the catalog has beside those of the sample set, whatever the number of policies. */
const tools = 17
const rulesPerWorkload = 2
const rulesPerTeam = 10

/** The teams that a set of so many policies has. */
export function teamsOf({ count }: Pick<PolicyPlan, 'count'>): string[] {
  return Array.from({ length: Math.max(1, Math.floor(count / 2 / rulesPerTeam)) }, (_, i) => `team-${i}`)
}

/**
 * Writes a policy folder with the catalog of the sample set, a few more tools and so many rules: half of them for single
 * workloads, two each, half for teams, ten each. The first rule of each team lets it read tickets.
 */
export function writePolicies(folder: string, plan: PolicyPlan): void {
  const catalog = join(root, 'policies/tools')
  mkdirSync(join(folder, 'tools'), { recursive: true })
  for (const file of readdirSync(catalog)) writeFileSync(join(folder, 'tools', file), readFileSync(join(catalog, file)))
  for (let i = 0; i < tools; i++) writeFileSync(join(folder, 'tools', `tool-${i}.yaml`), describeTool(i))
  // A file of rules may have a mebibyte.
  const rules = writeRules(plan)
  for (let first = 0; first < rules.length; first += 1_000) {
    writeFileSync(join(folder, `rules-${first / 1_000}.cedar`), rules.slice(first, first + 1_000).join('\n'))
  }
}

function describeTool(i: number): string {
  return `tool: tool-${i}
connector: jwt
audience: https://tool-${i}.example.com
sensitivity: low
ttl: { default: 10m, max: 1h }
actions:
  read: {}
  write: { sensitivity: medium }
`
}

function writeRules({ count, unconstrainedPercent }: PolicyPlan): string[] {
  const unconstrained = unconstrainedPercent === 0 ? 0 : Math.max(1, Math.round((count * unconstrainedPercent) / 100))
  const teams = teamsOf({ count })
  return Array.from({ length: count }, (_, i) => {
    const id = `@id("rule-${i}")\n`
    // From the end, so that the teams keep their first rules.
    if (i >= count - unconstrained) return `${id}forbid (principal, action, resource)\nwhen { principal.tags.contains("barred-${i}") };\n`
    const nth = Math.floor(i / 2)
    const tool = `tool-${nth % tools}`
    if (i % 2 === 0) {
      const workload = `worker-${Math.floor(nth / rulesPerWorkload)}`
      return `${id}permit (principal == Workload::"${workload}", action == Action::"${tool}:write", resource in Tool::"${tool}")\nwhen { context.ttl <= duration("30m") };\n`
    }
    const team = teams[nth % teams.length] ?? ''
    const first = nth < teams.length
    const [action, resource] = first ? ['tickets:read', 'tickets'] : [`${tool}:read`, tool]
    return `${id}permit (principal in Team::"${team}", action == Action::"${action}", resource in Tool::"${resource}")\nwhen { principal.stage == "production" };\n`
  })
}
