/** One thing that is wrong in a policy file. Line and column are 1-based; a column counts UTF-16 code units, as editors do. */
export interface PolicyProblem {
  readonly file: string
  readonly line: number
  readonly column: number
  readonly message: string
  /** The valid name that a misspelt one most likely meant. */
  readonly suggestion?: string
}

/** `file:line:column message (did you mean …?)` on one line, safe to print on a terminal. */
export function formatProblem(problem: PolicyProblem): string {
  const hint = problem.suggestion === undefined ? '' : ` (did you mean ${problem.suggestion}?)`
  return escapeControls(`${problem.file}:${problem.line}:${problem.column} ${problem.message}${hint}`)
}

/** A name or value out of a file, quoted for a message and cut where it is long. */
export function quote(value: string): string {
  return JSON.stringify(value.length > 120 ? `${value.slice(0, 120)}…` : value)
}

/** Sorted by file and place, each problem once. */
export function orderProblems(problems: readonly PolicyProblem[]): PolicyProblem[] {
  const unique = new Map(problems.map((problem) => [formatProblem(problem), problem]))
  return [...unique.values()].sort(
    (a, b) => compareText(a.file, b.file) || a.line - b.line || a.column - b.column || compareText(a.message, b.message),
  )
}

/** Orders by UTF-16 code units, the same on every machine and in every locale. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

// A message may quote what someone wrote into a file: no escape sequence of theirs reaches a terminal.
function escapeControls(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu, (c) => {
    return `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
}
