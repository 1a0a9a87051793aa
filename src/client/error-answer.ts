import { isObject } from './answer.ts'
import { StintError, type Problem } from './errors.ts'

const messageCharactersMax = 2_000
const problemsMax = 1_000

/**
 * The error in a refusal: OAuth's `{error, error_description}` (RFC 6749 §5.2), or problem details (RFC 9457 §3.1).
 * Whatever the answer repeats of `secrets` is taken out, so that an error may be logged as it is (invariant 7).
 */
export function readErrorAnswer(
  status: number,
  headers: Headers,
  body: Readonly<Record<string, unknown>>,
  secrets: readonly string[],
): StintError {
  const clean = (text: string): string => redact(text, secrets).slice(0, messageCharactersMax)
  const member = (name: string): string | undefined => {
    const value = body[name]
    return typeof value === 'string' && value !== '' ? clean(value) : undefined
  }
  const code = member('error') ?? codeOfType(member('type')) ?? 'bad_answer'
  const answeredAtMs = Date.parse(headers.get('date') ?? '')
  const requestId = headers.get('stint-request-id') ?? member('request_id')
  return new StintError({
    status,
    code,
    message: member('error_description') ?? member('detail') ?? member('title') ?? `the broker refused: ${code} (${status})`,
    requestId: requestId === undefined ? undefined : clean(requestId),
    problems: readProblems(body['problems'], clean),
    retryAfterSeconds: readRetryAfter(headers),
    answeredAtMs: Number.isNaN(answeredAtMs) ? undefined : answeredAtMs,
  })
}

/** Seconds that `Retry-After` asks for (RFC 9110 §10.2.3); a date counts from the answer's own `Date`. */
export function readRetryAfter(headers: Headers): number | undefined {
  const value = headers.get('retry-after')
  if (value === null) return undefined
  if (/^\d{1,9}$/.test(value)) return Number(value)
  const seconds = (Date.parse(value) - Date.parse(headers.get('date') ?? '')) / 1000
  return Number.isNaN(seconds) ? undefined : Math.max(0, Math.ceil(seconds))
}

/** The text with each of the secrets in it replaced. */
export function redact(text: string, secrets: readonly string[]): string {
  let clean = text
  for (const secret of secrets) if (secret !== '') clean = clean.replaceAll(secret, '[redacted]')
  return clean
}

/** `https://…/problems/not-found` and `urn:…:not_found` are both `not_found`. */
function codeOfType(type: string | undefined): string | undefined {
  const last = type?.split(/[/:#]/).at(-1)
  return last === undefined || last === '' || last === 'blank' ? undefined : last.replaceAll('-', '_')
}

function readProblems(list: unknown, clean: (text: string) => string): readonly Problem[] {
  if (!Array.isArray(list)) return []
  return list.slice(0, problemsMax).flatMap((problem: unknown) => {
    if (typeof problem === 'string') return [{ message: clean(problem) }]
    if (!isObject(problem) || typeof problem['message'] !== 'string') return []
    const { path, file, line, column, suggestion } = problem
    return [
      {
        message: clean(problem['message']),
        ...(typeof path === 'string' && { path: clean(path) }),
        ...(Array.isArray(path) && { path: clean(path.join('.')) }),
        ...(typeof file === 'string' && { file: clean(file) }),
        ...(typeof line === 'number' && { line }),
        ...(typeof column === 'number' && { column }),
        ...(typeof suggestion === 'string' && { suggestion: clean(suggestion) }),
      },
    ]
  })
}
