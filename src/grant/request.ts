import { BrokerError, type ErrorCode } from '../kernel/errors.ts'
import type { Tool } from '../policy/catalog.ts'

/** What an agent sent, as text. Each is the parameter's value, or absent. */
export interface RawRequest {
  /** RFC 6749 §3.3. */
  readonly scope?: string
  /** RFC 9396 §2, already parsed from JSON. */
  readonly authorizationDetails?: unknown
  /** RFC 8707 §2. */
  readonly resource?: string
}

/** What it asks for, every name resolved against the catalog. Target, task and time are its own assertions (invariant 9). */
export interface GrantRequest {
  readonly tool: Tool
  /** Full names, at least one, each once, in the order in which they were asked for. */
  readonly actions: readonly string[]
  readonly target?: string
  readonly task?: string
  readonly ttlSeconds: number
  /** Why, in the caller's words. */
  readonly reason?: string
  /** Whether the request came as authorization details, which the answer then echoes. */
  readonly detailed: boolean
}

/** The same by its members, each of the right form already. */
export interface GrantWish {
  readonly tool: string
  /** Full names, or the verbs alone. */
  readonly actions: readonly string[]
  readonly target?: string
  readonly ttlSeconds?: number
  readonly task?: string
  readonly reason?: string
}

/** How the catalog answers: what this room needs of the policy room. */
export interface CatalogLookup {
  readonly tools: ReadonlyMap<string, Tool>
  findTargetProblem(tool: Tool, target: string | undefined): string | undefined
}

const actionsMax = 32
/** Of all names together: a token says them twice, and must stay below the 16 KiB that verifiers take. */
const actionsLengthMax = 2_048
/**
 * Names of work: what ticket and workflow systems use, and nothing that could break out of a log line or a tag. A name can be
 * said in a path, which completing a task takes: no part between slashes is empty, `.` or `..`. At most `taskLengthMax` long.
 */
