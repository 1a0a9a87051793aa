/** What AWS knows of a session that asks for something. */
interface AskingSession {
  readonly sourceIdentity?: string
  readonly tokenIssueMs: number
}

interface Statement {
  readonly Effect: string
  readonly Action: string
  readonly Resource: string
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>
}

/**
 * Whether policies deny a session anything, by the rules of the IAM User Guide ("Policy evaluation logic", "Condition
 * operators") for the few operators that Stint writes; made for tests, and apart from what writes them. Throws for others.
 */
export function evaluate(documents: readonly string[], session: AskingSession): 'denied' | 'not denied' {
  for (const document of documents) {
    const { Statement: statements } = JSON.parse(document) as { readonly Statement: Statement | readonly Statement[] }
    for (const statement of [statements].flat() as readonly Statement[]) {
      if (statement.Effect !== 'Deny' || statement.Action !== '*' || statement.Resource !== '*') throw new Error('this matcher knows denials of everything alone')
      // All operators and all keys must match, and one value of each.
      const matches = Object.entries(statement.Condition ?? {}).every(([operator, keys]) => Object.entries(keys).every(([key, values]) => [values].flat().some((value) => matchOne(operator, key, String(value), session))))
      if (matches) return 'denied'
    }
  }
  return 'not denied'
}

function matchOne(operator: string, key: string, value: string, { sourceIdentity, tokenIssueMs }: AskingSession): boolean {
  // A key that the session does not have matches nothing.
  if (operator === 'StringEquals' && key === 'aws:SourceIdentity') return sourceIdentity === value
  if (operator === 'DateLessThan' && key === 'aws:TokenIssueTime') return tokenIssueMs < Date.parse(value)
  throw new Error(`this matcher does not know ${operator} on ${key}`)
}
