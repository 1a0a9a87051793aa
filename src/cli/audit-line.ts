import type { AuditEntry } from '../client/log-records.ts'
import { formatDuration } from '../kernel/duration.ts'
import { formatTable } from './terminal.ts'

type Event = Readonly<Record<string, unknown>>

/** One line for each entry, under a header, cut to the terminal. Everything in it is made printable. */
export function formatEntries(entries: readonly AuditEntry[], columns: number | undefined): string {
  const rows = entries.map((entry) => [
    String(entry.index),
    formatShortTime(entry.time, columns),
    entry.type,
    readText(entry.event, 'workload') ?? '-',
    describeEvent(entry.event),
  ])
  return formatTable(['INDEX', 'TIME', 'EVENT', 'WORKLOAD', 'WHAT'], rows, columns)
}

/** Seconds are enough to read, and on a narrow terminal the year is left out; the entry itself has everything. */
function formatShortTime(time: string, columns: number | undefined): string {
  const short = time.replace(/\.\d+Z$/, 'Z')
  return columns === undefined || columns >= 100 ? short : short.replace(/^\d{4}-(.+)T(.+)Z$/, '$1 $2')
}

/**
 * What happened, in one line, from the members that the event has, the verdict first. Knows no types of events: one that
 * a newer broker records is told as far as its members are known.
 */
export function describeEvent(event: Event): string {
  const parts = [
    describeVerdict(event),
    describeRefusal(event),
    describeAccess(event),
    describeSelector(event),
    describeChange(event),
    describeAbandoned(event),
    ...facts.map(([member, label]) => describeFact(event, member, label)),
    describeDetail(event),
    // How long a key that was rotated out overlaps. Of other events, the end of the time that they count.
    event['replaces'] === undefined ? undefined : label('until', readText(event, 'until')),
    describeDeciders(event),
    label('reason', readText(event, 'detail') === undefined ? reasonOf(event) : undefined),
    describeActor(event),
  ]
  return parts.filter((part) => part !== undefined && part !== '').join(' ')
}

// Members that say something by themselves, with the word that stands before their value.
const facts = [
  ['grant', 'grant'],
  ['connector', 'through'],
  ['reference', 'called'],
  ['renews', 'going on from'],
  ['ends', 'ends'],
  ['cause', 'cause'],
  ['effect', 'effect'],
  ['tries', 'tries'],
  ['dies_at', 'dies at'],
  ['may_live_until', 'may live until'],
  ['proof_grant', 'proven by a token of'],
  ['owner', 'of the team'],
  ['secret', 'secret'],
  ['version', 'version'],
  ['method', ''],
  ['route', ''],
  ['environment', 'environment'],
  ['stage', 'stage'],
  ['enrolment', 'enrolment'],
  ['kid', 'key'],
  ['alg', ''],
  ['replaces', 'in place of'],
  ['use', 'for'],
  ['policy_set', 'set'],
  ['previous', 'after'],
  ['policies', 'policies'],
  ['tools', 'tools'],
  ['problems', 'problems'],
  ['first_problem', 'first:'],
  ['operator', 'operator'],
  ['name', 'named'],
  ['session', 'session'],
  ['subject', 'of'],
  ['role', 'role'],
  ['issuer', 'issuer'],
  ['signs_from', 'signs from'],
  ['seals_from', 'seals from'],
  ['root', 'wrapped by'],
  ['successor', 'successor'],
  ['verify_until', 'verifies until'],
  ['review_at', 'review at'],
  ['before', 'of what was made before'],
  ['bystanders', 'with bystanders'],
] as const

function describeVerdict(event: Event): string | undefined {
  const decision = readObject(event, 'decision')
  if (decision === undefined) return undefined
  const verdict = readText(decision, 'verdict')
  const needed = decision['approvals_needed']
  if (verdict === 'needs_approval') return `needs ${typeof needed === 'number' ? count(needed, 'approval') : 'approval'}:`
  return verdict === undefined ? undefined : `${verdict}:`
}

/** Which policies decided, or that none did: then default deny has (invariant 4). */
function describeDeciders(event: Event): string | undefined {
  const decision = readObject(event, 'decision')
  if (decision === undefined) return undefined
  const reasons = readList(decision, 'reasons')
  const errors = readList(decision, 'errors')
  const by = reasons.length > 0 ? `by ${reasons.join(', ')}` : errors.length > 0 ? '' : 'no rule permits it'
  return `(${[by, errors.length > 0 ? `error: ${errors.join('; ')}` : ''].filter((part) => part !== '').join('; ')})`
}

