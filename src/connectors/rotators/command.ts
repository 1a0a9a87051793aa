import { Secret } from '../../kernel/secret.ts'
import type { CommandRotator } from '../../policy/kinds/rotators.ts'
import { ConnectorError, type AllowedCommand } from '../connector.ts'
import { judgeProgram, redactOutput, runProgram, type ProgramEnd } from './program.ts'
import { findAll, type Rotator, type RotatorPlace } from './rotator.ts'

type Step = 'create' | 'set' | 'test' | 'retire'

/** EX_TEMPFAIL of sysexits.h: what went wrong has nothing to do with the value, and it is worth another try. */
const tryAgainCode = 75

/**
 * A program of the broker's machine, called with the step as its last argument and JSON on standard input: `tool`, `rotation`,
 * and the values that the step concerns. It may be called again with the same, and a step is done when it ends with 0.
 */
export function openCommandRotator({ name }: CommandRotator, { tool, context }: RotatorPlace): Rotator {
  /** Looked for at each call: a catalog that names a command may be put in force before the configuration allows it. */
  async function find(): Promise<AllowedCommand> {
    const command = context.commands.get(name)
    if (command === undefined) {
      throw refuse(`The command ${name} is not one that this broker may run: an admin names it in its configuration, under rotation.commands, and starts it anew.`)
    }
    const problem = await judgeProgram(command.path)
    if (problem !== undefined) throw refuse(`The command ${name} cannot be run: an admin sees why with stint tool check.`, `The command ${name} is not run: ${command.path} ${problem}.`)
    return command
  }

  async function run(step: Step, input: Readonly<Record<string, unknown>>, secrets: readonly Secret[], signal: AbortSignal): Promise<ProgramEnd> {
    const command = await find()
    const end = await runProgram(command, step, JSON.stringify({ tool: tool.name, ...input }), signal)
    const said = redactOutput(end, [...secrets.map((secret) => secret.reveal()), ...(step === 'create' ? [end.out] : [])])
    const fields = { tool: tool.name, command: name, step, code: end.code, signal: end.signal, said }
    if (end.code !== 0) context.log.warn('a command that replaces a secret has failed', fields)
    else if (said !== '') context.log.info('a command that replaces a secret said something', fields)
    return end
  }

  async function runOrThrow(...call: Parameters<typeof run>): Promise<ProgramEnd> {
    const end = await run(...call)
    if (end.code !== 0) throw fail(name, call[0], end)
    return end
  }

  return {
    async create(rotation, current, signal) {
      const { out, overfull } = await runOrThrow('create', { rotation, current: current.reveal() }, [current], signal)
      const value = out.replace(/\r?\n$/, '')
      if (overfull || value === '' || !value.isWellFormed() || value.includes('\uFFFD')) {
        throw new ConnectorError({ outcome: 'unknown', publicMessage: `The command ${name} ended well at the step create, but wrote no value of at most 64 KiB of UTF-8 to standard output.` })
      }
      return new Secret(value)
    },

    async set(rotation, pending, current, signal) {
      await runOrThrow('set', { rotation, pending: pending.reveal(), current: current.reveal() }, [pending, current], signal)
    },

    async test(pending, signal) {
      const end = await run('test', { pending: pending.reveal() }, [pending], signal)
      if (end.code === 0) return { ok: true }
      if (end.code === null || end.code === tryAgainCode) throw fail(name, 'test', end)
      return { ok: false, why: `The command ${name} ended with ${end.code} at the step test: what it said is in the broker's log.` }
    },

    async retire(value, current, { cutOff }, signal) {
      await runOrThrow('retire', { retired: value.reveal(), current: current.reveal(), cut_off: cutOff, given_up: false }, [value, current], signal)
    },

    async abandon(value, current, _options, signal) {
      await runOrThrow('retire', { retired: value.reveal(), current: current.reveal(), cut_off: false, given_up: true }, [value, current], signal)
    },

    check: () =>
      findAll(async () => {
        const { path } = await find()
        return [{ ok: true, sentence: `The command ${name}, which replaces the value, is ${path}, and may be run.` }]
      }),

    close: async () => undefined,
  }
}

function fail(name: string, step: Step, { code, signal, calledOff }: ProgramEnd): ConnectorError {
  const how = calledOff ? 'did not end in time and was killed' : code === null ? `was ended by ${signal ?? 'a signal'}` : `ended with ${code}`
  return new ConnectorError({
    outcome: 'unknown',
    publicMessage: `The command ${name} ${how} at the step ${step}: what it said is in the broker's log.`,
    ...(code === tryAgainCode && { retryAfterSeconds: 60 }),
  })
}

function refuse(publicMessage: string, adminMessage = publicMessage): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, adminMessage })
}
