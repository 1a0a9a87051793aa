import { hash } from 'node:crypto'
import type { Kysely } from 'kysely'
import { ConnectorError, type Effect, type Minted, type OpenTool } from '../connectors/connector.ts'
import { clockMsMax, leaseMs } from '../grant/lifetime.ts'
import type { GrantRequest } from '../grant/request.ts'
import { formatTime } from '../kernel/clock.ts'
import { formatDuration } from '../kernel/duration.ts'
import { BrokerError } from '../kernel/errors.ts'
import { newId } from '../kernel/ids.ts'
import { readReference } from '../connectors/secret-reference.ts'
import { lendsValue, type Tool, type ToolAction } from '../policy/catalog.ts'
import { findCredential, handlePlace, insertIntent, noteCredential, stepCredential, type CredentialChange, type EndCause, type StoredCredential } from '../storage/credentials.ts'
import { findGrant } from '../storage/grants.ts'
import { noteLent } from '../storage/rotations.ts'
import type { Place } from '../storage/change.ts'
import type { Schema } from '../storage/schema.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { openUndo } from './claim.ts'
import { endCredential } from './end.ts'
import { describeGrant } from './ending.ts'
import type { Asked, Decided, Granted, Prepared } from './request.ts'
import { toolError } from './tool-error.ts'

/** A mint that is on record and that nothing outside was asked for yet. */
export interface Intent {
  readonly intent: string
  readonly workload: string
  readonly owner: string
  readonly request: GrantRequest
  readonly requestId: string
  readonly issuedAtMs: number
  readonly expiresAtMs: number
  readonly effect: Effect
  readonly delaySeconds?: number
  readonly renews?: string
}

/** Prepares the record that something is about to be made outside: the grant in state `minting`, leased to this process. */
export function prepareIntent(broker: Broker, { principal: { workload }, policySetHash, request, ask }: Decided, asked: Asked): Prepared {
  const { tool, actions, target, task } = request
  const nowMs = broker.ledger.nowMs()
  // What would end the credential could not be kept.
  broker.sealingKeys.checkSealing()
  const id = newId('grant', nowMs, broker.random)
  const expiresAtMs = nowMs + request.ttlSeconds * 1000
  const renews = ask.renewal && { renews: ask.renewal.first }
  let open: OpenTool
  try {
    open = broker.tools.open(tool)
  } catch (error) {
    throw toolError(error)
  }
  const { effect, denying, delaySeconds } = open
  const also = ask.guard?.(workload.name).also?.(id)
  return {
    change: {
      grant: {
        id,
        workload: workload.name,
        tool: tool.name,
        actions: JSON.stringify(actions),
        target: target ?? null,
        task: task ?? null,
        audience: tool.audience ?? '',
        expires_at: formatTime(expiresAtMs),
      },
      events: [{ type: 'grant.minting', ...asked, ...renews, grant: id, connector: tool.connector, expires_at: formatTime(expiresAtMs), ends: effect }],
      async also(tx, place) {
        await insertIntent(tx, {
          grant: id,
          tool: tool.name,
          workload: workload.name,
          connector: tool.connector,
          policySet: policySetHash,
          effect,
          owner: broker.processId,
          leaseUntilMs: place.timeMs + leaseMs,
          ...(denying && { denying: { list: denying.list, untilMs: place.timeMs + denying.secondsMax * 1000 + clockMsMax } }),
          ...(delaySeconds !== undefined && { delaySeconds }),
        })
        await also?.(tx, place)
      },
    },
    answer: ({ timeMs }: Place) => ({ intent: id, workload: workload.name, owner: workload.owner.team, request, requestId: ask.requestId, issuedAtMs: timeMs, expiresAtMs, effect, ...(delaySeconds !== undefined && { delaySeconds }), ...renews }),
  }
}

/**
 * Makes the credential of an intent and records it before it is given out (invariants 1 and 2). Whatever goes wrong leaves
 * either nothing alive outside, or a record by which the sweeper ends it. Throws `tool_failed`, `tool_unavailable`,
 * `conflict` where the grant was revoked meanwhile, and `unavailable` where the log cannot be written.
 */
