import { enrolAgent } from '../client/enrolments.ts'
import { StintError } from '../client/errors.ts'
import { readPrivateFile } from '../kernel/private-file.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { brokerHelp, brokerOf, brokerOptions, keyFile } from './connection.ts'
import { createKeyFile, readAlgorithm, readKeyFile } from './key-file.ts'
import { formatFields, formatJson, printable } from './terminal.ts'

/** `stint enroll`: an agent registers a key of its own by a one-time code. */
export const enrollCommand: Command = {
  name: 'enroll',
  summary: 'register a key of its own by a one-time code',
  help: `Usage: stint enroll CODE|- --key FILE [options]
       stint enroll --code-file FILE --key FILE [options]

Makes the agent's own key, where there is none yet, and registers it by the code
that an admin made (stint workload enroll NAME). The private key never leaves
this machine: run this where the agent runs. If the answer got lost, run it
again.

A code works once and for 15 minutes. Other users of this machine can see an
argument as long as this runs: - reads the code from standard input instead.

Options:
  --code-file FILE  the code is in a file of mode 0600
  --key FILE        the private key (else STINT_KEY_FILE); made with mode 0600
                    where there is none, never overwritten
  --alg ALG         of a new key: ES256 (default) or Ed25519
  --json            print the result as JSON
${brokerHelp}  The code may also be in the environment, as STINT_ENROLLMENT_CODE.

Examples:
  stint enroll stint_enroll_… --key triage-bot.key \\
    --url https://stint.example.com
  stint enroll --code-file /run/secrets/enrollment --key triage-bot.key
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('enroll', args, {
      ...brokerOptions,
      'code-file': { type: 'string' },
      key: { type: 'string' },
      alg: { type: 'string' },
      json: { type: 'boolean' },
    })
    const alg = readAlgorithm(values.alg)
    const path = keyFile(values, io)
    const code = await readCode(positionals, values['code-file'], io)
    const broker = brokerOf(values, io)

    const found = await readKeyFile(path)
    // Kept before anything is sent: a key that is registered and lost would use up the code for nothing.
    const key = found ?? (await createKeyFile(path, alg))
    try {
      const enrolled = await enrolAgent({ ...broker, code, key })
      const { workload, clientId, kid, issuer, auditIndex } = enrolled
      if (values.json === true) {
        io.out(formatJson({ workload, client_id: clientId, kid, issuer, key_file: path, audit_index: auditIndex }))
        return 0
      }
      io.out(
        formatFields([
          ['workload', workload],
          ['client id', clientId],
          ['key', kid],
          ['key file', path],
          ['broker', issuer],
          ['audit entry', auditIndex === undefined ? undefined : String(auditIndex)],
        ]),
      )
      const option = values.url === undefined ? '' : ` --url ${broker.url}`
      io.err(`Now it can ask: stint token TOOL:VERB --workload ${printable(workload)} --key ${printable(path)}${option}\n`)
      return 0
    } catch (error) {
      if (error instanceof StintError && error.code === 'conflict') throw explain(error, path)
      if (found === undefined) io.err(`The new key is kept in ${printable(path)}: stint enroll with the same --key goes on with it.\n`)
      throw error
    }
  },
}

async function readCode(positionals: readonly string[], file: string | undefined, io: Io): Promise<string> {
  const [argument, ...rest] = positionals
  if (rest.length > 0) throw new UsageError('only one argument is taken, the code. See: stint enroll --help')
  if (argument !== undefined && file !== undefined) throw new UsageError('give the code or --code-file, not both.')
  if (file === '') throw new UsageError('--code-file needs the name of a file.')
  const given = argument === '-' ? await io.readInput() : argument
  const text = file === undefined ? (given ?? io.env['STINT_ENROLLMENT_CODE']) : readPrivateFile(file, 'the code').toString('utf8')
  if (text === undefined || text === '') {
    throw new UsageError('which code? Give it, - for standard input, --code-file FILE, or set STINT_ENROLLMENT_CODE.')
  }
  const code = text.trim()
  // Not repeated: with a character missing it is still most of a secret.
  if (/^stint_enroll_[0-9a-f]{16}_[\w-]{43}$/.test(code)) return code
  throw new CommandError('this is no enrolment code: one begins with stint_enroll_ and is a single word, as the admin was shown it')
}

function explain(error: StintError, path: string): Error {
  return new CommandError(`${printable(error.message)}
The key is ${printable(path)}: name another file with --key to make a new one. The code was not used up.`)
}
