import { realpathSync } from 'node:fs'
import { StintError } from '../client/errors.ts'
import type { AgentKey } from '../client/key.ts'
import { parseDuration } from '../kernel/duration.ts'
import { refusePositionals } from './arguments.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { agentClient, agentHelp, agentOptions, keyFile, workloadName } from './connection.ts'
import { createKeyFile, readAlgorithm, readKeyFile, replaceKeyFile } from './key-file.ts'
import { formatFields, formatJson, printable } from './terminal.ts'

/** `stint key rotate`: a new key in place of the agent's own, registered by the old one. */
export const rotateCommand: Command = {
  name: 'rotate',
  summary: 'put a new key in place of the old one, which signs it in',
  help: `Usage: stint key rotate --workload NAME --key FILE [options]

Makes a new key, has it registered by the word of the old one, and puts it in
FILE, in the place of the old one. The old key goes on proving the workload for
the overlap, so that a program which has it in memory can go on; then it ends by
itself. The new key waits in FILE.next until it is registered: if this is
interrupted, run it again.

Options:
  --overlap DURATION  how long the old key is good for, such as 10m; 0 ends it
                      at once; 1h unless given, at most 24h
  --alg ALG           ES256 or Ed25519; that of the old key unless given
  --json              print the result as JSON

${agentHelp}
Examples:
  stint key rotate --workload triage-bot --key triage-bot.key
  stint key rotate --workload triage-bot --key triage-bot.key --overlap 0
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('key rotate', args, {
      ...agentOptions,
      overlap: { type: 'string' },
      alg: { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('key rotate', positionals)
    const overlapSeconds = values.overlap === undefined ? undefined : readOverlap(values.overlap)
    const alg = values.alg === undefined ? undefined : readAlgorithm(values.alg)
    const workload = workloadName(values, io)
    const given = keyFile(values, io)
    const key = await readKeyFile(given)
    if (key === undefined) throw new CommandError(`there is no key file ${given}: an agent's first key is made by stint enroll`)

    // Where a link leads, so that it is not the link that is replaced.
    const path = realpathSync(given)
    const nextPath = `${path}.next`
    const begun = await readKeyFile(nextPath)
    if (begun !== undefined) io.err(`Going on with ${nextPath}, which an earlier rotation has left.\n`)
    // Kept before anything is sent: a key that is registered and lost would lock the agent out when the old one ends.
    const next = begun ?? (await createKeyFile(nextPath, alg ?? key.alg))
    const client = agentClient(values, key, io)
    let until: Date | undefined
    let auditIndex: number | undefined
    try {
      ;({ until, auditIndex } = await client.rotateKey(next, overlapSeconds))
    } catch (error) {
      if (!(error instanceof StintError)) throw error
      // The old key may have ended since an earlier run, whose answer was lost, and the new one be registered.
      const done = error.code === 'invalid_client' && begun !== undefined && (await agentClient(values, next, io).provesWorkload())
      if (!done) {
        const refused = error.code === 'invalid_client' || error.code === 'conflict'
        if (!refused) io.err(`The new key is kept in ${printable(nextPath)}: run this again to go on with it.\n`)
        throw explain(error, { workload, key, path, nextPath })
      }
    }
    await replaceKeyFile(nextPath, path, next.kid)

    if (values.json === true) {
      io.out(formatJson({ workload, kid: next.kid, replaces: key.kid, until: until?.toISOString(), key_file: path, audit_index: auditIndex }))
      return 0
    }
    printRotation({ workload, key, next, path, until, auditIndex }, io)
    return 0
  },
}

interface Done {
  readonly workload: string
  readonly key: AgentKey
  readonly next: AgentKey
  readonly path: string
  readonly until: Date | undefined
  readonly auditIndex: number | undefined
}

function printRotation({ workload, key, next, path, until, auditIndex }: Done, io: Io): void {
  io.out(
    formatFields([
      ['workload', workload],
      ['key', next.kid],
      ['key file', path],
      ['replaces', key.kid],
      ['until', until === undefined ? 'it has ended' : until.toISOString()],
      ['audit entry', auditIndex === undefined ? undefined : String(auditIndex)],
    ]),
  )
  if (until !== undefined) io.err(`A program that has read the old key must read ${printable(path)} again before ${until.toISOString()}.\n`)
}

function readOverlap(text: string): number {
  const seconds = /^0s?$/.test(text) ? 0 : parseDuration(text)
  if (seconds === undefined || seconds > 86_400) throw new UsageError('--overlap must be 0 or a duration such as 10m, at most 24h.')
  return seconds
}

interface Attempt {
  readonly workload: string
  readonly key: AgentKey
  readonly path: string
  readonly nextPath: string
}

/** The broker says to strangers only that they are (invariant 10); what it could be is no secret. */
function explain(error: StintError, { workload, key, path, nextPath }: Attempt): Error {
  if (error.code === 'invalid_client') {
    return new CommandError(`${printable(error.message)}
Nothing was changed. Is ${printable(path)} (key ${key.kid}) still a key of ${printable(workload)}, and the workload active?
An admin sees: stint workload show ${printable(workload)}
If the key has ended, the agent enrols anew: stint workload enroll ${printable(workload)}`)
  }
  if (error.code !== 'conflict') return error
  return new CommandError(`${printable(error.message)}
Nothing was changed; the new key is left in ${printable(nextPath)}. If that key is the one that cannot be taken, remove the file.`)
}
