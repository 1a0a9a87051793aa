import { setTimeout } from 'node:timers/promises'
import { BrokerError } from '../kernel/errors.ts'
import { formatProblem, type PolicyProblem } from '../policy/problem.ts'
import { hashPolicyFiles, type PolicyFiles } from '../policy/policy-set.ts'
import { markPolicyFolder, readPolicyFolder } from '../storage/policy-folder.ts'
import { readPolicyInForce } from '../storage/policy-sets.ts'
import { applyPolicy, recordRejection } from './apply-policy.ts'
import type { Broker, Caller } from './broker.ts'

/** How the folder stands to the set in force. */
export type PolicyFolderState = 'in force' | 'not in force: another set stays' | 'cannot be used: the set in force stays'

/** The folder of the configuration, from which a policy set comes into force where one process has the database. */
export interface PolicyFolder {
  /** Takes the folder for the first time. Throws what is wrong with it where no set is in force yet. */
  start(): Promise<void>
  /** Takes the folder if it has changed since it was read last. Costs little where it has not, nothing where it is not followed. */
  look(): Promise<void>
  /** Takes the folder whether it has changed or not, and says what came of it. */
  reload(): Promise<void>
  /** `undefined` where the folder is not followed. */
  state(inForce: string | undefined): PolicyFolderState | undefined
}

export interface PolicyFolderOptions {
  readonly broker: Pick<Broker, 'ledger' | 'database' | 'knowledge' | 'log' | 'meter'>
  readonly folder: string
  /** Whether changes come into force by themselves, and on request. */
  readonly follow: boolean
  /** Whether the folder comes into force at the start also where another set is. */
  readonly applyAtStart: boolean
  /** Between two readings that must agree. */
  readonly settleMs?: number
}

/** What the folder held when it was read: files that need not be sound yet, or why it could not be read as files. */
type Reading = { readonly id: string; readonly files: PolicyFiles } | { readonly id: string; readonly error: BrokerError }

const settleTriesMax = 5

/**
 * Follows the policy folder. A set is taken when two readings agree, so that none is taken half-written; a set that is not
 * sound leaves the one in force (invariant 4). Only a change of the files makes the folder count: a set that an admin has
 * applied since stays in force, over restarts too. On PostgreSQL nothing is applied, for the processes' folders may differ.
 */
