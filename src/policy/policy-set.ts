import { createHash } from 'node:crypto'
import { builtInConnectorKinds, parseTool, type Catalog, type ConnectorKinds, type Tool } from './catalog.ts'
import { cedarVersion, type PolicyJson } from './cedar.ts'
import { compareText, orderProblems, quote, type PolicyProblem } from './problem.ts'
import { findReads } from './reads.ts'
import { parseRules, type Rule } from './rule-file.ts'
import { findScopeKeys } from './scope.ts'
import { indexPolicies, type Sliceable, type SliceIndex } from './slice.ts'
import { validateRules } from './validate.ts'

/** Text by relative path with forward slashes: `refunds.cedar`, `tools/tickets.yaml`, `tests/refunds.yaml`. */
export type PolicyFiles = ReadonlyMap<string, string>

/** One rule of a set. */
export interface Policy extends Sliceable {
  /** Its `@id`, unique in the set, under which Cedar and the audit log know it. */
  readonly id: string
  readonly effect: 'permit' | 'forbid'
  readonly reason?: string
  readonly file: string
  /** 1-based. */
  readonly line: number
  readonly text: string
  /** Cedar's JSON form, to look at. What is evaluated is `text`: integers beyond 2^53 lose digits here. */
  readonly json: PolicyJson
}

/** All rules and the catalog, validated as a whole and named by one content hash. */
export interface PolicySet {
  /** SHA-256 in hex, see `hashPolicyFiles`. */
  readonly hash: string
  readonly cedarVersion: string
  readonly catalog: Catalog
  readonly policies: readonly Policy[]
  readonly index: SliceIndex<Policy>
}

export const fileBytesMax = 1_048_576
export const totalBytesMax = 16_777_216
export const policiesMax = 20_000

/** What a path makes of a file, or `undefined` if it has no place in a policy set. */
export function kindOfFile(path: string): 'rules' | 'tool' | 'test' | undefined {
  if (path.length > 256 || !/^[^/\\\p{Cc}]+(?:\/[^/\\\p{Cc}]+)*$/u.test(path) || !path.isWellFormed()) return undefined
  if (path.split('/').some((part) => part.startsWith('.'))) return undefined
  if (/^tools\/[^/]+\.yaml$/.test(path)) return 'tool'
  if (/^tests\/[^/]+\.yaml$/.test(path)) return 'test'
  return path.endsWith('.cedar') ? 'rules' : undefined
}

/**
 * Loads a policy set, all or nothing: one problem anywhere and there is no set (invariant 4). Files of tests are
 * neither part of the set nor of its hash. Takes about 0.7 s for a thousand
 * policies, during which the process does nothing else.
 */
export function loadPolicySet(
  files: PolicyFiles,
  kinds: ConnectorKinds = builtInConnectorKinds,
): { set: PolicySet } | { problems: PolicyProblem[] } {
  const problems = checkFiles(files)
  const paths = [...files.keys()].sort(compareText)
  // What is too large is not parsed.
  if (problems.length > 0) return { problems: orderProblems(problems) }

  const textsOf = (kind: string) => paths.filter((path) => kindOfFile(path) === kind).map((path) => ({ path, text: files.get(path) ?? '' }))
  const catalog = loadCatalog(textsOf('tool'), kinds, problems)
  const catalogIsSound = problems.length === 0
  const rules = loadRules(textsOf('rules'), problems)
  // Against half a catalog, sound rules would look wrong.
  if (catalogIsSound) problems.push(...validateRules(rules, catalog))
  if (problems.length > 0) return { problems: orderProblems(problems) }

  const policies = rules.map((rule, ordinal): Policy => {
    const { id, file, line, text, json, reason } = rule
    const own = { ordinal, id, effect: json.effect, file, line, text, json, scope: findScopeKeys(json), reads: findReads(json) }
    return reason === undefined ? own : { ...own, reason }
  })
  return { set: { hash: hashPolicyFiles(files), cedarVersion, catalog, policies, index: indexPolicies(policies) } }
}

