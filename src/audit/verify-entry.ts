import { createMemberReader } from './canonical.ts'
import type { JsonObject } from './encode.ts'
import { entryBytesMax } from './entry.ts'
import { askedTypes, createCases, isDecided, type AskedType, type Case, type DecidedType } from './verify-case.ts'
import { at, paths } from './verify-paths.ts'
import { createTimeReader, timeBytes } from './verify-time.ts'

/** What an entry says, as far as other entries must agree with it; or what is wrong with it by itself. */
export type EntryReading =
  | { readonly problem: string; readonly index?: number }
  | { readonly index: number; readonly timeMs: number; readonly asked: Asked }
  | { readonly index: number; readonly timeMs: number; readonly event: JsonObject }

/** An entry about a request of a workload that had proven itself: nearly all entries are of these types. */
export interface Asked {
  readonly by: Case
  /** Empty for a type that has none, as are the others. */
  readonly grant: string
  readonly task: string
  /** 0 where nothing expires. */
  readonly expiresAtMs: number
}

const bytesOf = (text: string): Uint8Array => Buffer.from(text)
// What must stand there to the letter.
const parts = {
  one: bytesOf('1'),
  allow: bytesOf('"allow"'),
  emptyList: bytesOf('[]'),
  emptyText: bytesOf('""'),
  nothing: bytesOf(''),
  quote: bytesOf('"'),
  beforeId: bytesOf('{"id":'),
  behindActor: bytesOf(',"kind":"workload"}'),
  behindWorkload: bytesOf(',"type":"Workload"}'),
  behindTool: bytesOf(',"type":"Tool"}'),
  beforeAction: bytesOf('[{"id":'),
  behindAction: bytesOf(',"type":"Action"}]'),
  behindSeconds: bytesOf('s"'),
}
// As invariant 8 has them.
const effects = ['immediate', 'propagating', 'introspection', 'expiry'].map((effect) => bytesOf(`"${effect}"`))

/** Reads entries, one after another. */
export interface EntryReader {
  /** Reads the entry whose body is from `start` to before `end` in bytes that are UTF-8. */
  read(bytes: Buffer, start: number, end: number): EntryReading
}

