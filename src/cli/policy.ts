import { BrokerError } from '../kernel/errors.ts'
import { createDecider } from '../policy/decide.ts'
import { kindOfFile, loadPolicySet, type PolicyFiles, type PolicySet } from '../policy/policy-set.ts'
import { runPolicyTests, type PolicyTestResult } from '../policy/policy-test.ts'
import { formatProblem, type PolicyProblem } from '../policy/problem.ts'
import { readPolicyFolder } from '../storage/policy-folder.ts'
import { refusePositionals } from './arguments.ts'
import { parseOptions, UsageError, type Command, type Io } from './command.ts'
import { adminClient, connectionHelp, connectionOptions } from './connection.ts'
import { createGroup } from './group.ts'
import { formatFields, formatJson, formatTable, printable } from './terminal.ts'

const folderDefault = 'policies'

/** `stint policy check`: whether a folder loads as a policy set, without a broker. */
const checkCommand: Command = {
  name: 'check',
  summary: 'say whether a policy folder is sound, and where it is not',
  help: `Usage: stint policy check [DIR] [--json]

Reads the policy folder DIR (default: ${folderDefault}) and checks it as a whole, as
the broker does before it puts a set in force. Needs no broker.

Options:
  --json  print the result as JSON

Examples:
  stint policy check
  stint policy check deploy/policies --json

Exit codes: 0 sound, 1 has problems, 2 wrong usage.
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('policy check', args, { json: { type: 'boolean' } })
    const json = values.json === true
    const loaded = await loadFolder(readFolderArgument('policy check', positionals))
    if ('problems' in loaded) return printProblems(loaded.problems, json, io)
    const { set } = loaded
    io.out(json ? formatJson({ ok: true, ...describeSet(set), problems: [] }) : `ok: ${summarise(set)}\n`)
    return 0
  },
}

/** `stint policy test`: whether the rules say what their tests expect, without a broker. */
const testCommand: Command = {
  name: 'test',
  summary: 'run the tests of a policy folder',
  help: `Usage: stint policy test [DIR] [--json]

Checks the policy folder DIR (default: ${folderDefault}), then runs the tests in
DIR/tests/*.yaml against its rules. Needs no broker. A folder without tests fails.

Options:
  --json  print the results as JSON

Examples:
  stint policy test
  stint policy test deploy/policies --json

Exit codes: 0 all passed, 1 some failed, there are none, or there are problems,
2 wrong usage.
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('policy test', args, { json: { type: 'boolean' } })
    const json = values.json === true
    const loaded = await loadFolder(readFolderArgument('policy test', positionals))
    if ('problems' in loaded) return printProblems(loaded.problems, json, io)
    const { set, files } = loaded
    const run = runPolicyTests(set, createDecider({ slicesMax: 1000, verdictsMax: 1000 }), files)
    if ('problems' in run) return printProblems(run.problems, json, io)
    const failed = run.results.filter((result) => !result.passed).length
    // What tests nothing must not look like a pass: a folder in the wrong place has none either.
    const ok = failed === 0 && run.results.length > 0
    if (json) io.out(formatJson({ ok, ...describeSet(set), tests: run.results.length, failed, results: run.results }))
    else printResults(run.results, failed, io)
    return ok ? 0 : 1
  },
}

/** `stint policy apply`: puts a folder in force. */
const applyCommand: Command = {
  name: 'apply',
  summary: 'put a policy folder in force, as a whole or not at all',
  help: `Usage: stint policy apply [DIR] [options]

Checks the policy folder DIR (default: policies), then sends its rules and its
catalog to the broker, which checks them again and puts them in force at once.
Files of tests are not sent. It replaces whatever is in force and says what that
was; with --expect, only the set that you have seen.

Options:
  --expect HASH  only if the set in force has this hash; "none": only if there is none
  --json         print the result as JSON

${connectionHelp}
Examples:
  stint policy apply
  stint policy apply deploy/policies --expect "$(stint policy show --json | jq -r .hash)"

Exit codes: 0 in force, 1 refused or failed, 2 wrong usage.
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('policy apply', args, {
      ...connectionOptions,
      expect: { type: 'string' },
      json: { type: 'boolean' },
    })
    const folder = readFolderArgument('policy apply', positionals)
    const expected = readExpected(values.expect)
    const json = values.json === true
    const client = adminClient(values, io)
    const loaded = await loadFolder(folder)
    if ('problems' in loaded) return printProblems(loaded.problems, json, io)

    const files = Object.fromEntries([...loaded.files].filter(([path]) => kindOfFile(path) !== 'test'))
    const applied = await client.applyPolicy({ files, ...(expected !== undefined && { expected }) })
    // What both sides call by its hash must be the same set.
    if (applied.hash !== loaded.set.hash) {
      io.err(`The broker names the set ${applied.hash}, this program ${loaded.set.hash}: they are of different versions.\n`)
    }
    if (json) io.out(formatJson(applied))
    else if (applied.changed) {
      const replaced = applied.previous === null ? '' : `, replaces ${printable(applied.previous)}`
      io.out(`in force: ${summarise(loaded.set)}, audit entry ${applied.audit_index}${replaced}\n`)
    } else io.out(`in force already: ${summarise(loaded.set)}\n`)
    return 0
  },
}

/** `stint policy show`: what is in force. */
const showCommand: Command = {
  name: 'show',
  summary: 'show which policy set is in force',
  help: `Usage: stint policy show [--json]

Options:
  --json  print it as JSON

${connectionHelp}
Examples:
  stint policy show
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('policy show', args, { ...connectionOptions, json: { type: 'boolean' } })
    refusePositionals('policy show', positionals)
    const inForce = await adminClient(values, io).getPolicy()
    if (values.json === true) io.out(formatJson(inForce))
    else {
      io.out(
        formatFields([
          ['hash', inForce.hash],
          ['in force since', inForce.in_force_since],
          ['policies', String(inForce.policies)],
          ['tools', String(inForce.tools)],
          ['cedar', inForce.cedar_version],
          ['audit entry', inForce.audit_index === undefined ? undefined : String(inForce.audit_index)],
        ]),
      )
    }
    return 0
  },
}