/**
 * The name of a set: SHA-256 over the (path, text) pairs of its rule and catalog files, sorted by path. Each part stands
 * behind its length in bytes, so that no two sets of files give the same bytes.
 */
export function hashPolicyFiles(files: PolicyFiles): string {
  const hash = createHash('sha256').update('stint policy set 1\n')
  for (const path of [...files.keys()].sort(compareText)) {
    if (kindOfFile(path) === 'test') continue
    for (const part of [path, files.get(path) ?? '']) hash.update(`${Buffer.byteLength(part)}:`).update(part)
  }
  return hash.digest('hex')
}

function checkFiles(files: PolicyFiles): PolicyProblem[] {
  const problems: PolicyProblem[] = []
  const refuse = (file: string, message: string): void => void problems.push({ file, line: 1, column: 1, message })
  let total = 0
  for (const [path, text] of files) {
    const bytes = Buffer.byteLength(text)
    total += bytes
    if (kindOfFile(path) === undefined) refuse(path, 'has no place here: rules are *.cedar, tools tools/*.yaml, tests tests/*.yaml')
    if (bytes > fileBytesMax) refuse(path, `is larger than ${fileBytesMax} bytes: split it`)
    if (!text.isWellFormed()) refuse(path, 'is not valid Unicode text')
  }
  if (total > totalBytesMax) refuse('.', `all files together are larger than ${totalBytesMax} bytes`)
  return problems
}

type NamedText = readonly { readonly path: string; readonly text: string }[]

function loadCatalog(files: NamedText, kinds: ConnectorKinds, problems: PolicyProblem[]): Catalog {
  const tools = new Map<string, Tool>()
  const audiences = new Map<string, Tool>()
  for (const { path, text } of files) {
    const parsed = parseTool(path, text, kinds)
    if ('problems' in parsed) {
      problems.push(...parsed.problems)
      continue
    }
    const { tool, problemAt } = parsed
    const same = tools.get(tool.name)
    if (same !== undefined) {
      problems.push(problemAt(['tool'], `the tool ${quote(tool.name)} is defined already in ${same.file}`))
    }
    const audience = tool.audience === undefined ? undefined : audienceKey(tool.audience)
    const other = audience === undefined ? undefined : audiences.get(audience)
    if (other !== undefined) {
      const message = `is the audience of ${quote(other.name)} already: a token for one tool would open the other`
      problems.push(problemAt(['audience'], message))
    }
    const { judgeBeside } = kinds.get(tool.connector) ?? {}
    for (const beside of judgeBeside === undefined ? [] : tools.values()) {
      if (beside.connector !== tool.connector) continue
      for (const { path, message } of judgeBeside?.(tool.config, beside.config, beside.name) ?? []) problems.push(problemAt(path, message))
    }
    tools.set(tool.name, tool)
    if (audience !== undefined) audiences.set(audience, tool)
  }
  if (files.length === 0) {
    problems.push({ file: 'tools', line: 1, column: 1, message: 'the catalog is empty: describe at least one tool in tools/<name>.yaml' })
  }
  return tools
}

/** Audiences that some resource server may take for the same: `https://A.example` and `https://a.example/`. */
function audienceKey(audience: string): string {
  return audience.startsWith('urn:') ? audience : new URL(audience).href.replace(/\/$/, '')
}

function loadRules(files: NamedText, problems: PolicyProblem[]): Rule[] {
  const rules = new Map<string, Rule>()
  let count = 0
  for (const { path, text } of files) {
    if (count > policiesMax) break
    const parsed = parseRules(path, text)
    problems.push(...parsed.problems)
    count += parsed.rules.length
    for (const rule of parsed.rules) {
      const same = rules.get(rule.id)
      if (same === undefined) rules.set(rule.id, rule)
      else problems.push(rule.problemAt(0, `@id(${quote(rule.id)}) is used already at ${same.file}:${same.line}`))
    }
  }
  if (count > policiesMax) problems.push({ file: '.', line: 1, column: 1, message: `holds more than ${policiesMax} policies` })
  return [...rules.values()]
}
