import type { Fact, Reads } from './reads.ts'
import { anyKey, exactKey, inKey, typeInKey, typeKey, type ScopeKeys } from './scope.ts'

/** What it takes to find a policy: its place in the set's order, its filing keys, what it reads. */
export interface Sliceable {
  readonly ordinal: number
  readonly scope: ScopeKeys
  readonly reads: Reads
}

/** Policies filed by principal, then action, then resource. A look-up costs the same in a set of ten and of ten thousand. */
export interface SliceIndex<P extends Sliceable> {
  readonly byPrincipal: ReadonlyMap<string, ReadonlyMap<string, ReadonlyMap<string, readonly P[]>>>
  /** Every entity that a scope names: what no scope names cannot tell slices apart. */
  readonly named: ReadonlySet<string>
}

/** The parts of one Cedar call that a scope can ask about. */
export interface SliceQuestion {
  readonly workload: string
  readonly team: string
  readonly action: string
  readonly groups: readonly string[]
  readonly tool: string
  /** The id of the target entity, where the request is about one. */
  readonly targetId: string | undefined
}

/** Files policies for `findSlice`. */
export function indexPolicies<P extends Sliceable>(policies: readonly P[]): SliceIndex<P> {
  const byPrincipal = new Map<string, Map<string, Map<string, P[]>>>()
  const named = new Set<string>()
  for (const policy of policies) {
    const { principal, actions, resource } = policy.scope
    for (const name of policy.scope.named) named.add(name)
    const byAction = getOrAdd(byPrincipal, principal, () => new Map<string, Map<string, P[]>>())
    for (const action of actions) {
      const byResource = getOrAdd(byAction, action, () => new Map<string, P[]>())
      getOrAdd(byResource, resource, () => []).push(policy)
    }
  }
  return { byPrincipal, named }
}

/** All policies whose scope matches, in the set's order, each once. */
export function findSlice<P extends Sliceable>(index: SliceIndex<P>, question: SliceQuestion): P[] {
  const found = new Set<P>()
  const { action, groups } = question
  const actions = [anyKey, exactKey('Action', action), ...[action, ...groups].map((id) => inKey('Action', id))]
  const resources = resourceKeys(question)
  for (const principal of principalKeys(question)) {
    const byAction = index.byPrincipal.get(principal)
    if (byAction === undefined) continue
    for (const key of actions) {
      const byResource = byAction.get(key)
      if (byResource === undefined) continue
      for (const resource of resources) byResource.get(resource)?.forEach((policy) => found.add(policy))
    }
  }
  return [...found].sort((a, b) => a.ordinal - b.ordinal)
}

/** The part of a question that its slice depends on, as text that no two different parts share. */
export function sliceKey(index: SliceIndex<Sliceable>, question: SliceQuestion): string {
  const { workload, team, action, targetId } = question
  // A name that no scope mentions finds what any other such name finds. A length goes before what a caller may choose.
  const part = (type: string, id: string): string => (index.named.has(inKey(type, id)) ? `${id.length}:${id}` : '-')
  const target = targetId === undefined ? '' : part('Target', targetId)
  return `${part('Workload', workload)}${part('Team', team)}${action}|${target}`
}

/** Everything that the policies of a slice read, together. */
export function joinReads(reads: Iterable<Reads>): Reads {
  const facts = new Set<Fact>()
  const durationsSeconds = new Set<number>()
  for (const read of reads) {
    read.facts.forEach((fact) => facts.add(fact))
    read.durationsSeconds.forEach((seconds) => durationsSeconds.add(seconds))
  }
  return { facts, durationsSeconds }
}

function principalKeys({ workload, team }: SliceQuestion): string[] {
  return [
    anyKey,
    typeKey('Workload'),
    exactKey('Workload', workload),
    // An entity is in itself.
    inKey('Workload', workload),
    inKey('Team', team),
    typeInKey('Workload', 'Workload', workload),
    typeInKey('Workload', 'Team', team),
  ]
}

function resourceKeys({ tool, targetId }: SliceQuestion): string[] {
  const type = targetId === undefined ? 'Tool' : 'Target'
  const id = targetId ?? tool
  const keys = [anyKey, typeKey(type), exactKey(type, id), inKey(type, id), typeInKey(type, type, id)]
  return targetId === undefined ? keys : [...keys, inKey('Tool', tool), typeInKey('Target', 'Tool', tool)]
}

function getOrAdd<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const found = map.get(key)
  if (found !== undefined) return found
  const made = make()
  map.set(key, made)
  return made
}
