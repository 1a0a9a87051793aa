import { parseDocument, type YAMLError } from 'yaml'
import { z } from 'zod'
import { configSchema, judgeAnchors, judgeServing, type Config } from './config.ts'
import { BrokerError } from './kernel/errors.ts'
import { nearestName } from './kernel/nearest.ts'

/**
 * Parses `stint.yaml`. Throws `config_invalid` that names every problem: what is unknown is refused, with the nearest
 * known name. `file` is for the messages.
 */
export function parseConfig(text: string, file: string): Config {
  const document = parseDocument(text, { uniqueKeys: true, merge: false })
  // A tag that nobody knows is a warning to the parser, which then ignores it (invariant 6).
  const problem = document.errors[0] ?? document.warnings[0]
  if (problem !== undefined) throw invalid(file, [describeYamlProblem(problem)])
  const parsed = configSchema.safeParse(toValue(document, file), { reportInput: true })
  if (!parsed.success) throw invalid(file, parsed.error.issues.flatMap(describeIssue))
  const problems = [...judgeServing(parsed.data), ...judgeAnchors(parsed.data)]
  if (problems.length > 0) throw invalid(file, problems)
  return parsed.data
}

function describeYamlProblem({ code, message, linePos }: YAMLError): string {
  const [at] = linePos ?? []
  const place = at === undefined ? '' : ` at line ${at.line}, column ${at.col}`
  switch (code) {
    case 'MULTIPLE_DOCS':
      return `holds more than one document${place}: leave the line --- out`
    case 'DUPLICATE_KEY':
      return `an option is given twice${place}`
    case 'TAG_RESOLVE_FAILED':
      return `tags are not taken${place}: write the value out`
    default:
      // Behind its first line, the message shows the place in the file.
      return `is not valid YAML: ${message.replace(/:?\n[^]*$/, '')}`
  }
}

function toValue(document: ReturnType<typeof parseDocument>, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 0 })
  } catch (error) {
    if (error instanceof ReferenceError) throw invalid(file, ['anchors and aliases (&name, *name) are not taken: write the value out'])
    throw error
  }
}

function describeIssue(issue: z.core.$ZodIssue): string[] {
  const path = issue.path.map(String).join('.')
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const meant = findMeant(path, key)
      return `${path === '' ? '' : `${path}.`}${key} is not an option${meant === undefined ? '' : ` (did you mean ${meant}?)`}`
    })
  }
  if (issue.code === 'invalid_type' && path === '') return ['must hold options, one a line, as in issuer: https://stint.example.com']
  if (issue.code === 'invalid_type' && issue.input === undefined) return [`${path} is missing`]
  return [`${path} ${describeRule(issue)}`]
}

/** What must be so, in the words of this file where the schema has none of its own. */
function describeRule(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${kindNames[issue.expected] ?? issue.expected}, not ${nameKind(issue.input)}`
    case 'invalid_value':
      return `must be one of ${issue.values.map(String).join(', ')}`
    case 'too_small':
      return issue.origin === 'array' ? `must have at least ${String(issue.minimum)} in its list` : `must be at least ${String(issue.minimum)}`
    case 'too_big':
      return `must be at most ${String(issue.maximum)}`
    default:
      return issue.message
  }
}

const kindNames: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  object: 'options of its own',
  array: 'a list',
}

function nameKind(value: unknown): string {
  if (value === null) return 'empty'
  if (typeof value === 'number' && !Number.isInteger(value)) return 'a fraction'
  return kindNames[Array.isArray(value) ? 'array' : typeof value] ?? typeof value
}

/** The option that was probably meant: the nearest one of the same place, or the only one of that name elsewhere. */
function findMeant(place: string, key: string): string | undefined {
  const path = place.replaceAll(/\.\d+(?=\.|$)/g, '[]')
  const prefix = path === '' ? '' : `${path}.`
  const paths = listOptions().map((option) => option.path)
  const siblings = paths.filter((known) => known.startsWith(prefix) && !known.slice(prefix.length).includes('.'))
  const near = nearestName(key, siblings.map((known) => known.slice(prefix.length)))
  if (near !== undefined) return `${prefix}${near}`
  const [elsewhere, ...others] = paths.filter((known) => known.endsWith(`.${key}`))
  return others.length === 0 ? elsewhere : undefined
}

/** One option as `stint config` shows it. */
export interface ConfigOption {
  /** As in `listen.port`. */
  readonly path: string
  readonly type: string
  readonly required: boolean
  readonly default?: unknown
  readonly description: string
}

/** All options, in the order of the schema. */
export function listOptions(): ConfigOption[] {
  return listProperties(configJsonSchema(), '')
}

/** The options as JSON Schema 2020-12, for editors. */
export function configJsonSchema(): JsonSchema {
  return z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }) as JsonSchema
}

export interface JsonSchema {
  readonly type?: string
  readonly description?: string
  readonly default?: unknown
  readonly enum?: readonly unknown[]
  readonly items?: JsonSchema
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: readonly string[]
}

function listProperties({ properties = {}, required = [] }: JsonSchema, prefix: string): ConfigOption[] {
  return Object.entries(properties).flatMap(([name, property]) => {
    const path = `${prefix}${name}`
    const option: ConfigOption = {
      path,
      type: typeOf(property),
      required: required.includes(name),
      description: property.description ?? '',
      // The default of options of their own is that of each of them.
      ...(property.default !== undefined && property.type !== 'object' && { default: property.default }),
    }
    // Of a list, the options of each of its elements.
    return [option, ...listProperties(property, `${path}.`), ...(property.items === undefined ? [] : listProperties(property.items, `${path}[].`))]
  })
}

function typeOf({ type, enum: values, items }: JsonSchema): string {
  if (values !== undefined) return values.join(' | ')
  if (items !== undefined) return `list of ${items.type ?? 'values'}`
  return type ?? 'any'
}

function invalid(file: string, problems: readonly string[]): BrokerError {
  return new BrokerError({
    code: 'config_invalid',
    publicMessage: `${file}: ${problems.join('; ')}. \`stint config\` lists every option.`,
    extra: { problems },
  })
}