export function createPolicyFolder(options: PolicyFolderOptions): PolicyFolder {
  const { broker, folder, follow, applyAtStart, settleMs = 200 } = options
  const { database, log, meter } = broker
  const applies = database.engine === 'sqlite'
  let mark: string | undefined
  let last: Reading | undefined
  let turn: Promise<unknown> = Promise.resolve()

  /** One after the other: what is on request may come while a look is under way. */
  function inTurn(work: () => Promise<void>): Promise<void> {
    const mine = turn.then(work)
    turn = mine.catch(() => undefined)
    return mine
  }

  async function readSettled(): Promise<Reading | undefined> {
    for (let tries = 0; tries < settleTriesMax; tries++) {
      const first = await readOnce(folder)
      await setTimeout(settleMs)
      const second = await readOnce(folder)
      if (first.id === second.id) return second
    }
    return undefined
  }

  /** Puts what was read in force in place of the set that was in force before it was read. */
  async function take(reading: Reading, expected: string | undefined): Promise<void> {
    if (!applies) {
      log.warn('the policy folder is not applied by itself where several processes may share the database: use `stint policy apply`')
      last = reading
      return
    }
    try {
      if ('error' in reading) {
        await recordRejection(broker, reloadCaller, problemsOf(reading.error))
        throw reading.error
      }
      const { hash, changed } = await applyPolicy(broker, reloadCaller, reading.files, { expected })
      meter.count('policy_reloads', { outcome: changed ? 'changed' : 'unchanged' })
      // Who was told of a mistake is told of its end.
      const tell = last !== undefined && 'error' in last ? log.warn : log.info
      tell(changed ? 'the policy folder came into force' : 'the policy folder is what is in force', { policy_set: hash })
      last = reading
    } catch (error) {
      if (!(error instanceof BrokerError) || error.code === 'unavailable') throw error
      meter.count('policy_reloads', { outcome: 'failed' })
      if (error.code === 'conflict') {
        log.warn('another set came into force while the policy folder was read, and stays')
        last = reading
      } else {
        log.error('the policy folder cannot be used; the set in force stays', { policy_set: expected, ...describe(error) })
        last = { id: reading.id, error }
      }
    }
  }

  async function readInForce(): Promise<string | undefined> {
    return (await readPolicyInForce(database.read))?.hash
  }

  return {
    async start() {
      const inForce = await readInForce()
      mark = await markPolicyFolder(folder)
      const reading = await readOnce(folder)
      last = reading
      try {
        if (inForce === undefined || applyAtStart) {
          if ('error' in reading) throw reading.error
          const { hash, changed } = await applyPolicy(broker, startCaller, reading.files, { expected: inForce })
          if (changed) log.info('a policy set came into force', { policy_set: hash, previous: inForce })
        } else if (follow && 'error' in reading) throw reading.error
        else if (follow && reading.id !== inForce) {
          const how = applies ? 'send SIGHUP or use `stint policy apply`' : 'use `stint policy apply`'
          log.warn(`the policy folder is not what is in force, which stays: to put the folder in force, ${how}`, { policy_set: inForce })
        }
      } catch (error) {
        if (inForce === undefined || !(error instanceof BrokerError)) throw error
        last = { id: reading.id, error }
        log.error('the policy folder does not load; the set in force stays', { policy_set: inForce, ...describe(error) })
      }
    },
    look: () =>
      inTurn(async () => {
        if (!follow) return
        const found = await markPolicyFolder(folder)
        if (found === mark) return
        const inForce = await readInForce()
        const reading = await readSettled()
        // Still being written: the next look sees to it.
        if (reading === undefined) return
        // A file that was touched, or a test beside the rules that was changed, is no other set.
        if (reading.id !== last?.id) await take(reading, inForce)
        mark = found
      }),
    reload: () =>
      inTurn(async () => {
        if (!follow) {
          log.warn('the policy folder is not read again: policies.reload says never; use `stint policy apply`')
          return
        }
        const [found, inForce] = [await markPolicyFolder(folder), await readInForce()]
        const reading = await readSettled()
        if (reading === undefined) {
          log.warn('the policy folder is being written to: it is taken once it stays the same')
          return
        }
        await take(reading, inForce)
        mark = found
      }),
    state(inForce) {
      if (!follow || last === undefined) return undefined
      if ('error' in last) return 'cannot be used: the set in force stays'
      return last.id === inForce ? 'in force' : 'not in force: another set stays'
    },
  }
}

const startCaller: Caller = { actor: { kind: 'stint', id: 'start' } }
const reloadCaller: Caller = { actor: { kind: 'stint', id: 'reload' } }

/** The id of files is the name of the set that they make; that of an error is its text. */
async function readOnce(folder: string): Promise<Reading> {
  try {
    const files = await readPolicyFolder(folder)
    return { id: hashPolicyFiles(files), files }
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    return { id: JSON.stringify(problemsOf(error)), error }
  }
}

/** The problems that the error carries, or itself as one of the folder as a whole. */
function problemsOf({ extra, publicMessage }: BrokerError): readonly PolicyProblem[] {
  // Of `readPolicyFolder` and `applyPolicy`, which are the only ones to throw here.
  const problems = extra?.['problems'] as readonly PolicyProblem[] | undefined
  return problems ?? [{ file: '.', line: 1, column: 1, message: publicMessage }]
}

const toldMax = 100

/** For the operator's log: each problem with file, line and column, or what else is wrong. */
function describe(error: BrokerError): { readonly problems: readonly string[] } | { readonly error: string } {
  if (error.extra?.['problems'] === undefined) return { error: error.publicMessage }
  const problems = problemsOf(error)
  const more = problems.length > toldMax ? [`and ${problems.length - toldMax} more`] : []
  return { problems: [...problems.slice(0, toldMax).map(formatProblem), ...more] }
}
