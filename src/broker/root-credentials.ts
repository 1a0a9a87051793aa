import type { Catalog, Tool } from '../policy/catalog.ts'

/** A secret that a tool of the catalog uses: by its source, never its value. */
export interface RootCredential {
  readonly tool: string
  /** `env:NAME`, `file:/path`, `sealed:name`, or what lends it and its name there. */
  readonly source: string
}

/** What a tool lends as it is, and Stint could replace if its file said how. */
const lentBy: Readonly<Record<string, { readonly member: string; readonly prefix: string }>> = {
  'sealed-secret': { member: 'secret', prefix: 'sealed:' },
  'aws-secrets-manager': { member: 'secret_id', prefix: 'aws-secrets-manager:' },
}

/** The long-lived secrets behind the tools of a catalog that no rotation of it replaces, by tool: what an auditor asks after. */
export function listUnmanaged(catalog: Catalog): RootCredential[] {
  const tools = [...catalog.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
  const managed = new Set(tools.filter(hasRotation).flatMap((tool) => lentSource(tool) ?? []))
  const used = tools.flatMap((tool) => {
    const lent = lentSource(tool)
    return [...new Set([...(lent === undefined ? [] : [lent]), ...findSources(tool.config)])].map((source) => ({ tool: tool.name, source }))
  })
  return used.filter(({ source }) => !managed.has(source))
}

function hasRotation({ config }: Tool): boolean {
  return isObject(config) && config['rotation'] !== undefined
}

function lentSource({ connector, config }: Tool): string | undefined {
  const lent = Object.hasOwn(lentBy, connector) ? lentBy[connector] : undefined
  const name = lent && isObject(config) ? config[lent.member] : undefined
  return lent === undefined || typeof name !== 'string' ? undefined : `${lent.prefix}${name}`
}

/** Every `{ from: source }` within a tool's settings, however deep. */
function findSources(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap(findSources)
  if (!isObject(value)) return []
  const { from, ...rest } = value
  const own = typeof from === 'string' && /^(?:env|file|sealed):/.test(from) ? [from] : []
  return [...own, ...Object.values(rest).flatMap(findSources)]
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