export async function mintCredential(broker: Broker, intent: Intent): Promise<Granted> {
  const { request } = intent
  const { tool } = request
  await broker.pass('intent_stored', intent.intent)
  let minted: Minted
  try {
    minted = await broker.tools.call(tool, async (open, signal) => {
      const minting = open.mint(
        {
          grant: intent.intent,
          workload: intent.workload,
          owner: intent.owner,
          ...(request.task !== undefined && { task: request.task }),
          actions: request.actions.map((name) => actionOf(tool, name)),
          ...(request.target !== undefined && { target: request.target }),
          nowMs: intent.issuedAtMs,
          expiresAtMs: intent.expiresAtMs,
        },
        signal,
      )
      minting.catch(() => undefined)
      await broker.pass('outside_called', intent.intent)
      return minting
    })
  } catch (error) {
    throw await recordFailure(broker, intent, error instanceof ConnectorError ? error : new ConnectorError({ outcome: 'unknown', publicMessage: `The tool ${tool.name} failed.`, cause: error }))
  }
  await broker.pass('outside_answered', intent.intent)
  const { status, index } = await recordMinted(broker, intent, minted)
  await broker.pass('outcome_stored', intent.intent)
  if (status === 'active') {
    broker.pace.countLent(tool.name)
    broker.meter.count('credentials_lent', { tool: tool.name })
    return describeMinted(intent, minted, intent.effect, index)
  }
  // Revoked, completed or expired while it was being made: undone now, and by the sweeper if that fails.
  if (status === 'ending') await endCredential(broker, intent.intent).catch((error: unknown) => {
    broker.log.warn('a credential that came too late was not ended at once: the sweeper goes on', { grant: intent.intent, error })
  })
  throw new BrokerError({ code: 'conflict', publicMessage: `The grant ${intent.intent} was ended while it was being made: ask again if it is still needed.` })
}

function actionOf({ name: tool, actions }: Tool, name: string): ToolAction {
  const action = actions.get(name)
  if (action === undefined) throw new Error(`the tool ${tool} has no action ${name}`)
  return action
}

/** Makes it active, if it may still be, or hands over what was made to be ended. Where that cannot be recorded, it is ended here. */
async function recordMinted(broker: Broker, intent: Intent, minted: Minted): Promise<{ status: 'active' | 'ending' | 'over'; index: number }> {
  const { sealer, processId } = broker
  const id = intent.intent
  try {
    const known: CredentialChange = {
      ...(minted.handle && { handle: sealer.seal(minted.handle.reveal(), handlePlace(id)) }),
      ...(minted.reference !== undefined && { reference: minted.reference }),
      ...(minted.token && { tokenHash: hash('sha256', minted.token.reveal(), 'hex') }),
      ...(minted.diesAtMs !== undefined && { diesAtMs: minted.diesAtMs, denyUntilMs: minted.diesAtMs + clockMsMax }),
    }
    const { result, index } = await commit<'active' | 'ending' | 'over'>(broker, {
      async apply(tx, { timeMs }) {
        const grant = await findGrant(tx, id)
        const credential = await findCredential(tx, id)
        if (grant === undefined || credential === undefined) throw new Error(`the intent of the grant ${id} is not there`)
        const mine = credential.owner === processId && credential.state === 'minting'
        if (mine && grant.revokedIndex === undefined && grant.expiresAtMs > timeMs) {
          await stepCredential(tx, credential, 'minted', { ...known, owner: null, leaseUntilMs: null, dueAtMs: Math.min(grant.expiresAtMs, minted.diesAtMs ?? Infinity) })
          const dies = minted.diesAtMs === undefined ? {} : { dies_at: formatTime(minted.diesAtMs) }
          const reference = minted.reference === undefined ? {} : { reference: minted.reference }
          if (minted.reference !== undefined && lendsValue(credential.connector)) await noteLent(tx, grant.tool, readReference(minted.reference).version)
          const cause = causedBy({ actor: { kind: 'workload', id: grant.workload }, requestId: intent.requestId })
          return { result: 'active', raisesEpoch: false, events: [{ type: 'grant.activated', ...cause, ...describeGrant(grant), ...reference, ...dies }] }
        }
        const cause = grant.revokedIndex === undefined ? 'expired' : 'revoked'
        // A value that was there before is nobody's for this: there is nothing to wait for.
        const { reference, ...rest } = known
        const made = reference !== undefined && !lendsValue(credential.connector) ? known : rest
        return { result: await handOver(tx, credential, cause, { ...made, ...nobodys, dueAtMs: timeMs }), unrecorded: 'housekeeping' }
      },
    })
    if (result === 'over') await endUnrecorded(broker, intent, minted)
    return { status: result, index }
  } catch (error) {
    // Nothing may be given out, and this process alone knows what would end it.
    await endUnrecorded(broker, intent, minted)
    throw error
  }
}

