import { z } from 'zod'
import { formatDuration, parseDuration } from '../kernel/duration.ts'
import type { PolicyProblem } from './problem.ts'
import { awsStsKind } from './kinds/aws-sts.ts'
import { awsSecretsManagerKind } from './kinds/aws-secrets-manager.ts'
import { githubAppKind } from './kinds/github-app.ts'
import type { ConnectorKind } from './kinds/kind.ts'
import { oauthClientKind } from './kinds/oauth-client.ts'
import { postgresKind } from './kinds/postgres.ts'
import { sealedSecretKind } from './kinds/sealed-secret.ts'
import { compileTargetPattern, type TargetRule } from './target.ts'
import { parseYamlFile, type YamlFile } from './yaml-file.ts'

export const sensitivities = ['low', 'medium', 'high'] as const
export type Sensitivity = (typeof sensitivities)[number]

/** One thing that can be done with a tool. */
export interface ToolAction {
  /** `tool:verb`, unique over all tools. */
  readonly name: string
  readonly verb: string
  /** The action's own, else its tool's. */
  readonly sensitivity: Sensitivity
  readonly description?: string
  /** What the connector's kind adds to an action, as its schema returned it; empty for `jwt`. */
  readonly settings: Readonly<Record<string, unknown>>
}

/** Something that agents are given access to: one file of the catalog. */
export interface Tool {
  readonly name: string
  readonly file: string
  readonly connector: string
  /** The resource indicator (RFC 8707) that the tool's tokens are for. */
  readonly audience?: string
  readonly description?: string
  readonly sensitivity: Sensitivity
  readonly ttl: { readonly defaultSeconds: number; readonly maxSeconds: number }
  /** How many approvals a decision may ask for at most. */
  readonly approvalsMax: number
  readonly target?: TargetRule
  /** By full name. */
  readonly actions: ReadonlyMap<string, ToolAction>
  /** Names of the workloads that may introspect this tool's tokens. */
  readonly introspectors: readonly string[]
  /** The connector kind's own settings, as its schema returned them. */
  readonly config?: unknown
}

/** All tools by name. */
export type Catalog = ReadonlyMap<string, Tool>

export type ConnectorKinds = ReadonlyMap<string, ConnectorKind>

/** Every kind of connector that Stint has. `jwt` needs nothing beside Stint: an access token that it signs itself. */
export const builtInConnectorKinds: ConnectorKinds = new Map<string, ConnectorKind>([
  ['jwt', { audience: 'required', actionShape: {}, lendsToken: true }],
  ['postgres', postgresKind],
  ['github-app', githubAppKind],
  ['oauth-client', oauthClientKind],
  ['sealed-secret', sealedSecretKind],
  ['aws-secrets-manager', awsSecretsManagerKind],
  ['aws-sts', awsStsKind],
])

/** Whether a connector of this kind lends a value that is there already. */
export function lendsValue(connector: string | undefined): boolean {
  return connector !== undefined && builtInConnectorKinds.get(connector)?.lendsValue === true
}

export const ttlSecondsMax = 86_400

const duration = z.string().transform((text, context) => {
  const seconds = parseDuration(text)
  if (seconds === undefined) {
    context.addIssue('must be a duration such as 45s, 10m or 1h')
    return z.NEVER
  }
  return seconds
})

const ttlSchema = z
  .strictObject({ default: duration, max: duration })
  .refine((ttl) => ttl.max <= ttlSecondsMax, { path: ['max'], error: `must be at most ${formatDuration(ttlSecondsMax)}` })
  .refine((ttl) => ttl.default <= ttl.max, { path: ['default'], error: 'must not be longer than max' })

const targetSchema = z
  .strictObject({
    name: z.string().regex(/^[a-z][a-z0-9 _-]{0,62}$/, 'must be a short word for people, in lower case'),
    required: z.boolean(),
    pattern: z.string().min(1).max(512),
  })
  .transform(({ name, required, pattern }, context): TargetRule => {
    const expression = compileTargetPattern(pattern)
    if (typeof expression === 'string') {
      context.addIssue({ code: 'custom', path: ['pattern'], message: expression })
      return z.NEVER
    }
    return { name, required, pattern, expression }
  })

const workloadName = z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, 'must be the name of a workload')
const sensitivity = z.enum(sensitivities)
const description = z.string().min(1).max(500)

/** Absolute http(s) URI or URN, without a fragment (RFC 8707 §2). */
const audience = z.string().max(512).refine(isAudience, 'must be an absolute https or http URI, or a urn, without a fragment')

