import { parseArgs } from 'node:util'

export interface Options {
  readonly help: boolean
  readonly quick: boolean
  readonly profile: boolean
  /** Groups of cases; all where it is empty. */
  readonly only: readonly string[]
  /** How long one measurement takes, and how often each case is measured. */
  readonly seconds: number
  readonly rounds: number
  readonly json?: string
}

/** Reads the command line. Throws an `Error` that says what is wrong with it. */
export function readOptions(args: readonly string[], groups: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h' },
      quick: { type: 'boolean' },
      profile: { type: 'boolean' },
      only: { type: 'string', multiple: true },
      seconds: { type: 'string' },
      rounds: { type: 'string' },
      json: { type: 'string' },
    },
  })
  const quick = values.quick === true
  const only = (values.only ?? []).flatMap((names) => names.split(','))
  const unknown = only.find((name) => !groups.includes(name))
  if (unknown !== undefined) throw new Error(`there are no cases ${JSON.stringify(unknown)}: --only takes ${groups.join(', ')}`)
  return {
    help: values.help === true,
    quick,
    profile: values.profile === true,
    only,
    seconds: readNumber('--seconds', values.seconds, 1, 60) ?? (quick ? 1 : 4),
    rounds: readNumber('--rounds', values.rounds, 1, 50) ?? (quick ? 1 : 3),
    ...(values.json !== undefined && { json: values.json }),
  }
}

function readNumber(option: string, text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (!Number.isInteger(value) || value < min || value > max) throw new Error(`${option} takes a whole number from ${min} to ${max}`)
  return value
}
