import type { CedarSchema, TypeAndId } from './cedar.ts'
import { sensitivities, type Catalog, type Tool } from './catalog.ts'

const string = { type: 'String' } as const
const long = { type: 'Long' } as const
const boolean = { type: 'Boolean' } as const

/** What rules may ask of a workload. `owner` is the accountable team's name. */
const workloadShape = {
  stage: string,
  environment: string,
  owner: string,
  tags: { type: 'Set', element: string },
} as const

/** What rules may ask of a request. `recentGrants` and `recentDenials` count the workload's last hour. */
const contextShape = {
  ttl: { type: 'Extension', name: 'duration' },
  approvals: long,
  now: { type: 'Extension', name: 'datetime' },
  task: { ...string, required: false },
  depth: long,
  onBehalfOf: { ...string, required: false },
  proof: string,
  boundKey: boolean,
  recentGrants: long,
  recentDenials: long,
} as const

/** The groups an action is in: its tool's (`tickets:*`) and its sensitivity's (`sensitivity:high`). */
export function actionGroups(tool: Tool, actionName: string): string[] {
  const sensitivity = tool.actions.get(actionName)?.sensitivity ?? tool.sensitivity
  return [`${tool.name}:*`, `sensitivity:${sensitivity}`]
}

/** Every action group that a rule may name. The three groups by sensitivity exist even where they are empty. */
export function listActionGroups(catalog: Catalog): string[] {
  return [...[...catalog.keys()].map((tool) => `${tool}:*`), ...sensitivities.map((level) => `sensitivity:${level}`)]
}

/** Cedar's schema for these tools, so that every rule is validated against real tools and actions. */
export function createSchema(tools: Iterable<Tool>): CedarSchema {
  const actions = new Map<string, CedarSchema[string]['actions'][string]>()
  for (const level of sensitivities) actions.set(`sensitivity:${level}`, {})
  for (const tool of tools) {
    actions.set(`${tool.name}:*`, {})
    for (const name of tool.actions.keys()) {
      actions.set(name, {
        memberOf: actionGroups(tool, name).map((id) => ({ id })),
        appliesTo: {
          principalTypes: ['Workload'],
          resourceTypes: resourceTypes(tool),
          context: { type: 'Record', attributes: contextShape },
        },
      })
    }
  }
  return {
    '': {
      entityTypes: {
        Team: {},
        Workload: { memberOfTypes: ['Team'], shape: { type: 'Record', attributes: workloadShape } },
        Tool: { shape: { type: 'Record', attributes: { sensitivity: string } } },
        Target: { memberOfTypes: ['Tool'], shape: { type: 'Record', attributes: { name: string } } },
      },
      actions: Object.fromEntries(actions),
    },
  }
}

/** The resource that a request is about: the target within its tool, or the tool where it names none. */
export function resourceOf(toolName: string, target: string | undefined): TypeAndId {
  // A tool's name holds no slash, so that two different pairs never make one id.
  return target === undefined ? { type: 'Tool', id: toolName } : { type: 'Target', id: `${toolName}/${target}` }
}

function resourceTypes(tool: Tool): string[] {
  if (tool.target === undefined) return ['Tool']
  return tool.target.required ? ['Target'] : ['Target', 'Tool']
}
