import { isAlias, isMap, isNode, isScalar, LineCounter, parseDocument, visit, type Document, type Node } from 'yaml'
import { z } from 'zod'
import { nearestName } from '../kernel/nearest.ts'
import { createLocator, type Position } from './position.ts'
import { orderProblems, quote, type PolicyProblem } from './problem.ts'

export type YamlPath = readonly (string | number)[]

/** A YAML file that satisfies its schema, and where in its text each of its parts stands. */
export interface YamlFile<T> {
  readonly value: T
  /** Where the value at this path stands; where it is absent, the nearest part that holds it. */
  locate(path: YamlPath): Position
  /** A problem at this path of the file. */
  problemAt(path: YamlPath, message: string, suggestion?: string): PolicyProblem
}

// The parser takes seconds for a megabyte of mistakes.
const yamlLengthMax = 262_144
const nestedTooDeeply = /(?:[[{]\s*){16}|(?:[-?] +){16}/

/**
 * Parses one YAML 1.2 document strictly and checks it by the schema that `schemaFor` chooses for it. Refused are
 * duplicate keys, keys that are not text, anchors, aliases, tags, directives and further documents: each is a way for
 * a file to say something else than it seems to. Unknown keys are refused with the nearest valid one (invariant 6).
 */
export function parseYamlFile<T>(
  file: string,
  text: string,
  schemaFor: (value: unknown) => z.ZodType<T>,
): YamlFile<T> | { problems: PolicyProblem[] } {
  const lines = new LineCounter()
  const at = (index: number, message: string, suggestion?: string): PolicyProblem => {
    const { line, col } = lines.linePos(index)
    return { file, line: Math.max(line, 1), column: Math.max(col, 1), message, ...(suggestion === undefined ? {} : { suggestion }) }
  }

  if (text.length > yamlLengthMax) {
    return { problems: [{ file, line: 1, column: 1, message: `is longer than ${yamlLengthMax} characters: split it` }] }
  }
  // The parser is recursive and slow on deep nesting: a file of nothing but brackets would hold up the process.
  const deep = text.search(nestedTooDeeply)
  if (deep !== -1) return { problems: [{ file, ...createLocator(text)(deep), message: 'is nested too deeply' }] }

  let document: Document.Parsed
  const problems: PolicyProblem[] = []
  try {
    document = parseDocument(text, { lineCounter: lines, prettyErrors: false, schema: 'core', uniqueKeys: false })
    problems.push(...[...document.errors, ...document.warnings].map((error) => at(error.pos[0], describeYamlError(error))))
    problems.push(...findUnplain(document).map(({ index, message }) => at(index, message)))
  } catch (error) {
    // Nesting of another form, which has exhausted the stack.
    if (!(error instanceof RangeError)) throw error
    return { problems: [{ file, line: 1, column: 1, message: 'is nested too deeply' }] }
  }
  if (problems.length > 0) return { problems: orderProblems(problems) }
  if (document.contents === null) return { problems: [at(0, 'is empty')] }

  const value: unknown = document.toJS()
  const schema = schemaFor(value)
  const result = schema.safeParse(value)
  if (!result.success) {
    const found = result.error.issues.flatMap((issue) => describeIssue(schema, issue))
    return {
      problems: orderProblems(
        found.map(({ path, key, message, suggestion }) => at(indexOf(document, path, key), message, suggestion)),
      ),
    }
  }
  return {
    value: result.data,
    locate(path) {
      const { line, column } = at(indexOf(document, path), '')
      return { line, column }
    },
    problemAt: (path, message, suggestion) => at(indexOf(document, path), message, suggestion),
  }
}

function describeYamlError(error: { code: string; message: string }): string {
  if (error.code === 'MULTIPLE_DOCS') return 'holds more than one document: one file, one document'
  return `is not valid YAML: ${error.message}`
}

function findUnplain(document: Document.Parsed): { index: number; message: string }[] {
  const found: { index: number; message: string }[] = []
  const refuse = (node: Node, message: string): void => void found.push({ index: node.range?.[0] ?? 0, message })
  if (document.directives?.yaml.explicit === true || Object.keys(document.directives?.tags ?? {}).length > 1) {
    found.push({ index: 0, message: 'has a YAML directive: leave the line that begins with % out' })
  }
  visit(document, {
    Node(_, node) {
      if (isAlias(node) || node.anchor !== undefined) refuse(node, 'uses an anchor or alias: write the value out')
      else if (node.tag !== undefined) refuse(node, `has the tag ${quote(node.tag)}: leave it out`)
    },
    // Checked here, for the parser compares every key with every other one.
    Map(_, { items }) {
      const seen = new Set<unknown>()
      for (const { key } of items) {
        if (isScalar(key) && seen.has(key.value)) refuse(key, 'is a key that stands here twice')
        if (isScalar(key)) seen.add(key.value)
      }
    },
    Pair(_, { key }) {
      if (!isNode(key)) return
      if (!isScalar(key) || typeof key.value !== 'string') refuse(key, 'is a key that is not text: put it in quotes')
      // An object would take it for its prototype, and every check by name would overlook it.
      else if (key.value === '__proto__') refuse(key, 'is not a valid key')
    },
  })
  return found
}

/** The index of a key or value in the text: of the deepest part of the path that exists. */
function indexOf(document: Document.Parsed, path: YamlPath, key?: string): number {
  let node: unknown = document.contents
  let index = isNode(node) ? (node.range?.[0] ?? 0) : 0
  for (const [depth, part] of [...path, ...(key === undefined ? [] : [key])].entries()) {
    const pair = isMap(node) ? node.items.find((item) => isScalar(item.key) && item.key.value === part) : undefined
    if (isMap(node) && pair === undefined) return index
    const wantsKey = key !== undefined && depth === path.length
    const next: unknown = wantsKey ? pair?.key : isMap(node) ? pair?.value : document.getIn(path.slice(0, depth + 1), true)
    if (!isNode(next)) return index
    node = next
    index = next.range?.[0] ?? index
  }
  return index
}

interface Finding {
  readonly path: YamlPath
  readonly key?: string
  readonly message: string
  readonly suggestion?: string | undefined
}

function describeIssue(schema: z.ZodType, issue: z.core.$ZodIssue): Finding[] {
  const path = issue.path.filter((part) => typeof part !== 'symbol')
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(schema, path)
    return issue.keys.map((key) => {
      const message = `unknown field ${quote(key)}${known.length === 0 ? '' : `: known here are ${known.join(', ')}`}`
      return { path, key, message, suggestion: nearestName(key, known) }
    })
  }
  const last = path.at(-1)
  if (issue.code === 'invalid_key') {
    const message = issue.issues[0]?.message ?? issue.message
    return [{ path: path.slice(0, -1), key: String(last), message: `${quote(String(last))} ${message}` }]
  }
  const name = path.length === 0 ? 'the file' : path.join('.')
  const options = issue.code === 'invalid_value' ? issue.values.map(String) : []
  if (options.length > 0) {
    return [{ path, message: `${name} must be one of ${options.join(', ')}` }]
  }
  return [{ path, message: `${name}: ${describeType(issue) ?? issue.message}` }]
}

const kinds: Readonly<Record<string, string>> = {
  string: 'text: write it in quotes',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list, as in [a, b]',
  object: 'a map, as in { name: value }',
  record: 'a map, as in { name: value }',
}

/** What a value of a wrong type should be, for people who write YAML; `undefined` where the schema says it better itself. */
function describeType(issue: z.core.$ZodIssue): string | undefined {
  if (issue.code === 'too_small' && issue.origin === 'array') return `must name at least ${String(issue.minimum)}`
  if (issue.code !== 'invalid_type' || !issue.message.startsWith('Invalid input')) return undefined
  if (issue.message.endsWith('received undefined')) return 'is missing'
  const kind = kinds[issue.expected]
  return kind === undefined ? undefined : `must be ${kind}`
}

/** The field names that a schema knows at this path. */
function knownKeys(schema: unknown, path: YamlPath): string[] {
  const [part, ...rest] = path
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault) return knownKeys(schema.def.innerType, path)
  if (schema instanceof z.ZodPipe) return knownKeys(schema.def.in, path)
  if (schema instanceof z.ZodObject) {
    const shape: Record<string, unknown> = schema.shape
    return part === undefined ? Object.keys(shape) : knownKeys(shape[part], rest)
  }
  if (schema instanceof z.ZodRecord && part !== undefined) return knownKeys(schema.def.valueType, rest)
  if (schema instanceof z.ZodArray && part !== undefined) return knownKeys(schema.def.element, rest)
  return []
}
