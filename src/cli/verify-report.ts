import { printableLines } from './terminal.ts'

/** What one part of a verification came to: what a person reads, and what a program does. */
export interface Section {
  /** One word, under which it stands for people and in the JSON: `file`, `live`, `decisions`. */
  readonly title: string
  /** Whether nothing is wrong, and what was asked for could be proven. What else was not proven, `lines` and `json` say. */
  readonly ok: boolean
  /** There is no verdict, good or bad: whoever was to be asked gave no answer. */
  readonly unanswered?: true
  /** The verdict first, then what explains it: one sentence each, without newlines. */
  readonly lines: readonly string[]
  /** A JSON value: the same and more, for programs. */
  readonly json: Readonly<Record<string, unknown>>
}

/** Sections as text: the title, then the lines, indented. Everything in them is made printable. */
export function formatSections(sections: readonly Section[]): string {
  return sections
    .map(({ title, ok, unanswered, lines }) => `${title}: ${ok ? 'ok' : unanswered ? 'NO VERDICT' : 'NOT OK'}\n${lines.map((line) => `  ${printableLines(line)}\n`).join('')}`)
    .join('')
}

/** The exit code for them all: 0 ok, 1 something is not, 3 only that somebody gave no answer. */
export function exitCodeOf(sections: readonly Section[]): number {
  const failed = sections.filter(({ ok }) => !ok)
  if (failed.length === 0) return 0
  return failed.every(({ unanswered }) => unanswered) ? 3 : 1
}

/** Sections as one value for programs: whether all hold, and each under its title. */
export function describeSections(sections: readonly Section[]): Readonly<Record<string, unknown>> {
  const members = sections.map(({ title, ok, json }) => [title, { ok, ...json }] as const)
  return { ok: sections.every(({ ok }) => ok), ...Object.fromEntries(members) }
}
