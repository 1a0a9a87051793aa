import type { LentGrant } from '../client/grant-records.ts'
import { formatDuration } from '../kernel/duration.ts'
import type { Io } from './command.ts'
import type { AgentValues } from './connection.ts'
import { quoteArgument, quoteWord } from './shell.ts'
import { formatInstant, formatJson, printable } from './terminal.ts'

/** `fields`: for people. `env`: lines for a shell. `json`: the whole answer. */
export type LentForm = 'fields' | 'env' | 'json'

/** Prints a credential on standard output, and what a person has to know of it on standard error. */
export function printLent(lent: LentGrant, form: LentForm, values: AgentValues, io: Io): void {
  if (form === 'json') {
    io.out(formatJson(describeLent(lent)))
    return
  }
  io.out(form === 'env' ? formatEnvironment(environmentOf(lent), lent.conceals) : formatCredential(lent.credential))
  // What a shell evaluates is told of only to a person who looks on.
  if (form === 'fields' || io.errColumns !== undefined) io.err(describeLife(lent, values))
}

/** What a program is given to use the credential, and to give it back: `STINT_GRANT` is the grant's id. */
export function environmentOf({ environment, grant }: LentGrant): Readonly<Record<string, string>> {
  return { ...environment, STINT_GRANT: grant }
}

/** This process's own environment with what a program is given, and without what would stand in the way of that. */
export function mixEnvironment(own: Readonly<Record<string, string | undefined>>, lent: LentGrant): Readonly<Record<string, string | undefined>> {
  const kept = Object.entries(own).filter(([name]) => lent.conceals?.includes(name) !== true)
  return { ...Object.fromEntries(kept), ...environmentOf(lent) }
}

/** One variable a line, as a POSIX shell evaluates it, whatever stands in the value; those that are concealed first. */
export function formatEnvironment(environment: Readonly<Record<string, string>>, conceals: readonly string[] = []): string {
  return [...conceals.map((name) => `unset ${name}\n`), ...Object.entries(environment).map(([name, value]) => `export ${name}=${quoteWord(value)}\n`)].join('')
}

/** A value that could not be printed as it is, such as a key of several lines, is written as JSON: nothing of it is lost. */
function formatCredential(credential: LentGrant['credential']): string {
  const width = Math.max(...Object.keys(credential).map((name) => name.length))
  return Object.entries(credential)
    .map(([name, value]) => {
      const text = String(value)
      return `${printable(name).padEnd(width)}  ${printable(text) === text ? text : formatJson(text).trimEnd()}\n`
    })
    .join('')
}

function describeLife({ grant, actions, target, issuedAt, expiresAt, ends, renews, auditIndex }: LentGrant, values: AgentValues): string {
  const life = formatDuration(Math.max(1, Math.round((expiresAt.getTime() - issuedAt.getTime()) / 1000)))
  const what = `${actions.join(' ')}${target === undefined ? '' : ` on ${target}`}`
  return `${printable(what)} for ${life}, until ${formatInstant(expiresAt.toISOString())}: ${grant}, audit entry ${auditIndex}
${renews === undefined ? '' : `It goes on from ${printable(renews)}, which ends at its own time.\n`}When it ends: ${printable(ends.meaning)}
To give it back: ${describeGiveBack(grant, values)}
`
}

/** The command that ends a grant, with the options by which this one was told who asks: else the next would not know. */
export function describeGiveBack(grant: string, values: AgentValues): string {
  const names = (['workload', 'key', 'url'] as const).flatMap((name) => (values[name] === undefined ? [] : [`--${name}`, quoteArgument(values[name])]))
  return ['stint grant give-back', grant, ...names].join(' ')
}

/** The answer as the API writes it. */
function describeLent(lent: LentGrant): Record<string, unknown> {
  const { grant, tool, actions, target, task, issuedAt, expiresAt, renews, ends, credential, environment, conceals, auditIndex } = lent
  return {
    grant,
    tool,
    actions,
    target,
    task,
    issued_at: issuedAt.toISOString(),
    expires_at: expiresAt.toISOString(),
    renews,
    ends,
    credential,
    environment,
    conceals,
    audit_index: auditIndex,
  }
}
