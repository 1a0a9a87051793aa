import { nearestName } from '../kernel/nearest.ts'
import { parsePolicy, type CedarMessage, type PolicyJson } from './cedar.ts'
import { findDeceptiveCharacter, findLiteral, splitPolicies } from './cedar-text.ts'
import { createLocator, indexOfByte } from './position.ts'
import { quote, type PolicyProblem } from './problem.ts'

/** One rule of a `.cedar` file: it parses and has an id. Whether it makes sense with the catalog is seen later. */
export interface Rule {
  readonly id: string
  readonly reason?: string
  readonly file: string
  readonly line: number
  readonly text: string
  readonly json: PolicyJson
  /** A problem at an index of `text`. */
  problemAt(index: number, message: string, suggestion?: string): PolicyProblem
}

const idPattern = /^[a-z](?:[a-z0-9-]{0,62}[a-z0-9])?$/
const annotationNames = ['id', 'reason']
export const reasonLengthMax = 500

/** Parses a `.cedar` file rule by rule, so that the problems of all of them are found at once. */
export function parseRules(file: string, text: string): { rules: Rule[]; problems: PolicyProblem[] } {
  const locate = createLocator(text)
  const problemAt = (index: number, message: string, suggestion?: string): PolicyProblem => {
    return { file, ...locate(index), message, ...(suggestion === undefined ? {} : { suggestion }) }
  }
  const deceptive = findDeceptiveCharacter(text)
  if (deceptive !== undefined) {
    const code = (text.codePointAt(deceptive) ?? 0).toString(16).toUpperCase().padStart(4, '0')
    return { rules: [], problems: [problemAt(deceptive, `holds the character U+${code}, which can make a rule look like another: remove it`)] }
  }

  const rules: Rule[] = []
  const problems: PolicyProblem[] = []
  for (const piece of splitPolicies(text)) {
    const problemInPiece: Rule['problemAt'] = (index, message, suggestion) => problemAt(piece.index + index, message, suggestion)
    const parsed = parsePolicy(piece.text)
    if ('errors' in parsed) {
      problems.push(...parsed.errors.map((error) => placeCedarMessage({ text: piece.text, problemAt: problemInPiece }, error)))
      continue
    }
    // Cedar gives `null` for an annotation without a value.
    const annotations: Readonly<Record<string, string | null>> = parsed.policy.annotations ?? {}
    const found = checkAnnotations(annotations)
    problems.push(...found.map(({ literal, message, suggestion }) => {
      return problemInPiece(literal === undefined ? 0 : findLiteral(piece.text, literal), message, suggestion)
    }))
    const { id, reason } = annotations
    if (found.length > 0 || typeof id !== 'string') continue
    rules.push({
      id,
      file,
      line: locate(piece.index).line,
      text: piece.text,
      json: parsed.policy,
      problemAt: problemInPiece,
      ...(typeof reason === 'string' ? { reason } : {}),
    })
  }
  return { rules, problems }
}

/** What Cedar says about a rule as a problem of the rule's file: bytes become line and column, hints suggestions. */
export function placeCedarMessage(rule: Pick<Rule, 'text' | 'problemAt'>, { message, help, byteOffset }: CedarMessage): PolicyProblem {
  const index = byteOffset === undefined ? 0 : indexOfByte(rule.text, byteOffset)
  const suggestion = /^did you mean `(.*)`\?$/s.exec(help ?? '')?.[1]
  const more = help === undefined || suggestion !== undefined ? '' : `; ${help}`
  // The context is the same for all actions: one problem, not one for each action.
  const general = message.replace(/ in context for Action::"[^"]*"/, ' in context')
  return rule.problemAt(index, `${general}${more}`, suggestion)
}

function checkAnnotations(annotations: Readonly<Record<string, string | null>>) {
  const problems: { message: string; literal?: string; suggestion?: string }[] = []
  const { id, reason } = annotations
  if (typeof id !== 'string') {
    problems.push({ message: 'this policy has no @id("…"): decisions and the audit log name it by its id' })
  } else if (!idPattern.test(id)) {
    problems.push({ literal: id, message: `@id ${quote(id)} must be at most 64 lower-case letters, digits and hyphens, beginning with a letter` })
  }
  if (reason === null) problems.push({ message: '@reason has no text' })
  if (typeof reason === 'string' && reason.length > reasonLengthMax) {
    problems.push({ literal: reason, message: `@reason must be at most ${reasonLengthMax} characters` })
  }
  for (const name of Object.keys(annotations).filter((known) => !annotationNames.includes(known))) {
    const suggestion = nearestName(name, annotationNames)
    const message = `unknown annotation @${name}: a policy has @id and @reason`
    problems.push({ message, ...(suggestion === undefined ? {} : { suggestion: `@${suggestion}` }) })
  }
  return problems
}
