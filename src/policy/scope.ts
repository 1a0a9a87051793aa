import type { PolicyJson } from './cedar.ts'
import { readEntity } from './expression.ts'

/**
 * Under which key a policy is filed for each part of its scope. A request looks under every key that matches it, so
 * that a policy is found if and only if its scope matches: remembered verdicts rely on both directions.
 */
export interface ScopeKeys {
  readonly principal: string
  /** One, or one for each action of a list. */
  readonly actions: readonly string[]
  readonly resource: string
  /** `inKey` of each entity that the principal's and the resource's constraint name. */
  readonly named: readonly string[]
}

/** Matches everything. */
export const anyKey = '*'

/** Matches the entity itself. */
export function exactKey(type: string, id: string): string {
  return `== ${type}::${id}`
}

/** Matches the entity and what is in it. */
export function inKey(type: string, id: string): string {
  return `in ${type}::${id}`
}

/** Matches entities of a type. */
export function typeKey(type: string): string {
  return `is ${type}`
}

/** Matches entities of a type that are in an entity. */
export function typeInKey(type: string, inType: string, inId: string): string {
  return `is ${type} in ${inType}::${inId}`
}

/** Files the scope of a static policy. */
export function findScopeKeys(policy: PolicyJson): ScopeKeys {
  const principal = fileEntity(policy.principal)
  const resource = fileEntity(policy.resource)
  return {
    principal: principal.key,
    actions: fileActions(policy.action),
    resource: resource.key,
    named: [...principal.named, ...resource.named],
  }
}

function fileEntity(constraint: PolicyJson['principal']): { key: string; named: string[] } {
  if (constraint.op === 'All') return { key: anyKey, named: [] }
  if (constraint.op === 'is' && constraint.in === undefined) return { key: typeKey(constraint.entity_type), named: [] }
  const { type, id } = entityOf(constraint.op === 'is' ? constraint.in : constraint)
  const named = [inKey(type, id)]
  if (constraint.op === 'is') return { key: typeInKey(constraint.entity_type, type, id), named }
  return { key: constraint.op === '==' ? exactKey(type, id) : inKey(type, id), named }
}

function fileActions(constraint: PolicyJson['action']): string[] {
  if (constraint.op === 'All') return [anyKey]
  const entities = 'entities' in constraint ? constraint.entities.map((entity) => entityOf({ entity })) : [entityOf(constraint)]
  const keyOf = constraint.op === '==' ? exactKey : inKey
  return [...new Set(entities.map(({ type, id }) => keyOf(type, id)))]
}

function entityOf(constraint: object | undefined) {
  const entity = constraint !== undefined && 'entity' in constraint ? readEntity(constraint.entity) : undefined
  if (entity === undefined) throw new Error('a template reached the index: they are refused at load')
  return entity
}
