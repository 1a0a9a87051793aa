import { createMemberFinder, decodeText } from './canonical.ts'
import type { JsonObject } from './encode.ts'
import { entryBytesMax } from './entry.ts'
import { createTimeReader } from './verify-time.ts'

/** What an entry says, as far as other entries must agree with it; or what is wrong with it by itself. */
export type EntryReading =
  | { readonly problem: string; readonly index?: number }
  | { readonly index: number; readonly timeMs: number; readonly asked: Asked }
  | { readonly index: number; readonly timeMs: number; readonly event: JsonObject }

/** An entry about a request of a workload that had proven itself: nearly all entries are of these types. */
export interface Asked {
  readonly type: (typeof askedTypes)[number]
  readonly workload: string
  readonly proofKid: string
  /** Empty for a type that has none, as are the others. */
  readonly tool: string
  readonly policySet: string
  readonly tokenKid: string
  readonly grant: string
  readonly task: string
  /** 0 where nothing expires. */
  readonly expiresAtMs: number
}

const askedTypes = ['grant.issued', 'grant.denied', 'grant.refused', 'introspection.refused', 'revocation.refused'] as const

const paths = [
  'actions',
  'actor',
  'decision.errors',
  'decision.input.actions',
  'decision.input.context.now.__extn.arg',
  'decision.input.context.task',
  'decision.input.context.ttl.__extn.arg',
  'decision.input.principal',
  'decision.input.resource',
  'decision.policy_set',
  'decision.reasons',
  'decision.verdict',
  'expires_at',
  'grant',
  'index',
  'proof_kid',
  'salt',
  'target',
  'task',
  'time',
  'token_kid',
  'tool',
  'ttl_seconds',
  'type',
  'v',
  'workload',
] as const
type Path = (typeof paths)[number]
// Each path is found by its place.
const at = Object.fromEntries(paths.map((path, i) => [path, i])) as Record<Path, number>

/** Reads entries of one piece of a file. */
export interface EntryReader {
  /** Reads the entry whose body is from `start` to before `end`. */
  read(start: number, end: number): EntryReading
}

