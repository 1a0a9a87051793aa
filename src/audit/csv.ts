import type { JsonObject, JsonValue } from './encode.ts'

// Each is a member of the event, or else of its decision; the whole event stands in the last one.
const columnsOfTokens = [
  'index',
  'time',
  'type',
  'actor',
  'workload',
  'tool',
  'actions',
  'target',
  'task',
  'grant',
  'expires_at',
  'verdict',
  'reasons',
  'policy_set',
  'code',
  'detail',
  'reason',
  'request_id',
] as const
const columns = [...columnsOfTokens, 'connector', 'ends', 'cause', 'effect', 'reference', 'may_live_until'] as const
// What was exported before there were other grants than tokens is to be verified as well.
const forms: readonly (readonly string[])[] = [columns, columnsOfTokens]

/** The first line of the log as CSV (RFC 4180). */
export const csvHeader = headerOf(columns)

/**
 * One entry as one line of CSV (RFC 4180), from its body as stored. Whatever a spreadsheet could take for a formula is
 * defused, in the event's JSON without changing what it stands for; in the other columns control characters become spaces.
 */
export function formatCsvLine(body: string): string {
  return formatLine(body, columns)
}

/** Whether a line is the first one of a log as CSV, as it is written or ever was. */
export function isCsvHeader(line: string): boolean {
  return forms.some((names) => headerOf(names) === line)
}

/** Whether a line stands for the entry with this body, as it is written or ever was. */
export function isCsvLine(line: string, body: string): boolean {
  return forms.some((names) => formatLine(body, names) === line)
}

function headerOf(names: readonly string[]): string {
  return `${[...names, 'event'].join(',')}\r\n`
}

function formatLine(body: string, names: readonly string[]): string {
  // Written by `makeEntry` alone.
  const event = JSON.parse(body) as JsonObject
  const decision = isObject(event['decision']) ? event['decision'] : undefined
  const cells = names.map((name) => formatCell(name === 'actor' ? describeActor(event[name]) : (event[name] ?? decision?.[name])))
  return `${cells.join(',')},${quote(defuseJson(body))}\r\n`
}

/** Numbers stay numbers; lists of words are separated by spaces. */
function formatCell(value: JsonValue | undefined): string {
  if (value === undefined || value === null) return ''
  if (typeof value === 'number') return String(value)
  if (typeof value === 'string') return quote(defuseText(value))
  return quote(defuseText(Array.isArray(value) ? value.join(' ') : JSON.stringify(value)))
}

/** `operator 0123…`, `workload triage-bot`, `stranger`. */
function describeActor(actor: JsonValue | undefined): string {
  return isObject(actor) ? [actor['kind'], actor['id']].filter((part) => typeof part === 'string').join(' ') : ''
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function quote(text: string): string {
  return `"${text.replace(/"/g, '""')}"`
}

// What begins a formula in one spreadsheet or another, the full-width forms among it.
const signs = '=+\\-@\uff1d\uff0b\uff0d\uff20'
// Also behind what another spreadsheet takes for the end of a cell, by its own settings or after a careless import.
const formulaOfCell = new RegExp(`(^|[,;:|"'])(\\s*)(?=[${signs}])`, 'g')
const formulaOfWord = new RegExp(`(?<![0-9A-Za-z])[${signs}]`, 'g')
const strings = /"[^"\\]*(?:\\.[^"\\]*)*"/g
const controls = /\p{Cc}/gu

/** The text with an apostrophe before each sign that could begin a formula, which makes it text to a spreadsheet. */
function defuseText(text: string): string {
  return text.replace(controls, ' ').replace(formulaOfCell, "$1$2'")
}

/** The same JSON value with such signs escaped in its strings. */
function defuseJson(json: string): string {
  // Of most entries there is none, and to take each of their strings apart costs ten times as much.
  if (json.search(formulaOfWord) === -1) return json
  return json.replace(strings, (text) => text.replace(formulaOfWord, escapeSign))
}

function escapeSign(sign: string): string {
  return `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`
}
