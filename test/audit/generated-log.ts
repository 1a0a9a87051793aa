import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { appendFileSync, writeFileSync } from 'node:fs'
import { signCheckpoint } from '../../src/audit/checkpoint.ts'
import { leafHash } from '../../src/audit/encode.ts'
import { makeEntry } from '../../src/audit/entry.ts'
import type { AuditEvent, DecisionRecord } from '../../src/audit/event.ts'
import { appendLeaf, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import { formatVerifierKey, parseVerifierKey, type NoteVerifier } from '../../src/audit/note.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { newId } from '../../src/kernel/ids.ts'
import { createDecider } from '../../src/policy/decide.ts'
import { loadPolicySet } from '../../src/policy/policy-set.ts'
import type { AccessRequest } from '../../src/policy/request.ts'
import { describeDecision } from '../../src/policy/record.ts'
import { testPolicies } from '../broker.ts'

// To load them takes longer than to verify a small log.
const loaded = loadPolicySet(testPolicies)

/** A key of a log, and what verifies it. */
export interface LogKey {
  readonly text: string
  readonly verifier: NoteVerifier
  sign(tree: { readonly size: number; readonly root: Uint8Array }): string
}

export function createLogKey(origin = 'stint.test/log'): LogKey {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const text = formatVerifierKey(origin, Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url'))
  const verifier = parseVerifierKey(text)
  if (verifier === undefined) throw new Error('no verifier key')
  return { text, verifier, sign: (tree) => signCheckpoint({ origin, ...tree }, privateKey, verifier.keyId) }
}

/** The bodies of a log as brokers write it: some workloads, many grants, some denials and revocations. `entries` is at least 100. */
export function* generateLog(entries: number): Generator<string, void> {
  if (!('set' in loaded)) throw new Error('the test policies do not load')
  const { set } = loaded
  const decider = createDecider({ slicesMax: 100, verdictsMax: 1000 })
  let nowMs = Date.UTC(2026, 0, 15, 12)
  let index = 0
  const make = (event: AuditEvent): string => makeEntry(event, index++, nowMs, randomBytes).body
  const operator = { kind: 'operator', id: '0123456789abcdefghjkmnpq' } as const
  yield make({ type: 'log.opened', actor: { kind: 'stint', id: 'start' }, trust_domain: 'stint.test', issuer: 'https://stint.test' })
  yield make({ type: 'operator.created', actor: { kind: 'stint', id: 'start' }, operator: operator.id, name: 'root', role: 'admin' })
  const tokenKid = randomBytes(32).toString('base64url')
  yield make({ type: 'key.created', actor: { kind: 'stint', id: 'start' }, use: 'token', alg: 'ES256', kid: tokenKid, signs_from: formatTime(nowMs) })
  yield make({ type: 'policy.applied', actor: operator, policy_set: set.hash, policies: 4, tools: 2, cedar_version: set.cedarVersion })
  const workloads = Array.from({ length: 50 }, (_, i) => ({ name: `support-agent-${i}`, kid: randomBytes(32).toString('base64url') }))
  for (const { name, kid } of workloads) {
    const owner = { team: 'support', contact: 'oncall:support' }
    const review = formatTime(nowMs + 90 * 86_400_000)
    yield make({ type: 'workload.registered', actor: operator, workload: name, environment: 'prod', stage: 'pilot', owner, purpose: 'Answers tickets', tags: [], review_at: review, kids: [kid] })
  }
  const known = new Map<string, DecisionRecord>()
  // To decide each time would take most of the time, for the same answers.
  const decideOnce = (name: string, actions: readonly string[], { now, task }: { readonly now: number; readonly task: string }): DecisionRecord => {
    const key = `${name} ${actions.join(' ')}`
    const record = known.get(key) ?? describeDecision(decider.decide(set, describeRequest(name, actions)))
    known.set(key, record)
    const context = record.input['context']
    if (typeof context !== 'object') throw new Error('a decision without its context')
    return { ...record, input: { ...record.input, context: { ...context, now: { __extn: { arg: formatTime(now), fn: 'datetime' } }, task } } }
  }
  for (;;) {
    if (index >= entries) return
    nowMs += 7
    const { name, kid } = workloads[index % workloads.length] ?? { name: '', kid: '' }
    const actor = { kind: 'workload', id: name } as const
    const task = `ticket-${index}`
    const denied = index % 10 === 3
    const actions = denied ? ['tickets:purge'] : ['tickets:read']
    const decision = decideOnce(name, actions, { now: nowMs, task })
    const asked = { actor, request_id: randomBytes(16).toString('hex'), workload: name, tool: 'tickets', actions, task, ttl_seconds: 600, proof_kid: kid, decision }
    if (denied) {
      yield make({ type: 'grant.denied', ...asked })
      continue
    }
    const grant = newId('grant', nowMs, randomBytes)
    const expiresAt = formatTime(Math.floor(nowMs / 1000) * 1000 + 600_000)
    yield make({ type: 'grant.issued', ...asked, grant, audience: 'https://tickets.test', expires_at: expiresAt, ends: 'introspection', token_kid: tokenKid })
    if (index % 10 === 5 && index < entries) yield make({ type: 'grant.revoked', actor, workload: name, grant, tool: 'tickets', task })
  }
}

function describeRequest(name: string, actions: readonly string[]): AccessRequest {
  return {
    workload: { name, stage: 'pilot', environment: 'prod', team: 'support', tags: [] },
    tool: 'tickets',
    actions,
    ttlSeconds: 600,
    task: 'ticket',
    proof: 'private_key_jwt',
    boundKey: false,
    depth: 0,
    approvals: 0,
    nowMs: 0,
  }
}

/** Writes such a log to a file as an export of all of it, with its proof; returns what signed it. */
export function writeGeneratedLog(path: string, entries: number, key: LogKey = createLogKey()): LogKey {
  let frontier: Frontier = []
  let text = ''
  const leaves: Uint8Array[] = []
  writeFileSync(path, '')
  const flush = (): void => {
    appendFileSync(path, text)
    text = ''
  }
  for (const body of generateLog(entries)) {
    const leaf = leafHash(Buffer.from(body))
    frontier = appendLeaf(frontier, leaves.length, leaf)
    leaves.push(leaf)
    text += `${body}\n`
    if (text.length > 1_000_000) flush()
  }
  text += formatProof(key.sign({ size: leaves.length, root: rootOf(frontier) }), leaves)
  flush()
  return key
}

/** The lines behind the entries of a log that the test policies were in force for: with the list of their hashes, if given. */
export function formatProof(note: string, leaves: readonly Uint8Array[] = []): string {
  if (!('set' in loaded)) throw new Error('the test policies do not load')
  const lists = Array.from({ length: Math.ceil(leaves.length / 256) }, (_, i) => ({ leaves: Buffer.concat(leaves.slice(256 * i, 256 * (i + 1))).toString('base64') }))
  const lines = [{ policy_set: loaded.set.hash, files: Object.fromEntries(testPolicies) }, ...lists, { checkpoint: note }]
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('')
}