function createToolSchema(kinds: ConnectorKinds, kind: ConnectorKind | undefined) {
  const actionShape = { sensitivity: sensitivity.optional(), description: description.optional() }
  // With a connector that is not known, nobody can say which of its own fields are right.
  const action = kind === undefined ? z.looseObject(actionShape) : z.strictObject({ ...kind.actionShape, ...actionShape })
  return z.strictObject({
    tool: z
      .string()
      .regex(/^[a-z][a-z0-9-]{0,62}$/, 'must be lower-case letters, digits and hyphens, at most 63, beginning with a letter')
      .refine((name) => name !== 'sensitivity', 'must not be "sensitivity": that names the groups of actions')
      .refine((name) => name !== 'signing-keys' && name !== 'sealing-keys', "must not be signing-keys or sealing-keys: those name the rotations of the broker's own keys"),
    connector: z.enum([...kinds.keys()]),
    audience: kind?.audience === 'required' ? audience : audience.optional(),
    description: description.optional(),
    sensitivity,
    ttl: ttlSchema,
    approvals_max: z.int().min(0).max(10).default(3),
    target: kind?.target === 'required' ? targetSchema.refine((target) => target.required, { path: ['required'], error: `must be true for this connector` })
      : kind?.target === 'refused' ? z.never('must not be there: this connector confines a credential by its actions alone').optional()
      : targetSchema.optional(),
    actions: z
      .record(
        z.string().regex(/^[a-z][a-z0-9_.-]{0,62}$/, 'must be lower-case letters, digits, ".", "_" and "-", at most 63'),
        action,
      )
      .refine((actions) => Object.keys(actions).length > 0, 'must name at least one action'),
    introspectors: z.array(workloadName).max(32).default([]),
    ...(kind?.config === undefined ? {} : { config: kind.config }),
    ...(kind === undefined ? { config: z.unknown().optional() } : {}),
  })
}

/** Parses one tool file of the catalog; every problem has its place. Durations become seconds. `problemAt` places a later one. */
export function parseTool(
  file: string,
  text: string,
  kinds: ConnectorKinds = builtInConnectorKinds,
): { tool: Tool; problemAt: YamlFile<unknown>['problemAt'] } | { problems: PolicyProblem[] } {
  const parsed = parseYamlFile(file, text, (value) => createToolSchema(kinds, kinds.get(readConnector(value))))
  if ('problems' in parsed) return parsed
  const { tool: name, ttl, approvals_max: approvalsMax, ...rest } = parsed.value
  const actions = Object.entries(rest.actions).map(([verb, action]): ToolAction => {
    const { sensitivity: own, description: about, ...settings } = action
    return {
      name: `${name}:${verb}`,
      verb,
      sensitivity: own ?? rest.sensitivity,
      settings,
      ...(about === undefined ? {} : { description: about }),
    }
  })
  const { judgeTarget: judge, judgeTool } = kinds.get(rest.connector) ?? {}
  const tool: Tool = {
    name,
    file,
    connector: rest.connector,
    sensitivity: rest.sensitivity,
    ttl: { defaultSeconds: ttl.default, maxSeconds: ttl.max },
    approvalsMax,
    actions: new Map(actions.map((action) => [action.name, action])),
    introspectors: rest.introspectors,
    ...(rest.audience === undefined ? {} : { audience: rest.audience }),
    ...(rest.description === undefined ? {} : { description: rest.description }),
    ...(rest.target === undefined ? {} : { target: { ...rest.target, ...(judge && { judge }) } }),
    ...('config' in rest && rest.config !== undefined ? { config: rest.config } : {}),
  }
  const problems = (judgeTool?.(tool) ?? []).map(({ path, message }) => parsed.problemAt(path, message))
  return problems.length > 0 ? { problems } : { tool, problemAt: parsed.problemAt }
}

function readConnector(value: unknown): string {
  return typeof value === 'object' && value !== null && 'connector' in value ? String(value.connector) : ''
}

function isAudience(text: string): boolean {
  // Printable ASCII only: what else a URI holds is percent-encoded (RFC 3986 §2).
  if (!/^[\x21-\x7e]+$/.test(text) || text.includes('#')) return false
  if (/^urn:[a-z0-9][a-z0-9-]{0,30}[a-z0-9]:[^\s?]+$/i.test(text)) return true
  if (!/^https?:\/\/[^/?@]+(?:[/?]|$)/.test(text)) return false
  return URL.canParse(text)
}