/** `stint policy check|test|apply|show`. */
export const policyCommand: Command = createGroup({
  name: 'policy',
  summary: 'check, test and apply the rules',
  commands: [checkCommand, testCommand, applyCommand, showCommand],
  examples: `  stint policy check
  stint policy test policies/
  stint policy apply policies/
`,
})

/** The folder that a command is given, or the usual one. */
function readFolderArgument(command: string, positionals: readonly string[]): string {
  const [folder, ...more] = positionals
  if (more.length > 0 || folder === '') throw new UsageError(`at most one folder is taken. See: stint ${command} --help`)
  return folder ?? folderDefault
}

/** Reads and loads a folder. A folder that does not exist is an error; what is wrong within it are problems. */
async function loadFolder(
  folder: string,
): Promise<{ set: PolicySet; files: PolicyFiles } | { problems: readonly PolicyProblem[] }> {
  let files: PolicyFiles
  try {
    files = await readPolicyFolder(folder)
  } catch (error) {
    const problems: unknown = error instanceof BrokerError && error.code === 'policy_invalid' ? error.extra?.['problems'] : undefined
    if (!Array.isArray(problems)) throw error
    // Of readPolicyFolder's making.
    return { problems: problems as PolicyProblem[] }
  }
  const loaded = loadPolicySet(files)
  return 'set' in loaded ? { set: loaded.set, files } : loaded
}

/** Prints problems, one a line, and returns the exit code. */
function printProblems(problems: readonly PolicyProblem[], json: boolean, io: Io): number {
  if (json) io.out(formatJson({ ok: false, problems }))
  else {
    io.out(problems.map((problem) => `${printable(formatProblem(problem))}\n`).join(''))
    io.err(`${countOf(problems.length, 'problem')}\n`)
  }
  return 1
}

/** `4 policies, 2 tools, <hash>`. */
function summarise(set: PolicySet): string {
  return `${countOf(set.policies.length, 'policy', 'policies')}, ${countOf(set.catalog.size, 'tool')}, ${set.hash}`
}

function describeSet(set: PolicySet) {
  return { hash: set.hash, policies: set.policies.length, tools: set.catalog.size, cedar_version: set.cedarVersion }
}

function printResults(results: readonly PolicyTestResult[], failed: number, io: Io): void {
  const rows = results.map((result) => {
    const { passed, file, line, name, expected, actual, reasons, message } = result
    const why = message ?? (reasons.length === 0 ? '' : `by ${reasons.join(', ')}`)
    return [passed ? 'ok' : 'FAILED', `${file}:${line}`, name, passed ? expected : `${expected}, got ${actual}`, why]
  })
  // Not cut to the terminal's width: what failed, and why, stands at the end of the line.
  if (rows.length > 0) io.out(formatTable(['RESULT', 'TEST', 'NAME', 'EXPECTED', 'WHY'], rows, undefined))
  if (rows.length === 0) io.err('There are no tests: write some in tests/*.yaml.\n')
  else io.out(failed === 0 ? `${countOf(rows.length, 'test')} passed\n` : `${failed} of ${countOf(rows.length, 'test')} failed\n`)
}

function countOf(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
}

function readExpected(text: string | undefined): string | null | undefined {
  if (text === undefined) return undefined
  if (text === 'none') return null
  if (!/^[0-9a-f]{64}$/.test(text)) throw new UsageError('--expect takes the 64 hexadecimal digits of a hash, or "none".')
  return text
}
