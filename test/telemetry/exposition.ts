/** The samples of a scrape, by name and labels. */
export interface Scrape {
  /** The value of a series; `undefined` where there is none. */
  value(name: string, labels?: Readonly<Record<string, string>>): number | undefined
  /** Every series, as it is written before its value. */
  readonly series: readonly string[]
  /** All of a family's series together. */
  sum(name: string): number
}

const name = '[a-zA-Z_:][a-zA-Z0-9_:]*'
const label = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"'
const comment = new RegExp(`^# (HELP|TYPE) (${name}) (.+)$`)
const sample = new RegExp(`^(${name})(?:\\{(${label}(?:,${label})*)\\})? (-?[0-9.]+(?:e[+-]?\\d+)?|[+-]Inf|Nan)$`)

/**
 * Reads the text exposition format 0.0.4 as strictly as a scraper may: each family with help and type before its samples,
 * in one piece, no series twice, histograms whose buckets add up.
 */
export function readExposition(text: string): Scrape {
  if (!text.endsWith('\n')) throw new Error('the last line has no end')
  const types = new Map<string, string>()
  const helped = new Set<string>()
  const values = new Map<string, number>()
  let family = ''
  for (const line of text.split('\n')) {
    if (line === '') continue
    const [, kind, described = '', rest = ''] = comment.exec(line) ?? []
    if (kind === 'HELP') {
      if (helped.has(described)) throw new Error(`a family comes twice: ${line}`)
      helped.add(described)
      family = described
    } else if (kind === 'TYPE') {
      if (described !== family) throw new Error(`a type without its help: ${line}`)
      types.set(described, rest)
    } else {
      const [, sampled = '', labels = '', value = ''] = sample.exec(line) ?? fail(`no sample: ${line}`)
      const suffixes = types.get(family) === 'histogram' ? ['_bucket', '_sum', '_count'] : ['']
      if (!suffixes.some((suffix) => sampled === `${family}${suffix}`)) throw new Error(`a sample outside of its family ${family}: ${line}`)
      const key = seriesKey(sampled, readLabels(labels))
      if (values.has(key)) throw new Error(`a series comes twice: ${line}`)
      values.set(key, value === '+Inf' ? Infinity : value === '-Inf' ? -Infinity : Number(value))
    }
  }
  for (const [histogram, type] of types) if (type === 'histogram') checkHistogram(histogram, values)
  return {
    series: [...values.keys()],
    value: (of, labels = {}) => values.get(seriesKey(of, labels)),
    sum: (of) => [...values].filter(([key]) => key.split('{')[0] === of).reduce((sum, [, value]) => sum + value, 0),
  }
}

function readLabels(text: string): Record<string, string> {
  return Object.fromEntries([...text.matchAll(new RegExp(label, 'g'))].map(([pair]) => [pair.slice(0, pair.indexOf('=')), JSON.parse(pair.slice(pair.indexOf('=') + 1)) as string]))
}

function seriesKey(of: string, labels: Readonly<Record<string, string>>): string {
  return `${of}${JSON.stringify(Object.fromEntries(Object.entries(labels).toSorted()))}`
}

/** The buckets of each of its series rise, and the last one counts all. */
function checkHistogram(histogram: string, values: ReadonlyMap<string, number>): void {
  const counted = new Map<string, number>()
  for (const [key, value] of values) {
    if (!key.startsWith(`${histogram}_bucket{`)) continue
    const { le, ...labels } = JSON.parse(key.slice(key.indexOf('{'))) as Record<string, string>
    const series = seriesKey(`${histogram}_count`, labels)
    if (value < (counted.get(series) ?? 0)) throw new Error(`the buckets of ${key} fall`)
    counted.set(series, value)
    if (le === '+Inf' && value !== values.get(series)) throw new Error(`the buckets of ${key} miss some`)
  }
}

function fail(message: string): never {
  throw new Error(message)
}