const nobodys = { owner: null, leaseUntilMs: null } as const

/**
 * Leaves what was made to be ended: `ending`. Where the grant was ended for good by somebody who found nothing there yet,
 * after this process had slept through its lease: `over`.
 */
async function handOver(tx: Kysely<Schema>, credential: StoredCredential, cause: EndCause, change: CredentialChange): Promise<'ending' | 'over'> {
  if (credential.state === 'ending') {
    await noteCredential(tx, credential.grant, change)
    return 'ending'
  }
  const next = await stepCredential(tx, credential, 'end_ordered', { ...change, cause: credential.state === 'unknown' ? 'undone' : cause })
  return next === 'ending' ? 'ending' : 'over'
}

const undoTriesMax = 3

/** Ends what was just made without a record of it: it never was anybody's. What cannot be ended is told to the operator. */
async function endUnrecorded(broker: Broker, { intent: grant, request: { tool } }: Intent, minted: Minted): Promise<void> {
  const ending = { grant, ...(minted.handle && { handle: minted.handle }), ...(minted.reference !== undefined && { reference: minted.reference }) }
  for (let tries = 1; ; tries++) {
    try {
      await broker.tools.call(tool, (open, signal) => open.revoke(ending, signal))
      return
    } catch (error) {
      if (tries < undoTriesMax) continue
      broker.log.error('a credential that nobody has could not be ended', { grant, tool: tool.name, reference: minted.reference, error })
      return
    }
  }
}

/** Records that a mint came to nothing, or that nobody knows what it came to; returns what the caller is told. */
async function recordFailure(broker: Broker, { intent: id, request: { tool } }: Intent, error: ConnectorError): Promise<BrokerError> {
  const detail = error.publicMessage
  broker.log.warn('a credential was not made', { grant: id, tool: tool.name, outcome: error.outcome, error })
  if (error.outcome === 'unknown') {
    // The tool may still be at work: the sweeper undoes it once the lease is over, as it does when this process dies.
    await commit<void>(broker, {
      async apply(tx) {
        await noteCredential(tx, id, { problem: detail })
        return { result: undefined, unrecorded: 'housekeeping' }
      },
    }).catch(() => undefined)
    return toolError(error, `Whether anything was made is not known; if so, ${describeUndo(broker, tool)}. Ask again.`)
  }
  await commit<void>(broker, {
    async apply(tx, { timeMs }) {
      const [grant, credential] = [await findGrant(tx, id), await findCredential(tx, id)]
      if (grant === undefined || credential === undefined) throw new Error(`the intent of the grant ${id} is not there`)
      const step = credential.state === 'ending' ? (credential.cause === 'expired' ? 'end_expired' : 'end_revoked') : 'mint_failed'
      if (credential.owner !== broker.processId) return { result: undefined, unrecorded: 'nothing changed' }
      const next = await stepCredential(tx, credential, step, { problem: detail, endedAtMs: timeMs })
      if (next === undefined) return { result: undefined, unrecorded: 'nothing changed' }
      return { result: undefined, raisesEpoch: false, events: [{ type: 'grant.failed', ...causedBy(schedule), ...describeGrant(grant), detail }] }
    },
  }).catch((failure: unknown) => {
    broker.log.warn('that a mint came to nothing was not recorded: the sweeper goes on', { grant: id, error: failure })
  })
  return toolError(error)
}

function describeUndo(broker: Broker, tool: Tool): string {
  const undo = openUndo(broker, tool)
  return undo === 'by_grant' ? 'it is undone' : `it was given to nobody, and ends by itself within ${formatDuration(undo.livesSecondsMax)}`
}

const schedule: Caller = { actor: { kind: 'stint', id: 'mint' } }

function describeMinted(intent: Intent, minted: Minted, effect: Effect, auditIndex: number): Granted {
  return {
    grant: intent.intent,
    request: intent.request,
    issuedAtMs: intent.issuedAtMs,
    expiresAtMs: Math.min(intent.expiresAtMs, minted.diesAtMs ?? Infinity),
    effect,
    ...(intent.delaySeconds !== undefined && { delaySeconds: intent.delaySeconds }),
    ...(intent.renews !== undefined && { renews: intent.renews }),
    credential: minted.credential,
    environment: minted.environment,
    ...(minted.conceals && { conceals: minted.conceals }),
    ...(minted.token && { token: minted.token }),
    ...(minted.diesAtMs !== undefined && { diesAtMs: minted.diesAtMs }),
    auditIndex,
  }
}