/** A reader of entries in these bytes, which must be UTF-8. */
export function createEntryReader(bytes: Buffer): EntryReader {
  const { find, startOf, endOf } = createMemberFinder(paths)
  const readTime = createTimeReader()
  // One character for each byte: a part of it costs nothing, and stands where its bytes do.
  const all = bytes.toString('latin1')

  /** The member's JSON, as bytes; empty where there is none. It is to be compared, and not to be kept. */
  function raw(path: Path): string {
    const start = startOf(at[path])
    return start === -1 ? '' : all.slice(start, endOf(at[path]))
  }

  /** What is between the quotes, as `raw`; empty where there is none or where it is no text. */
  function inner(path: Path): string {
    const start = startOf(at[path])
    return start === -1 || bytes[start] !== 0x22 ? '' : all.slice(start + 1, endOf(at[path]) - 1)
  }

  /** The member's text, to be kept; empty where there is none or where it is no text. */
  function text(path: Path): string {
    const start = startOf(at[path])
    return start === -1 || bytes[start] !== 0x22 ? '' : decodeText(bytes, start + 1, endOf(at[path]) - 1)
  }

  const decoded = new Map<string, string>()

  /** As `text`, for members of which a piece has few values: each is the same string every time. */
  function common(path: Path): string {
    const found = inner(path)
    let value = decoded.get(found)
    if (value === undefined) {
      value = text(path)
      decoded.set(found, value)
    }
    return value
  }

  /** Whether the member's JSON is the middle part between the two others. */
  function consistsOf(path: Path, before: string, middle: string, behind: string): boolean {
    const start = startOf(at[path])
    if (start === -1 || endOf(at[path]) - start !== before.length + middle.length + behind.length) return false
    const second = start + before.length
    return all.startsWith(before, start) && all.startsWith(middle, second) && all.startsWith(behind, second + middle.length)
  }

  return {
    read(start, end) {
      if (end - start > entryBytesMax) return { problem: `has ${end - start} bytes, and no entry is larger than ${entryBytesMax}` }
      if (!find(bytes, start, end)) return { problem: 'is no entry: it is not one object of canonical JSON (RFC 8785)' }
      const index = Number(raw('index') || NaN)
      if (!Number.isSafeInteger(index) || index < 0) return { problem: 'is no entry: it has no index' }
      if (raw('v') !== '1') return { index, problem: `is of the format v=${raw('v')}, which this program does not know` }
      const timeMs = readTime(inner('time'))
      if (timeMs === undefined) return { index, problem: 'has no time as the log writes it' }
      if (!/^[\w-]{22}$/.test(inner('salt'))) return { index, problem: 'has no salt of 128 bits' }
      const type = inner('type')
      if (type === '') return { index, problem: 'has no type' }
      const known = askedTypes.find((candidate) => candidate === type)
      if (known === undefined) {
        // It was walked over: it is a JSON object.
        const event = JSON.parse(bytes.toString('utf8', start, end)) as JsonObject
        return { index, timeMs, event }
      }
      const problem = judgeAsked(known, timeMs)
      if (problem !== undefined) return { index, problem }
      return { index, timeMs, asked: takeAsked(known) }
    },
  }

  function takeAsked(type: Asked['type']): Asked {
    const decided = type === 'grant.issued' || type === 'grant.denied'
    return {
      type,
      workload: common('workload'),
      proofKid: common('proof_kid'),
      tool: decided ? common('tool') : '',
      policySet: decided ? common('decision.policy_set') : '',
      tokenKid: type === 'grant.issued' ? common('token_kid') : '',
      grant: text('grant'),
      task: text('task'),
      expiresAtMs: type === 'grant.issued' ? (readTime(inner('expires_at')) ?? 0) : 0,
    }
  }

  function judgeAsked(type: Asked['type'], timeMs: number): string | undefined {
    if (inner('workload') === '' || inner('proof_kid') === '') return 'does not say which workload asked by which key'
    if (!consistsOf('actor', '{"id":', raw('workload'), ',"kind":"workload"}')) return 'has another actor than its workload'
    if (type === 'introspection.refused' || type === 'revocation.refused') return inner('grant') === '' ? 'names no grant' : undefined
    if (type === 'grant.refused') return undefined
    return judgeDecision(type, timeMs)
  }

  /** Whether the decision is there, is about this very request, and says what the entry's type says. */
  function judgeDecision(type: 'grant.issued' | 'grant.denied', timeMs: number): string | undefined {
    const verdict = inner('decision.verdict')
    if (verdict === '') return 'has no decision'
    if (inner('decision.policy_set') === '') return 'has a decision that names no policy set'
    if ((verdict === 'allow') !== (type === 'grant.issued')) return `has the verdict ${text('decision.verdict')} in its decision`
    const foreign = findForeignInput()
    if (foreign !== undefined) return `has a decision about another ${foreign}`
    if (type === 'grant.denied') return undefined
    if (raw('decision.errors') !== '[]') return 'was allowed in spite of errors in evaluation'
    if (!raw('decision.reasons').startsWith('["')) return 'was allowed, and names no policy that permits it'
    if (inner('grant') === '' || inner('token_kid') === '') return 'does not say which grant was issued, signed by which key'
    return judgeExpiry(timeMs)
  }

  /** What the policy saw must be what was asked. */
  function findForeignInput(): string | undefined {
    const [workload, tool, target] = [raw('workload'), raw('tool'), raw('target')]
    if (!consistsOf('decision.input.principal', '{"id":', workload, ',"type":"Workload"}')) return 'workload'
    const isResource =
      target === ''
        ? consistsOf('decision.input.resource', '{"id":', tool, ',"type":"Tool"}')
        : // Two JSON texts, one behind the other, are the JSON text of both, but for the quotes between.
          consistsOf('decision.input.resource', '{"id":', `${tool.slice(0, -1)}/${target.slice(1)}`, ',"type":"Target"}')
    if (tool === '' || !isResource) return 'tool or target'
    if (!consistsOf('decision.input.actions', '[', describeActions(raw('actions')), ']')) return 'set of actions'
    if (!consistsOf('decision.input.context.ttl.__extn.arg', '"', raw('ttl_seconds'), 's"')) return 'time to live'
    return raw('decision.input.context.task') === raw('task') ? undefined : 'task'
  }

  /** Counted from when it was decided or recorded, whichever is later: a clock may have been set in between. */
  function judgeExpiry(timeMs: number): string | undefined {
    const expiresAtMs = readTime(inner('expires_at'))
    if (expiresAtMs === undefined) return 'does not say when it expires'
    const decidedMs = readTime(inner('decision.input.context.now.__extn.arg')) ?? 0
    const longestMs = Math.max(timeMs, decidedMs) + 1000 * Number(raw('ttl_seconds'))
    return expiresAtMs <= longestMs ? undefined : `expires at ${inner('expires_at')}, later than its ${raw('ttl_seconds')} s allow`
  }
}

/** The actions of a request as the policy is given them, without the brackets. */
function describeActions(actions: string): string {
  if (!actions.startsWith('["')) return ''
  if (!actions.includes(',')) return `{"id":${actions.slice(1, -1)},"type":"Action"}`
  // Canonical JSON that begins as a list of texts.
  const names = JSON.parse(actions) as unknown[]
  return names.map((name) => `{"id":${JSON.stringify(name)},"type":"Action"}`).join(',')
}
