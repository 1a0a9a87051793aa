import { setTimeout as sleep } from 'node:timers/promises'
import type { AgentClient } from '../client/agent.ts'
import type { GrantRequest } from '../client/grant-records.ts'
import type { Io } from './command.ts'
import type { AgentValues } from './connection.ts'
import { describeEnded, isOver } from './ended-grants.ts'
import { describeGiveBack, mixEnvironment } from './grant-print.ts'
import { isPassing, keepRenewed, type HeldGrant } from './grant-renewal.ts'
import { exitCodeOfSignal, runChild } from './run-child.ts'
import { formatInstant, printable } from './terminal.ts'

/** A command that is to run with a credential. */
export interface GrantedCommand {
  readonly file: string
  readonly args: readonly string[]
  /** Whether the credential is renewed while the command runs, where that keeps it the same. */
  readonly renew: boolean
}

const triesMax = 3
const pauseMs = 1_000

/**
 * Runs a command with a credential in its environment, and gives that back when the command ends, however it ends. Returns the
 * command's exit code: what goes wrong at the end is told, and changes nothing about how the command went.
 */
export async function runWithGrant(client: AgentClient, request: GrantRequest, command: GrantedCommand, values: AgentValues, io: Io): Promise<number> {
  io.outliveReaders?.()
  const signals = holdSignals(io)
  try {
    // Before the request: the grant's life begins after it, so that what is counted from here ends no later.
    const askedAtMs = performance.now()
    const lent = await client.requestGrant(request)
    const held: HeldGrant = { lent, expiresAt: lent.expiresAt }
    const giveBackOne = (grant: string, expiresAt: Date): Promise<void> => giveBack(client, grant, expiresAt, values, io)
    const first = signals.begin()
    if (first !== undefined) {
      await giveBackOne(lent.grant, held.expiresAt)
      return exitCodeOfSignal(first)
    }
    const stop = new AbortController()
    const renewing = command.renew ? keepRenewed(client, held, { ttlSeconds: request.ttlSeconds, askedAtMs, signal: stop.signal, giveBack: giveBackOne }, io) : undefined
    const env = mixEnvironment(io.env, lent)
    const code = await runChild({ file: command.file, args: command.args, env, onFailure: (message) => io.err(`stint: ${message}\n`) })
    stop.abort()
    await giveBackOne(lent.grant, held.expiresAt)
    // A renewal that was under way may have made another credential, which it gives back itself.
    await renewing
    return code
  } finally {
    signals.release()
  }
}

/** Keeps signals from ending this process while it has something to give back, or is about to. */
function holdSignals(io: Io): { begin(): NodeJS.Signals | undefined; release(): void } {
  const held = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  let first: NodeJS.Signals | undefined
  let asking = true
  const hold = (signal: NodeJS.Signals): void => {
    if (asking && first === undefined) io.err('stint: waiting for the answer, to give back what it brings (Ctrl-\\ does not wait for it)\n')
    first ??= signal
  }
  for (const signal of held) process.on(signal, hold)
  return {
    begin() {
      asking = false
      return first
    },
    release() {
      for (const signal of held) process.off(signal, hold)
    },
  }
}

async function giveBack(client: AgentClient, grant: string, expiresAt: Date, values: AgentValues, io: Io): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      const ended = await client.giveBackGrant(grant)
      if (!isOver(ended)) io.err(`stint: ${grant} was given back: ${printable(describeEnded(ended))}\n`)
      return
    } catch (error) {
      if (tries < triesMax && isPassing(error)) {
        await sleep(pauseMs)
        continue
      }
      const why = error instanceof Error ? printable(error.message) : 'for an unknown reason'
      io.err(`stint: ${grant} could not be given back: ${why}\nIt lives until ${formatInstant(expiresAt.toISOString())}, or until: ${describeGiveBack(grant, values)}\n`)
      return
    }
  }
}
