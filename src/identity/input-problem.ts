import { BrokerError } from '../kernel/errors.ts'

/** One thing that is wrong with what was sent. `path` is the field, as in `owner.contact` or `jwks.keys[1].crv`. */
export interface InputProblem {
  readonly path: string
  /** Reads on from the field's name: `is required`. */
  readonly message: string
}

const namedMax = 3
/** So that an answer is never much larger than what it answers. */
const problemsMax = 50

/** The `invalid_input` error for one or more problems: the message names the first ones, `extra.problems` up to 50. */
export function createInputError(problems: readonly InputProblem[]): BrokerError {
  const named = problems.slice(0, namedMax).map(({ path, message }) => (path === '' ? message : `${path} ${message}`))
  const rest = problems.length - named.length
  return new BrokerError({
    code: 'invalid_input',
    publicMessage: `${named.join('; ')}${rest > 0 ? `; and ${rest} more` : ''}.`,
    extra: { problems: problems.slice(0, problemsMax) },
  })
}

/** The path of a member in the form that problems use: `tags[3]`, `owner.contact`. */
export function formatPath(path: readonly PropertyKey[]): string {
  let text = ''
  for (const step of path) {
    if (typeof step === 'number') text += `[${step}]`
    else text += text === '' ? String(step) : `.${String(step)}`
  }
  return text
}

/** What the sender called a field, safe and short enough to say back. */
export function quoteName(name: string): string {
  return JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}…` : name)
}
