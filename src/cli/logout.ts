import { createAdminClient } from '../client/admin.ts'
import { StintError } from '../client/errors.ts'
import { systemClock } from '../kernel/clock.ts'
import { refusePositionals } from './arguments.ts'
import { parseOptions, type Command } from './command.ts'
import { brokerHelp, brokerOf, brokerOptions } from './connection.ts'
import { readSession, removeSession } from './session-file.ts'
import { formatJson } from './terminal.ts'

/** `stint logout`: ends the session of `stint login`. */
export const logoutCommand: Command = {
  name: 'logout',
  summary: 'end the session that stint login began',
  help: `Usage: stint logout [--json]

Ends your session at the broker, at once and everywhere, and removes what is
kept of it. Where the broker cannot be reached, nothing is removed: try again.

Options:
  --json  print the outcome as JSON

Connection:
${brokerHelp}
Examples:
  stint logout
  stint logout --url https://stint.example.com
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('logout', args, { ...brokerOptions, json: { type: 'boolean' } })
    refusePositionals('logout', positionals)
    const broker = brokerOf(values, io)
    const origin = broker.url
    const saved = readSession(origin, io)
    const live = saved !== undefined && saved.expiresAtMs > systemClock.nowMs()
    const ended = live && (await endSession(broker, saved.credential))
    if (saved !== undefined) removeSession(origin, io)
    if (values.json === true) io.out(formatJson({ ended }))
    else io.out(ended ? `Signed out at ${origin}.\n` : `There was no live session at ${origin}.\n`)
    return 0
  },
}

/** Whether the session was live. */
async function endSession(broker: { readonly url: string; readonly allowInsecure: boolean }, credential: string): Promise<boolean> {
  try {
    await createAdminClient({ ...broker, token: credential }).endOwnSession()
    return true
  } catch (error) {
    if (error instanceof StintError && error.code === 'unauthenticated') return false
    throw error
  }
}
