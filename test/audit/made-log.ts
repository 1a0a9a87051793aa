import { randomBytes } from 'node:crypto'
import { leafHash } from '../../src/audit/encode.ts'
import { makeEntry } from '../../src/audit/entry.ts'
import type { AuditEvent } from '../../src/audit/event.ts'
import { appendLeaf, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import { createFileCheck, type FileVerdict } from '../../src/audit/verify.ts'
import { createPieceCheck } from '../../src/audit/verify-piece.ts'
import { newId } from '../../src/kernel/ids.ts'
import { hashPolicyFiles } from '../../src/policy/policy-set.ts'
import { testPolicies } from '../broker.ts'
import { createLogKey, formatProof } from './generated-log.ts'

// Logs as wrong as a test likes, by events that nobody has checked, and the verdict on an export of them.

export const key = createLogKey()
export const startMs = Date.UTC(2026, 0, 15, 12)

interface Given {
  readonly kept?: string
  readonly note?: string
  /** Cuts the file into pieces of so many lines. */
  readonly piece?: number
}

/** The verdict on a file of these lines, whose last one has the checkpoint if there is one. */
export function verify(lines: readonly string[], { kept, note = noteOf(lines), piece = lines.length }: Given = {}): FileVerdict {
  const form = /^(?:index|\d+),/.test(lines[0] ?? '') ? 'csv' : 'jsonl'
  const check = createFileCheck({ form, verifier: key.verifier, note, kept, hashPolicySet: hashPolicyFiles })
  const checkPiece = createPieceCheck()
  for (let at = 0; at < lines.length; at += Math.max(1, piece)) {
    check.add(checkPiece(Buffer.from(lines.slice(at, at + piece).map((line) => `${line}\n`).join('')), form, check.cuts))
  }
  return check.finish()
}

function noteOf(lines: readonly string[]): string | undefined {
  const last = lines.at(-1) ?? ''
  return last.startsWith('{"checkpoint":') ? (JSON.parse(last) as { checkpoint: string }).checkpoint : undefined
}

export function treeOf(texts: readonly string[]) {
  let frontier: Frontier = []
  texts.forEach((text, i) => (frontier = appendLeaf(frontier, i, leafHash(Buffer.from(text)))))
  return { size: texts.length, root: rootOf(frontier) }
}

/** A checkpoint of these entries. */
export const sign = (texts: readonly string[]): string => key.sign(treeOf(texts))
export const proof = (note: string): string[] => formatProof(note).trimEnd().split('\n')
/** An export of all of these entries. */
export const seal = (texts: readonly string[]): string[] => [...texts, ...proof(sign(texts))]

export const stint = { kind: 'stint', id: 'start' } as const
export const root = { kind: 'operator', id: 'root-id' } as const
export const minute = 60_000
export const iso = (ms: number): string => new Date(startMs + ms).toISOString()
export const [kid, otherKid, tokenKid] = ['k'.repeat(43), 'l'.repeat(43), 't'.repeat(43)]
export const set = hashPolicyFiles(testPolicies)
export const grantId = (n: number): string => `grant_01kf0rdqr${String(n).padStart(17, '0')}`

export type Event = Record<string, unknown> & { type: string; atMs?: number }
export const opened = { type: 'log.opened', actor: stint, trust_domain: 'stint.test', issuer: 'https://stint.test' }
export const registered = (workload: string, more: object = {}): Event => ({
  type: 'workload.registered',
  actor: root,
  workload,
  environment: 'test',
  stage: 'pilot',
  owner: { team: 'support', contact: 'oncall:support' },
  purpose: 'p',
  tags: [],
  review_at: iso(90 * 24 * 60 * minute),
  kids: [workload === 'bot' ? kid : otherKid],
  ...more,
})
export const base: Event[] = [
  opened,
  { type: 'operator.created', actor: stint, operator: 'root-id', name: 'root', role: 'admin' },
  { type: 'key.created', actor: stint, use: 'token', alg: 'ES256', kid: tokenKid, signs_from: iso(0) },
  { type: 'policy.applied', actor: root, policy_set: set, policies: 4, tools: 2, cedar_version: '4.13.0' },
  registered('bot'),
  registered('other'),
]
export const issued = (more: Record<string, unknown> = {}, decision: Record<string, unknown> = {}, atMs = 0): Event => {
  const workload = more['workload'] ?? 'bot'
  const input = {
    principal: { type: 'Workload', id: workload },
    actions: [{ type: 'Action', id: 'tickets:read' }],
    resource: { type: 'Tool', id: 'tickets' },
    context: { ttl: { __extn: { fn: 'duration', arg: '600s' } }, now: { __extn: { fn: 'datetime', arg: iso(atMs) } }, ...(more['task'] !== undefined && { task: more['task'] }) },
  }
  return {
    type: 'grant.issued',
    actor: { kind: 'workload', id: workload },
    workload,
    tool: 'tickets',
    actions: ['tickets:read'],
    ttl_seconds: 600,
    proof_kid: workload === 'bot' ? kid : otherKid,
    grant: newId('grant', startMs, randomBytes),
    audience: 'https://tickets.test',
    expires_at: iso(atMs + 10 * minute),
    ends: 'introspection',
    token_kid: tokenKid,
    ...more,
    decision: { verdict: 'allow', reasons: ['r'], errors: [], policy_set: set, cedar_version: '4.13.0', input, ...decision },
    atMs,
  }
}
/** The intent of a grant in an outside tool. */
export const minting = (more: Record<string, unknown> = {}, decision: Record<string, unknown> = {}, atMs = 0): Event => {
  const { audience: _audience, token_kid: _kid, ...asked } = issued(more, decision, atMs)
  return { ...asked, type: 'grant.minting', connector: 'postgres', ends: 'immediate', ...more }
}
export const revoked = (grant: string, more: object = {}): Event => ({ type: 'grant.revoked', actor: root, workload: 'bot', grant, tool: 'tickets', ...more })
export const allRevoked = (selector: Record<string, unknown>, more: object = {}): Event => {
  const { workload, tool, task } = selector
  return { type: 'grants.revoked', actor: root, selector, ...(workload !== undefined && { workload }), ...(tool !== undefined && { tool }), ...(task !== undefined && { task }), ...more }
}
export const of = (type: string, more: object = {}): Event => ({ type, actor: root, workload: 'bot', ...more })
export const operator = (id: string, more: object = {}): Event => ({ type: 'operator.created', actor: root, operator: id, name: id, role: 'admin', ...more })

/** The bodies of these entries, of which the first has the index `from`. */
export function bodiesOf(events: readonly Event[], from = 0): string[] {
  return events.map(({ atMs = 0, ...event }, i) => {
    // Made as wrong as the test likes.
    return makeEntry(event as unknown as AuditEvent, from + i, startMs + atMs, randomBytes).body
  })
}
