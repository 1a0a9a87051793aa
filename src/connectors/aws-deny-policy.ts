import { hash } from 'node:crypto'
import type { Denials } from './connector.ts'

/** A managed policy holds no more characters than that; white space is not counted, and there is none in what Stint writes. */
const charactersMax = 6_144

/** What no session can be called: a source identity has no colon. */
const nobody = 'stint:nobody'

/** Tells the place where one broker denies the sessions of one role from all others: 16 hexadecimal digits. */
export function markOf(instance: string, role: string): string {
  return hash('sha256', `stint deny ${instance} ${role}`).slice(0, 16)
}

/** A policy document that says these denials; one that denies nobody where there are none, for a document cannot be empty. */
export function renderDenyDocument(mark: string, { grants, cutOffBeforeMs }: Denials): string {
  const statements = [
    ...(grants.length > 0 ? [deny(`StintDenied${mark}`, { StringEquals: { 'aws:SourceIdentity': grants } })] : []),
    ...(cutOffBeforeMs === undefined ? [] : [deny(`StintCutOff${mark}`, { DateLessThan: { 'aws:TokenIssueTime': formatSecond(cutOffBeforeMs) } })]),
  ]
  const unused = deny('StintUnused', { StringEquals: { 'aws:SourceIdentity': nobody } })
  return JSON.stringify({ Version: '2012-10-17', Statement: statements.length === 0 ? [unused] : statements })
}

function deny(sid: string, condition: Readonly<Record<string, unknown>>) {
  return { Sid: sid, Effect: 'Deny', Action: '*', Resource: '*', Condition: condition }
}

/** How many grants one policy names at most, beside a cut-off: all ids are of one length. */
export function grantsMaxOf(mark: string): number {
  const one = renderDenyDocument(mark, { grants: ['grant_'.padEnd(32, '0')], cutOffBeforeMs: 0 }).length
  const two = renderDenyDocument(mark, { grants: ['grant_'.padEnd(32, '0'), 'grant_'.padEnd(32, '0')], cutOffBeforeMs: 0 }).length
  return 1 + Math.floor((charactersMax - one) / (two - one))
}

/**
 * What a policy says. `ours`: only statements that Stint writes for this role, or none that anybody uses; `exact`: just as it
 * would write them, so that nobody has changed them. `foreign`: somebody else's, and why; it is not to be touched.
 */
export type FoundDocument = { readonly owner: 'ours'; readonly says: Denials; readonly exact: boolean } | { readonly owner: 'foreign'; readonly why: string }

export function readDenyDocument(mark: string, text: string): FoundDocument {
  const document = parse(text)
  const statements = [memberOf(document, 'Statement')].flat()
  for (const statement of statements) {
    const sid = memberOf(statement, 'Sid')
    const [, kind, found] = /^Stint(Unused|Denied|CutOff)((?:[0-9a-f]{16})?)$/.exec(typeof sid === 'string' ? sid : '') ?? []
    if (kind === undefined) return { owner: 'foreign', why: 'holds statements that are not of Stint' }
    if (kind !== 'Unused' && found !== mark) return { owner: 'foreign', why: 'holds what another broker, or this one for another role, denies' }
  }
  const says = { grants: statements.flatMap(readGrants), ...readCutOff(statements) }
  return { owner: 'ours', says, exact: normalize(document) === normalize(parse(renderDenyDocument(mark, says))) }
}

function readGrants(statement: unknown): string[] {
  const identities = memberOf(memberOf(memberOf(statement, 'Condition'), 'StringEquals'), 'aws:SourceIdentity')
  return [identities].flat().filter((one): one is string => typeof one === 'string' && one !== nobody)
}

function readCutOff(statements: readonly unknown[]): Pick<Denials, 'cutOffBeforeMs'> {
  const times = statements.map((statement) => memberOf(memberOf(memberOf(statement, 'Condition'), 'DateLessThan'), 'aws:TokenIssueTime'))
  const found = times.map((time) => (typeof time === 'string' ? Date.parse(time) : NaN)).filter((ms) => !Number.isNaN(ms))
  return found.length === 0 ? {} : { cutOffBeforeMs: Math.max(...found) }
}

/** What each of several policies is to say, in their order, and the grants that none of them has room for. */
export interface Packed {
  readonly documents: readonly Denials[]
  readonly left: readonly string[]
}

/**
 * Spreads denials over as many policies as there are in `found`, each grant in one of them. Whatever is named already stays
 * where it is, so that one more denial changes one policy; but what the cut-off denies too makes room. A cut-off stands in each: so there is no moment at which a policy
 * has let go of its names and the one with the cut-off does not say it yet.
 */
export function packDenials(denials: Denials, found: readonly Denials[], grantsMax: number): Packed {
  const [wanted, covered] = [new Set(denials.grants), new Set(denials.covered)]
  const isCovered = (grant: string): boolean => covered.has(grant)
  const places = found.map(({ grants }) => {
    const kept = [...new Set(grants)].filter((grant) => wanted.has(grant)).slice(0, grantsMax)
    for (const grant of kept) wanted.delete(grant)
    return kept
  })
  const left: string[] = []
  const [first, last] = [[...wanted].filter((grant) => !isCovered(grant)), [...wanted].filter(isCovered)]
  for (const grant of [...first, ...last]) {
    const place = places.find((one) => one.length < grantsMax)
    const taken = places.find((one) => one.some(isCovered))
    if (place !== undefined) place.push(grant)
    else if (isCovered(grant)) continue
    else if (taken !== undefined) taken.splice(taken.findIndex(isCovered), 1, grant)
    else left.push(grant)
  }
  const cutOff = denials.cutOffBeforeMs === undefined ? {} : { cutOffBeforeMs: denials.cutOffBeforeMs }
  return { documents: places.map((grants) => ({ grants: grants.toSorted(), ...cutOff })), left }
}

/** Whether two documents say the same. */
export function sayTheSame(a: Denials, b: Denials): boolean {
  return a.cutOffBeforeMs === b.cutOffBeforeMs && JSON.stringify(a.grants.toSorted()) === JSON.stringify(b.grants.toSorted())
}

function formatSecond(ms: number): string {
  return new Date(Math.ceil(ms / 1_000) * 1_000).toISOString().replace('.000Z', 'Z')
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** The same text for documents that mean the same: order counts nowhere in them, and one value is a list of one. */
function normalize(value: unknown): string {
  const values = [value].flat().map((one) => {
    if (typeof one !== 'object' || one === null) return JSON.stringify(one)
    const members = Object.entries(one).map(([name, member]) => `${JSON.stringify(name)}:${normalize(member)}`)
    return `{${members.toSorted().join()}}`
  })
  return `[${values.toSorted().join()}]`
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}