export function createEntryReader(): EntryReader {
  const members = createMemberReader(paths)
  const { is, isAround, has, text, json } = members
  const takeCase = createCases(members)
  const readTime = createTimeReader()
  let source: Buffer = Buffer.alloc(0)

  function timeAt(path: number): number | undefined {
    const start = members.startOf(path)
    if (start === -1 || source[start] !== 0x22 || source[start + 1 + timeBytes] !== 0x22) return undefined
    return readTime(source, start + 1)
  }

  return {
    read(bytes, start, end) {
      source = bytes
      if (end - start > entryBytesMax) return { problem: `has ${end - start} bytes, and no entry is larger than ${entryBytesMax}` }
      if (!members.read(bytes, start, end)) return { problem: 'is no entry: it is not one object of canonical JSON (RFC 8785)' }
      const index = members.count(at.index)
      if (index === -1) return { problem: 'is no entry: it has no index' }
      if (!is(at.v, parts.one)) return { index, problem: `is of the format v=${json(at.v)}, which this program does not know` }
      const timeMs = timeAt(at.time)
      if (timeMs === undefined) return { index, problem: 'has no time as the log writes it' }
      if (!isSalt(bytes, members.startOf(at.salt))) return { index, problem: 'has no salt of 128 bits' }
      const asked = askedTypes.find((candidate) => is(at.type, candidate.json))
      if (asked === undefined) {
        if (text(at.type) === '') return { index, problem: 'has no type' }
        // It was walked over: it is a JSON object.
        const event = JSON.parse(bytes.toString('utf8', start, end)) as JsonObject
        return { index, timeMs, event }
      }
      const expiresAtMs = isDecided(asked.type) && asked.type !== 'grant.denied' ? timeAt(at.expires_at) : 0
      const problem = judgeAsked(asked.type, timeMs, expiresAtMs)
      if (problem !== undefined || expiresAtMs === undefined) return { index, problem: problem ?? 'does not say when it expires' }
      return { index, timeMs, asked: { by: takeCase(asked.type), grant: text(at.grant), task: text(at.task), expiresAtMs } }
    },
  }

  function judgeAsked(type: AskedType, timeMs: number, expiresAtMs: number | undefined): string | undefined {
    if (!isText(at.workload) || isText(at.proof_kid) === isText(at.proof_grant)) return 'does not say which workload asked by which proof'
    if (!isAround(at.actor, parts.beforeId, at.workload, parts.behindActor)) return 'has another actor than its workload'
    if (type === 'grant.refused') return undefined
    if (!isDecided(type)) return isText(at.grant) ? undefined : 'names no grant'
    return judgeDecision(type) ?? (type === 'grant.denied' ? undefined : judgeExpiry(type, timeMs, expiresAtMs))
  }

  /** Whether the decision is there, is about this very request, and says what the entry's type says. */
  function judgeDecision(type: DecidedType): string | undefined {
    if (!isText(at['decision.verdict'])) return 'has no decision'
    if (!isText(at['decision.policy_set'])) return 'has a decision that names no policy set'
    if (is(at['decision.verdict'], parts.allow) === (type === 'grant.denied')) return `has the verdict ${text(at['decision.verdict'])} in its decision`
    const foreign = findForeignInput()
    if (foreign !== undefined) return `has a decision about another ${foreign}`
    if (type === 'grant.denied') return undefined
    if (!is(at['decision.errors'], parts.emptyList)) return 'was allowed in spite of errors in evaluation'
    if (!has(at['decision.reasons']) || is(at['decision.reasons'], parts.emptyList)) return 'was allowed, and names no policy that permits it'
    return judgeGiven(type)
  }

  /** Whether the entry says what was given. */
  function judgeGiven(type: Exclude<DecidedType, 'grant.denied'>): string | undefined {
    switch (type) {
      case 'grant.issued':
        return isText(at.grant) && isText(at.token_kid) ? undefined : 'does not say which grant was issued, signed by which key'
      case 'grant.minting':
        if (!isText(at.grant) || !isText(at.connector)) return 'does not say which grant is to be made, through which connector'
        return effects.some((effect) => is(at.ends, effect)) ? undefined : 'does not say how the grant is to end before its time'
      case 'grant.renewed':
        return isText(at.grant) ? undefined : 'does not say which grant was renewed'
    }
  }

  /** What the policy saw must be what was asked. */
  function findForeignInput(): string | undefined {
    if (!isAround(at['decision.input.principal'], parts.beforeId, at.workload, parts.behindWorkload)) return 'workload'
    const resource = at['decision.input.resource']
    const isResource = has(at.target)
      ? json(resource) === describeTarget(text(at.tool), text(at.target))
      : isAround(resource, parts.beforeId, at.tool, parts.behindTool)
    if (!isResource) return 'tool or target'
    const actions = at['decision.input.actions']
    // Of one action, as usual, or of several.
    const isSet = isAround(actions, parts.beforeAction, at.actions, parts.behindAction, 1) || json(actions) === describeActions(json(at.actions))
    if (!isSet) return 'set of actions'
    if (!isAround(at['decision.input.context.ttl.__extn.arg'], parts.quote, at.ttl_seconds, parts.behindSeconds)) return 'time to live'
    const task = at['decision.input.context.task']
    return (has(at.task) || has(task)) && !isAround(task, parts.nothing, at.task, parts.nothing) ? 'task' : undefined
  }

  /** Counted from when it was decided or recorded, whichever is later: a clock may have been set in between. */
  function judgeExpiry(type: DecidedType, timeMs: number, expiresAtMs: number | undefined): string | undefined {
    if (expiresAtMs === undefined) return 'does not say when it expires'
    const longestMs = Math.max(timeMs, timeAt(at['decision.input.context.now.__extn.arg']) ?? 0) + 1000 * members.count(at.ttl_seconds)
    // What is left of the longest life of a grant is decided on in whole seconds.
    const isWithin = type === 'grant.renewed' ? expiresAtMs < longestMs + 1000 : expiresAtMs <= longestMs
    return isWithin ? undefined : `expires at ${text(at.expires_at)}, later than its ${json(at.ttl_seconds)} s allow`
  }

  function isText(path: number): boolean {
    return source[members.startOf(path)] === 0x22 && !is(path, parts.emptyText)
  }
}

/** 22 characters of base64url, which no JSON escapes. */
function isSalt(bytes: Uint8Array, start: number): boolean {
  if (start === -1 || bytes[start] !== 0x22 || bytes[start + 23] !== 0x22) return false
  for (let place = start + 1; place < start + 23; place++) {
    const byte = bytes[place] ?? 0
    const isLetter = (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a
    if (!isLetter && !(byte >= 0x30 && byte <= 0x39) && byte !== 0x2d && byte !== 0x5f) return false
  }
  return true
}

function describeTarget(tool: string, target: string): string {
  return `{"id":${JSON.stringify(`${tool}/${target}`)},"type":"Target"}`
}

/** The actions of a request as the policy is given them. */
function describeActions(actions: string): string {
  if (!actions.startsWith('["')) return ''
  // Canonical JSON that begins as a list of texts.
  const names = JSON.parse(actions) as unknown[]
  return `[${names.map((name) => `{"id":${JSON.stringify(name)},"type":"Action"}`).join(',')}]`
}