function describeRefusal(event: Event): string | undefined {
  const times = event['count']
  const code = readText(event, 'code')
  const detail = readText(event, 'detail')
  if (code !== undefined) return detail === undefined ? code : `${code}: ${detail}`
  if (typeof times !== 'number') return undefined
  const claimed = Object.entries(readObject(event, 'claimed') ?? {}).map(([name, often]) => `${name} (${String(often)})`)
  const claim = claimed.length === 0 ? '' : `, claiming to be ${claimed.join(', ')}`
  return `${readText(event, 'realm') ?? ''} ${readText(event, 'reason') ?? ''}, ${count(times, 'time')}${claim}`.trim()
}

function describeAccess(event: Event): string | undefined {
  const actions = readList(event, 'actions')
  const seconds = event['ttl_seconds']
  // Of many, the selector tells it.
  const isOne = readObject(event, 'selector') === undefined
  const parts = [
    actions.length > 0 ? actions.join(' ') : isOne ? readText(event, 'tool') : undefined,
    label('on', readText(event, 'target')),
    typeof seconds === 'number' && Number.isSafeInteger(seconds) ? `for ${formatDuration(seconds)}` : undefined,
    isOne ? label('task', readText(event, 'task')) : undefined,
  ]
  return parts.filter((part) => part !== undefined).join(' ')
}

/** Of what a revocation of many, or an export, is. */
function describeSelector(event: Event): string | undefined {
  const selector = readObject(event, 'selector')
  if (selector === undefined) return undefined
  const of = Object.entries(selector).map(([name, value]) => `${name} ${String(value)}`).join(', ')
  const format = readText(event, 'format')
  if (format === undefined) return `all grants of ${of}`
  return `entries ${show(event['first'])} to ${show(event['last'])}${of === '' ? '' : ` of ${of}`} as ${format}`
}

/** What a record was and what it became. */
function describeChange(event: Event): string | undefined {
  const before = readObject(event, 'before')
  const after = readObject(event, 'after')
  if (after === undefined) return undefined
  const names = Object.keys(after).filter((name) => JSON.stringify(before?.[name]) !== JSON.stringify(after[name]))
  return names.map((name) => `${name} ${show(before?.[name])} → ${show(after[name])}`).join(', ')
}

/** The checkpoints without which a log was accepted. */
function describeAbandoned(event: Event): string | undefined {
  const abandoned = event['abandoned']
  if (!Array.isArray(abandoned)) return undefined
  // Of each, no more is read than what a JSON object may have.
  const all = (abandoned as readonly unknown[]).filter((one): one is Event => typeof one === 'object' && one !== null)
  return `without ${all.map((one) => `${show(one['size'])} entries kept in ${show(one['anchor'])}`).join(', ')}`
}

function describeFact(event: Event, member: string, word: string): string | undefined {
  const value = event[member]
  if (typeof value !== 'string' && typeof value !== 'number') return undefined
  // A hash is recognised by its beginning.
  const text = /^[0-9a-f]{64}$/.test(String(value)) ? String(value).slice(0, 12) : String(value)
  return word === '' ? text : `${word} ${text}`
}

/** Who did it, where that is not the workload itself. */
function describeActor(event: Event): string | undefined {
  const actor = readObject(event, 'actor')
  const kind = actor === undefined ? undefined : readText(actor, 'kind')
  if (actor === undefined || kind === undefined || kind === 'workload' || kind === 'stranger') return undefined
  const id = readText(actor, 'id')
  return `by ${kind}${id === undefined ? '' : ` ${id}`}`
}

/** Why something went wrong, where no code says it. */
function describeDetail(event: Event): string | undefined {
  const detail = readText(event, 'code') === undefined ? readText(event, 'detail') : undefined
  return detail === undefined ? undefined : `because ${JSON.stringify(detail)}`
}

function reasonOf(event: Event): string | undefined {
  const reason = typeof event['count'] === 'number' ? undefined : readText(event, 'reason')
  return reason === undefined ? undefined : JSON.stringify(reason)
}

function label(word: string, value: string | undefined): string | undefined {
  return value === undefined ? undefined : `${word} ${value}`
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

function show(value: unknown): string {
  return value === undefined ? 'nothing' : typeof value === 'string' ? value : JSON.stringify(value)
}

function readText(event: Event, member: string): string | undefined {
  const value = event[member]
  return typeof value === 'string' && value !== '' ? value : undefined
}

function readObject(event: Event, member: string): Event | undefined {
  const value = event[member]
  // What is an object and no list has string keys: that is all that is read of it.
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Event) : undefined
}

function readList(event: Event, member: string): readonly string[] {
  const value = event[member]
  return Array.isArray(value) ? value.filter((element) => typeof element === 'string') : []
}
