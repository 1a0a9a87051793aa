import type { MemberReader } from './canonical.ts'
import { at } from './verify-paths.ts'

/** What many requests have in common: who asked by which proof, and what the answer rests on. Empty where a type has it not. */
export interface Case extends Readonly<Record<Common, string>> {
  readonly type: AskedType
  readonly workload: string
}

/** The types of entries about a request, with the JSON of each; the most frequent ones first. */
export const askedTypes = (
  ['grant.issued', 'grant.denied', 'grant.minting', 'grant.refused', 'grant.renewed', 'introspection.refused', 'revocation.refused', 'access.refused'] as const
).map((type) => ({ type, json: Buffer.from(`"${type}"`) }))

export type AskedType = (typeof askedTypes)[number]['type']
export type DecidedType = 'grant.issued' | 'grant.denied' | 'grant.minting' | 'grant.renewed'

/** The members that a case is of: the key, or the grant of the token, by which the workload proved itself, and so on. */
const commonPaths = {
  proofKid: at.proof_kid,
  proofGrant: at.proof_grant,
  tool: at.tool,
  policySet: at['decision.policy_set'],
  audience: at.audience,
  tokenKid: at.token_kid,
  ends: at.ends,
  renews: at.renews,
} as const
type Common = keyof typeof commonPaths
const ofAll: readonly Common[] = ['proofKid', 'proofGrant']
const ofDecided: readonly Common[] = [...ofAll, 'tool', 'policySet']
const commonOf: { readonly [T in AskedType]?: readonly Common[] } = {
  'grant.issued': [...ofDecided, 'audience', 'tokenKid', 'renews'],
  'grant.denied': ofDecided,
  'grant.minting': [...ofDecided, 'ends', 'renews'],
  'grant.renewed': ofDecided,
}

/** Whether an entry of the type records a decision. */
export function isDecided(type: AskedType): type is DecidedType {
  return commonOf[type] !== undefined
}

/** How many cases are found again for one workload. */
const casesMax = 16

/** A case with what its members are as JSON; empty for one that it has not. */
interface KnownCase {
  readonly by: Case
  readonly jsons: readonly { readonly path: number; readonly json: Uint8Array }[]
}

// What an entry does not say is empty.
const noCase = { proofKid: '', proofGrant: '', tool: '', policySet: '', audience: '', tokenKid: '', ends: '', renews: '' } as const

/** Gives the case of the entry that the reader has read, the same object each time, without making texts of its members. */
export function createCases({ is, has, text, json }: Pick<MemberReader, 'is' | 'has' | 'text' | 'json'>): (type: AskedType) => Case {
  const cases = new Map<string, KnownCase[]>()
  const isSame = (known: Uint8Array, path: number): boolean => (known.length === 0 ? !has(path) : is(path, known))

  return (type) => {
    const workload = text(at.workload)
    const own = cases.get(workload) ?? []
    const names = commonOf[type] ?? ofAll
    const known = own.find(({ by, jsons }) => by.type === type && jsons.every(({ json, path }) => isSame(json, path)))
    if (known !== undefined) return known.by
    const by = { ...noCase, type, workload, ...Object.fromEntries(names.map((name) => [name, text(commonPaths[name])])) }
    // The newest first: a workload goes on as it did. Of the oldest, one that comes again is only made anew.
    const jsons = names.map((name) => ({ path: commonPaths[name], json: Buffer.from(json(commonPaths[name])) }))
    cases.set(workload, [{ by, jsons }, ...own.slice(0, casesMax - 1)])
    return by
  }
}