export const taskPattern = /^[A-Za-z0-9][\w.:@#+-]*(?:\/(?:\.{0,2}[\w:@#+-]|\.{3})[\w.:@#+-]*)*$/
export const taskLengthMax = 128
/** The same in words. */
export const taskForm = '1 to 128 letters, digits and . _ : / @ # + -, begins with a letter or digit, and has no empty part, . or .. between slashes'

/**
 * Resolves a request against the catalog (invariant 6: what cannot be honoured is refused, never ignored). Throws
 * `invalid_request`, `invalid_scope`, `invalid_target` or `invalid_authorization_details`.
 */
export function resolveRequest(raw: RawRequest, catalog: CatalogLookup): GrantRequest {
  const detailed = raw.authorizationDetails !== undefined
  if (detailed === (raw.scope !== undefined)) {
    throw refuse('invalid_request', 'Name the actions either in scope or in authorization_details, in exactly one of them')
  }
  const code = detailed ? 'invalid_authorization_details' : 'invalid_scope'
  const asked = detailed ? parseDetails(raw.authorizationDetails) : { actions: parseScope(raw.scope ?? '') }
  const tool = findTool(asked.actions, catalog, code)
  judgeResource(raw.resource, tool, catalog)
  const { target, task, ttlSeconds = tool.ttl.defaultSeconds } = asked
  const problem = catalog.findTargetProblem(tool, target)
  if (problem !== undefined) {
    const how = detailed ? '' : '; a target is sent in authorization_details'
    throw refuse(detailed ? code : 'invalid_request', `The tool ${tool.name} ${problem}${how}`)
  }
  if (ttlSeconds > tool.ttl.maxSeconds) {
    throw refuse(code, `The ttl_seconds of ${ttlSeconds} are too many: ${tool.name} gives at most ${tool.ttl.maxSeconds}`)
  }
  return {
    tool,
    actions: asked.actions,
    ttlSeconds,
    detailed,
    ...(target !== undefined && { target }),
    ...(task !== undefined && { task }),
  }
}

/** The same for a request that names the tool. Throws `invalid_input` or `invalid_target`. */
export function resolveWish({ tool: name, actions: named, target, ttlSeconds, task, reason }: GrantWish, catalog: CatalogLookup): GrantRequest {
  const tool = catalog.tools.get(name)
  if (tool === undefined) throw refuse('invalid_input', `There is no tool ${show(name)} in the catalog`)
  const actions = named.map((action) => (action.includes(':') ? action : `${name}:${action}`))
  const found = findTool(actions, catalog, 'invalid_input')
  if (found !== tool) throw refuse('invalid_input', `The tool is ${name}, but the actions are of ${found.name}`)
  const problem = catalog.findTargetProblem(tool, target)
  if (problem !== undefined) throw refuse('invalid_target', `The tool ${name} ${problem}`)
  const seconds = ttlSeconds ?? tool.ttl.defaultSeconds
  if (seconds > tool.ttl.maxSeconds) {
    throw refuse('invalid_input', `The ttl_seconds of ${seconds} are too many: ${name} gives at most ${tool.ttl.maxSeconds}`)
  }
  return {
    tool,
    actions,
    ttlSeconds: seconds,
    detailed: false,
    ...(target !== undefined && { target }),
    ...(task !== undefined && { task }),
    ...(reason !== undefined && { reason }),
  }
}

function parseScope(scope: string): string[] {
  const actions = scope.split(' ')
  if (actions.includes('')) {
    throw refuse('invalid_scope', 'The scope is a list of actions with one space between them, and none before or after')
  }
  return actions
}

interface Details {
  readonly actions: readonly string[]
  readonly target?: string
  readonly task?: string
  readonly ttlSeconds?: number
}

const detailMembers = ['type', 'actions', 'target', 'task', 'ttl_seconds']

function parseDetails(value: unknown): Details {
  const fail = (message: string): never => {
    throw refuse('invalid_authorization_details', message)
  }
  const detail: unknown = Array.isArray(value) && value.length === 1 ? value[0] : undefined
  if (typeof detail !== 'object' || detail === null || Array.isArray(detail)) {
    return fail('The authorization_details are a JSON array of exactly one object, with no member named twice')
  }
  const unknown = Object.keys(detail).find((name) => !detailMembers.includes(name))
  if (unknown !== undefined) return fail(`The authorization_details have an unknown member ${show(unknown)}; it takes ${detailMembers.join(', ')}`)
  const { type, actions, target, task, ttl_seconds: ttlSeconds } = detail as Record<string, unknown>
  if (type !== 'stint') return fail('The authorization_details must have the type "stint"')
  if (!Array.isArray(actions) || actions.length === 0 || !actions.every((action) => typeof action === 'string')) {
    return fail('The actions are a list of at least one, each a string')
  }
  if (target !== undefined && (typeof target !== 'string' || target === '')) return fail('The target is a non-empty string')
  if (task !== undefined && (typeof task !== 'string' || task.length > taskLengthMax || !taskPattern.test(task))) {
    return fail(`The task is a name of ${taskForm}`)
  }
  if (ttlSeconds !== undefined && (typeof ttlSeconds !== 'number' || !Number.isSafeInteger(ttlSeconds) || ttlSeconds < 1)) {
    return fail('The ttl_seconds are a whole number, at least 1')
  }
  return {
    actions,
    ...(typeof target === 'string' && { target }),
    ...(typeof task === 'string' && { task }),
    ...(typeof ttlSeconds === 'number' && { ttlSeconds }),
  }
}

/** The one tool that all actions belong to. */
function findTool(actions: readonly string[], { tools }: CatalogLookup, code: ErrorCode): Tool {
  if (actions.length > actionsMax) throw refuse(code, `At most ${actionsMax} actions fit into one request`)
  if (actions.join(' ').length > actionsLengthMax) {
    throw refuse(code, `The names of the actions may have ${actionsLengthMax} characters together: ask for fewer at a time`)
  }
  let found: Tool | undefined
  for (const [position, action] of actions.entries()) {
    const tool = tools.get(action.slice(0, Math.max(0, action.indexOf(':'))))
    if (tool === undefined || !tool.actions.has(action)) {
      throw refuse(code, `There is no action ${show(action)}; actions are named tool:verb, in exactly that case`)
    }
    if (found !== undefined && found !== tool) {
      throw refuse(code, `One request is for one tool, but this one names ${found.name} and ${tool.name}: ask for each apart`)
    }
    if (actions.indexOf(action) !== position) throw refuse(code, `The action ${show(action)} is named twice`)
    found = tool
  }
  if (found === undefined) throw refuse(code, 'Name at least one action')
  return found
}

function judgeResource(resource: string | undefined, tool: Tool, { tools }: CatalogLookup): void {
  if (resource === undefined || resource === tool.audience) return
  const other = [...tools.values()].find((candidate) => candidate.audience === resource)
  throw refuse(
    'invalid_target',
    other === undefined
      ? 'The resource is not the audience of any tool; leave it out, since the actions name the tool'
      : `The resource is the audience of ${other.name}, but the actions are of ${tool.name}`,
  )
}

function refuse(code: ErrorCode, sentence: string): BrokerError {
  return new BrokerError({ code, publicMessage: `${sentence}.` })
}

/** What the caller sent, short and safe to say back in an `error_description` (RFC 6749 §5.2: no quotes, no controls). */
function show(text: string): string {
  return text.slice(0, 80).replaceAll(/[^\x21\x23-\x5b\x5d-\x7e]/g, '?')
}
