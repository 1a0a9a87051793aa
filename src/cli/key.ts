import { publicJwks } from '../client/key.ts'
import { readSingle } from './arguments.ts'
import { CommandError, parseOptions, type Command } from './command.ts'
import { createGroup } from './group.ts'
import { createKeyFile, readAlgorithm, readKeyFile } from './key-file.ts'
import { rotateCommand } from './key-rotate.ts'
import { formatJson } from './terminal.ts'

const createCommand: Command = {
  name: 'create',
  summary: 'make a new private key and print its public half',
  help: `Usage: stint key create FILE [--alg ES256|Ed25519] [--json]

Makes a new private key in FILE (mode 0600; a file that exists is never
overwritten) and prints the public key as a JWKS, to be registered. The private
key never leaves the machine: run this where the agent runs.

Options:
  --alg ALG  ES256 (default) or Ed25519
  --json     accepted for uniformity: the output is JSON in any case

Examples:
  stint key create triage-bot.key > triage-bot.jwks.json
  stint key create triage-bot.key --alg Ed25519 \\
    | stint workload add-key triage-bot --jwks -
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('key create', args, { alg: { type: 'string' }, json: { type: 'boolean' } })
    const path = readSingle('key create', positionals, 'the file for the key')
    const key = await createKeyFile(path, readAlgorithm(values.alg))
    io.err(`Made the private key ${path}, id ${key.kid}.\n`)
    io.out(formatJson(publicJwks(key)))
    return 0
  },
}

const publicCommand: Command = {
  name: 'public',
  summary: 'print the public half of a key',
  help: `Usage: stint key public FILE [--json]

Prints the public half of the private key in FILE as a JWKS: what an admin needs
to register the workload.

Options:
  --json  accepted for uniformity: the output is JSON in any case

Examples:
  stint key public triage-bot.key > triage-bot.jwks.json
`,
  async run(args, io) {
    const { positionals } = parseOptions('key public', args, { json: { type: 'boolean' } })
    const path = readSingle('key public', positionals, 'the file with the key')
    const key = await readKeyFile(path)
    if (key === undefined) throw new CommandError(`there is no key file ${path}: make one with stint key create ${path}`)
    io.out(formatJson(publicJwks(key)))
    return 0
  },
}

/** `stint key create|public|rotate`. */
export const keyCommand: Command = createGroup({
  name: 'key',
  summary: "Make a workload's key; show its public half; replace it",
  commands: [createCommand, publicCommand, rotateCommand],
  examples: `  stint key create triage-bot.key > triage-bot.jwks.json
  stint key public triage-bot.key
  stint key rotate --workload triage-bot --key triage-bot.key
`,
})
