import { readFile } from 'node:fs/promises'
import { parseVerifierKey, type NoteVerifier } from '../audit/note.ts'
import { verifyReceipt } from '../audit/receipt.ts'
import { createLogClient } from '../client/log.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { brokerHelp, brokerOf, brokerOptions } from './connection.ts'
import { formatJson } from './terminal.ts'
import { readStart, refuseFile, verifyFile } from './verify-file.ts'
import { describeSections, exitCodeOf, formatSections, type Section } from './verify-report.ts'
import { describeFile, describeReceipt } from './verify-section.ts'

/** `stint audit verify`: whether an export, a receipt or the live log is what was signed. */
export const verifyCommand: Command = {
  name: 'verify',
  summary: 'check an export, a receipt or the live log',
  help: `Usage: stint audit verify FILE --key KEY [--checkpoint KEPT] [options]
       stint audit verify --live --key KEY --checkpoint KEPT [options]

Checks an export of the log (FILE, as stint audit export writes it) or a receipt,
without a broker and without trust in one: hashes every entry again, rebuilds the
tree, and checks the signature, the order of the entries, and that they fit
together. Says what is proven and what is not, and names what is wrong.

Everything rests on the log's public key. Take it once, with stint audit key, and
compare it with what an admin reads to you on the broker's own machine. And keep
a checkpoint now and then, with stint audit checkpoint, where nobody else writes:
only that proves later that nothing was taken away since.

Options:
  --key KEY          the log's public key, name+hash+key, or a file with it
  --checkpoint KEPT  a file with a checkpoint that you kept from before
  --decisions        also make every recorded decision again
  --live             ask the broker whether its log goes on from KEPT
  --save FILE        with --live: keep the newer checkpoint in FILE, if it does
  --json             print the verdict as JSON

Connection, for --live:
${brokerHelp}
Examples:
  stint audit verify log.jsonl --key log.key --checkpoint march.checkpoint
  stint audit verify receipt.json --key log.key
  stint audit verify --live --key log.key --checkpoint march.checkpoint

Exit codes: 0 what could be proven holds, and that is all of FILE and of KEPT;
1 something is wrong or not proven; 2 wrong usage; 3 the broker gave no answer
that can be used, which says nothing about its log.
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('audit verify', args, {
      ...brokerOptions,
      key: { type: 'string' },
      checkpoint: { type: 'string' },
      decisions: { type: 'boolean' },
      live: { type: 'boolean' },
      save: { type: 'string' },
      json: { type: 'boolean' },
    })
    const [path, ...more] = positionals
    const { live = false, decisions = false, save } = values
    if (more.length > 0 || path === '') throw usage('one FILE is checked at a time')
    if (path === undefined && !live) throw usage('which FILE? Give an export or a receipt, or --live')
    if (path === undefined && decisions) throw usage('--decisions needs an export: give its FILE')
    if (save !== undefined && (!live || save === '')) throw usage('--save FILE is for --live')
    if (!live && (values.url !== undefined || values['allow-insecure'] !== undefined)) throw usage('only --live asks a broker')
    const verifier = await readKey(values.key)
    const kept = values.checkpoint === undefined ? undefined : await readText(values.checkpoint)
    if (live && kept === undefined) throw usage('--live holds the log against a checkpoint that you kept: give --checkpoint KEPT')

    const sections: Section[] = []
    if (path !== undefined) sections.push(await verifyPath(path, { verifier, kept, live }, io))
    // Each brings along what the others do without.
    if (path !== undefined && decisions) sections.push(await (await import('./verify-decisions.ts')).verifyDecisions(path, io))
    if (live && kept !== undefined) {
      const { verifyLive } = await import('./verify-live.ts')
      sections.push(await verifyLive({ log: createLogClient(brokerOf(values, io)), verifier, kept, save }))
    }
    io.out(values.json === true ? formatJson(describeSections(sections)) : formatSections(sections))
    return exitCodeOf(sections)
  },
}

interface Held {
  readonly verifier: NoteVerifier
  readonly kept: string | undefined
  readonly live: boolean
}

async function verifyPath(path: string, { verifier, kept, live }: Held, io: Io): Promise<Section> {
  if (!/^\s*\{\s*"receipt"\s*:/.test(await readStart(path))) return describeFile(path, await verifyFile(path, { verifier, kept }, io))
  if (kept !== undefined && !live) throw usage('a receipt cannot be held against a checkpoint: leave --checkpoint out, or add --live')
  return describeReceipt(path, verifyReceipt(parseJson(path, await readText(path)), verifier))
}

function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((error: unknown) => refuseFile(path, error))
}

function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new CommandError(`${path} begins as a receipt, and is no JSON: it is not complete, or was changed`)
  }
}

/** The log's public key from the option, or from the file that it names. */
async function readKey(given: string | undefined): Promise<NoteVerifier> {
  if (given === undefined || given === '') {
    const how = 'stint audit key prints it, once; compare it with what an admin reads out on the machine of the broker'
    throw usage(`--key is needed, the public key of the log, from elsewhere than the file: ${how}`)
  }
  const isKey = /\+[0-9a-f]{8}\+/.test(given)
  const text = isKey ? given : (await readText(given)).trim()
  const verifier = parseVerifierKey(text)
  if (verifier?.kind === 'note') return verifier
  const what = isKey ? 'what --key gives' : `what ${given} holds`
  throw new UsageError(`${what} is no public key of a log: it is one line, name+hash+key, as stint audit key prints it.`)
}

function usage(message: string): UsageError {
  return new UsageError(`${message}. See: stint audit verify --help`)
}
