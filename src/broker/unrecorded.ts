import { ConnectorError } from '../connectors/connector.ts'
import { isOver } from '../grant/grant.ts'
import { BrokerError } from '../kernel/errors.ts'
import { findCredential } from '../storage/credentials.ts'
import { findTouched, listTouched } from '../storage/revoked.ts'
import { listWorkloadNames } from '../storage/workloads.ts'
import type { Broker, Caller } from './broker.ts'
import { openHandle } from './end.ts'
import type { RevocationReport, RevocationTarget } from './revoke.ts'

/** A revocation that could not be recorded. */
export interface Unrecorded {
  readonly caller: Caller
  readonly target: RevocationTarget
  readonly reason: string | undefined
}

/** What this process has ended in outside tools while the log could not be written. */
export interface UnrecordedEndings {
  /** Revocations that are recorded once that can be. */
  readonly revocations: Unrecorded[]
  /** Grants whose credential has ended already. */
  readonly ended: Set<string>
}

export function createUnrecordedEndings(): UnrecordedEndings {
  return { revocations: [], ended: new Set() }
}

const revocationsMax = 1_000
const grantsMax = 1_000

/**
 * Runs a revocation; where it cannot be recorded, its credentials are ended in their tools all the same, and the error says
 * so (invariant 1: endings are carried out, and recorded on recovery). A token that Stint signed can only be revoked on record.
 */
export async function endWithoutRecord(broker: Broker, revocation: Unrecorded, record: () => Promise<RevocationReport>): Promise<RevocationReport> {
  try {
    return await record()
  } catch (error) {
    // Held: what this database says is not to be acted on.
    if (!(error instanceof BrokerError) || error.code !== 'unavailable' || broker.ledger.held !== undefined) throw error
    const { revocations } = broker.unrecorded
    if (revocations.length < revocationsMax) revocations.push({ ...revocation, target: asOfNow(revocation.target, broker.ledger.nowMs()) })
    const ended = await endListed(broker, await listUnrecorded(broker, revocation.target))
    const publicMessage =
      ended.length === 0
        ? 'The log cannot be written, so that nothing was revoked: it is tried again by itself while this process lives. Ask again when the log can be written.'
        : `The log cannot be written. ${ended.length} credentials were ended in their tools all the same, which is recorded once it can be; tokens that Stint signed are not revoked yet. Ask again when the log can be written.`
    throw new BrokerError({ code: 'unavailable', publicMessage, extra: { ended_outside: ended }, cause: error })
  }
}

/** What is granted after it was asked for is not meant, however late it is recorded. */
function asOfNow(target: RevocationTarget, nowMs: number): RevocationTarget {
  return 'grant' in target ? target : { ...target, beforeMs: target.beforeMs ?? nowMs }
}

async function listUnrecorded(broker: Broker, target: RevocationTarget): Promise<string[]> {
  const { read } = broker.database
  if ('grant' in target) return [target.grant]
  const { owner, suspend: _, ...selector } = target
  const selectors = owner === undefined ? [selector] : (await listWorkloadNames(read, owner)).map((workload) => ({ ...selector, workload }))
  return listTouched(read, selectors, broker.ledger.nowMs(), grantsMax)
}

async function endListed(broker: Broker, grants: readonly string[]): Promise<string[]> {
  const ended: string[] = []
  for (const grant of grants) if (await endUnclaimed(broker, grant)) ended.push(grant)
  return ended
}

/** Ends a credential in its tool with nothing recorded; whether it has ended by now. Tells of what fails, and never throws. */
export async function endUnclaimed(broker: Broker, id: string): Promise<boolean> {
  if (broker.unrecorded.ended.has(id)) return true
  try {
    const credential = await findCredential(broker.database.read, id)
    if (credential === undefined || isOver(credential.state) || credential.state === 'minting') return false
    const tool = await broker.tools.find(credential.policySet, credential.tool)
    if (tool === undefined) return false
    const handle = credential.handle && openHandle(broker, id, credential.handle)
    const ending = { grant: id, ...(handle && { handle }), ...(credential.reference !== undefined && { reference: credential.reference }) }
    const { status } = await broker.tools.call(tool, (open, signal) => open.revoke(ending, signal))
    if (status === 'ended') broker.unrecorded.ended.add(id)
    return status === 'ended'
  } catch (error) {
    broker.log.warn('a credential was not ended while the log cannot be written', { grant: id, ...(error instanceof ConnectorError && { problem: error.publicMessage }), error })
    return false
  }
}

/**
 * Records what was revoked while the log could not be written; where it still cannot be, tools that did not answer then are
 * told again. `record` throws `unavailable` rather than put a revocation off once more.
 */
export async function recordUnrecorded(broker: Broker, record: (revocation: Unrecorded) => Promise<unknown>): Promise<void> {
  const { revocations, ended } = broker.unrecorded
  for (let first = revocations[0]; first !== undefined; first = revocations[0]) {
    try {
      await record(first)
    } catch (error) {
      if (error instanceof BrokerError && error.code === 'unavailable') {
        for (const { target } of revocations) await endListed(broker, await listUnrecorded(broker, target))
        return
      }
      broker.log.warn('a revocation could not be recorded afterwards', { error })
    }
    revocations.shift()
  }
  for (const id of ended) {
    const touched = await findTouched(broker.database.read, id, broker.ledger.nowMs())
    if (touched === undefined || isOver(touched.state)) ended.delete(id)
  }
}
