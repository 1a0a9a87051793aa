import { setTimeout } from 'node:timers/promises'
import type { Kysely } from 'kysely'
import type { Actor } from '../audit/event.ts'
import { readAccessToken } from '../crypto/access-token.ts'
import { grantState } from '../grant/grant.ts'
import { judgeStanding, type Principal } from '../identity/authenticate.ts'
import { parseCredential, secretMatches } from '../identity/credential.ts'
import { operatorStatus, type Operator } from '../identity/operator.ts'
import type { RefusalReason } from '../identity/refusal.ts'
import { keyStatus, spiffeId } from '../identity/workload.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { ReplayMark } from '../storage/engine.ts'
import { findGrant } from '../storage/grants.ts'
import { findProofKid } from '../storage/audit-events.ts'
import { findOperator } from '../storage/operators.ts'
import { findWorkload } from '../storage/workloads.ts'
import type { CallbackChange, Recorded } from '../storage/change.ts'
import type { Ledger } from '../storage/ledger.ts'
import type { Schema } from '../storage/schema.ts'
import type { Broker } from './broker.ts'
import type { View } from './knowledge.ts'
import { recogniseSession } from './sessions.ts'

/** What a workload sent to prove who it is. */
export interface ClientCredentials {
  /** RFC 7523 §2.2 `client_assertion`; absent when it was not sent, or not in the one accepted way. */
  readonly assertion: string | undefined
  /** RFC 6749 §2.3.1 `client_id`, optional beside an assertion: if sent, it must be the assertion's subject. */
  readonly clientId?: string
  /** RFC 6750 §2.1: instead of an assertion, a token that Stint issued to the workload for itself; where a route takes one. */
  readonly token?: string
  /** Told the workload's name once the assertion was accepted and spent. */
  readonly onProven?: (workload: string) => void
}

const attemptsMax = 8

/**
 * Authenticates a workload and runs `act` with it, again from the start whenever the epoch has moved before the commit
 * (invariant 13). `act` returns what the ledger made of its change, which must spend the principal's assertion.
 * Throws `invalid_client`, the same for every reason (invariant 10), and `rate_limited` where the workload asks too often.
 */
export async function withWorkload<R>(
  broker: Broker,
  credentials: ClientCredentials,
  act: (principal: Principal, view: View) => Promise<Recorded<R>>,
): Promise<R> {
  const refuse = createRefuser(invalidClient)
  let counted = false
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const view = attempt === 0 ? await broker.knowledge.current() : await broker.knowledge.refresh()
    const principal = await proveWorkload(broker, credentials, view, refuse)
    if (principal === 'outdated') continue
    if (!counted) takeShare(broker, principal)
    counted = true
    const outcome = await act(principal, view)
    switch (outcome.status) {
      case 'recorded':
        credentials.onProven?.(principal.workload.name)
        return outcome.result
      case 'epoch_moved':
        continue
      case 'replayed':
      case 'late':
        // Whoever sends again what somebody else has sent before uses up nothing of what is the workload's.
        broker.workloadLimit.giveBack(principal.workload.name)
        broker.refusals.note('workload', outcome.status === 'late' ? 'expired' : 'replayed', principal.workload.name)
        return refuse()
    }
  }
  throw new BrokerError({
    code: 'unavailable',
    publicMessage: 'Registry or policy change faster than this request can be decided. Try again shortly.',
    detail: `the epoch moved ${attemptsMax} times`,
  })
}

/**
 * Counts a request for the workload that has proven itself, for anybody could use up the share of another otherwise. One
 * too many is refused before anything is committed: its assertion is not spent, and it costs the log nothing but its
 * place in the count of the minute.
 */
function takeShare({ workloadLimit, refusals }: Broker, { workload: { name } }: Principal): void {
  const retryAfterSeconds = workloadLimit.waitSeconds(name)
  if (retryAfterSeconds !== undefined) {
    refusals.noteLimited(name)
    const publicMessage = `This workload asks too often. Try again in ${retryAfterSeconds} s; the assertion may be sent again.`
    throw new BrokerError({ code: 'rate_limited', publicMessage, retryAfterSeconds })
  }
  workloadLimit.spend(name)
}

async function proveWorkload(
  broker: Broker,
  { assertion, clientId, token }: ClientCredentials,
  view: View,
  refuse: () => Promise<never>,
): Promise<Principal | 'outdated'> {
  const { authenticate, issuer, trustDomain, database, ledger, knowledge, refusals } = broker
  if (token !== undefined) {
    const shown = await readOwnToken(broker, view, token)
    if ('workload' in shown) return shown
    if (!(await knowledge.isNewest(view))) return 'outdated'
    refusals.note('workload', shown.reason, shown.claimed)
    return refuse()
  }
  if (assertion === undefined) {
    refusals.note('workload', 'assertion_missing')
    return refuse()
  }
  let remembered: string | undefined
  const result = await authenticate(assertion, {
    issuer,
    trustDomain,
    nowMs: ledger.nowMs(),
    proofsFromMs: view.proofsFromMs,
    findWorkload(name) {
      if (view.remembersWorkload(name)) remembered = name
      return view.findWorkload(name)
    },
  })
  if (result.ok && (clientId === undefined || clientId === spiffeId(trustDomain, result.principal.workload.name))) return result.principal
  // Under load the trips to the database outlast the fixed time of a refusal: a name that is remembered, and so exists,
  // must not be refused after fewer of them than one that does not.
  if (remembered !== undefined) await findWorkload(database.read, remembered)
  // A refusal is not committed, so that nothing else would notice that this process was behind.
  if (!(await knowledge.isNewest(view))) return 'outdated'
  if (result.ok) refusals.note('workload', 'client_id_mismatch', result.principal.workload.name)
  else refusals.note('workload', result.reason, result.workload)
  return refuse()
}

/** Every refusal is answered this long after the request began to be looked at, or later under load. */
const refusalMs = 20

/**
 * Makes the one way to refuse a stranger: it throws `error`, but not before a fixed time has passed, so that the time
 * does not tell a name that had to be looked up from one that was remembered, nor a replay from a wrong key (invariant 10).
 */
export function createRefuser(error: () => BrokerError): () => Promise<never> {
  const beganMs = performance.now()
  return async () => {
    const restMs = beganMs + refusalMs - performance.now()
    if (restMs > 0) await setTimeout(restMs)
    throw error()
  }
}

/** Refuses a request that shows no proof at all, before anything of its body is read. */
export function refuseUnproven({ refusals }: Pick<Broker, 'refusals'>): Promise<never> {
  refusals.note('workload', 'assertion_missing')
  return createRefuser(invalidClient)()
}

function invalidClient(): BrokerError {
  return new BrokerError({
    code: 'invalid_client',
    publicMessage: 'Client authentication failed. Send a fresh client assertion, signed with a registered key of an active workload.',
  })
}

/** Whom a token is for with which a workload asks Stint itself: the `audience` of the catalog's tool for that. */
export const ownAudience = 'urn:stint:broker'

/** The workload to which Stint issued this token for asking for grants, if it is alive. */
async function readOwnToken(
  { issuer, trustDomain, database, ledger }: Broker,
  { keyring, findWorkload, policySet }: View,
  token: string,
): Promise<Principal | { readonly reason: RefusalReason; readonly claimed?: string }> {
  const nowMs = ledger.nowMs()
  const claims = await readAccessToken(token, { issuer, verificationKey: (kid) => keyring.verificationKey(kid, nowMs) })
  const tool = policySet && [...policySet.catalog.values()].find(({ audience }) => audience === ownAudience)
  const mayAsk = claims?.aud === ownAudience && tool !== undefined && claims.scope.split(' ').includes(`${tool.name}:grants`)
  const grant = mayAsk ? await findGrant(database.read, claims.jti) : undefined
  // A token for one target is for less than this, whatever it was meant for.
  if (grant === undefined || grant.target !== undefined) return { reason: 'token_malformed' }
  const refuse = (reason: RefusalReason) => ({ reason, claimed: grant.workload })
  if (grantState(grant, nowMs) !== 'active') return refuse('token_ended')
  const workload = await findWorkload(grant.workload)
  // What a key has given ends with it: who takes a key away means whatever came of it, too.
  const kid = await findProofKid(database.read, grant.issuedIndex)
  const key = workload?.keys.find((one) => one.kid === kid)
  if (workload !== undefined && (key === undefined || keyStatus(key, nowMs) === 'removed')) return refuse('key_removed')
  const reason = workload === undefined ? 'workload_unknown' : judgeStanding(workload, nowMs)
  if (workload === undefined || reason !== undefined || claims?.sub !== spiffeId(trustDomain, workload.name)) return refuse(reason ?? 'token_malformed')
  return { workload, proof: 'stint_token', grant: grant.id }
}

/**
 * Whether what this principal proved still holds at the commit: the end of the grant behind a token raises no epoch. Asked
 * in the transaction, by whatever a workload may ask for with a token.
 */
export async function stillProven(tx: Kysely<Schema>, { grant }: Principal, timeMs: number): Promise<boolean> {
  if (grant === undefined) return true
  const found = await findGrant(tx, grant)
  return found !== undefined && grantState(found, timeMs) === 'active'
}

/** The mark that spends the assertion of this principal; none for one who showed a token, which is good for its time. */
export function markOf({ assertion }: Principal): ReplayMark | undefined {
  return assertion && { id: assertion.replayId, expiresAtMs: assertion.expiresAtMs }
}

/** How an event says by what the principal proved itself. */
export function proofOf({ kid, grant }: Principal): { readonly proof_kid?: string; readonly proof_grant?: string } {
  return { ...(kid !== undefined && { proof_kid: kid }), ...(grant !== undefined && { proof_grant: grant }) }
}

export function actorOf({ workload }: Principal): Actor {
  return { kind: 'workload', id: workload.name }
}

/** The operator whose credential this is. Throws `unauthenticated`, the same for every reason (invariant 10). */
export async function authenticateOperator(broker: Broker, credential: string): Promise<Operator> {
  const refuse = createRefuser(unauthenticated)
  const found = await recogniseOperator(broker, broker.database.read, credential, broker.ledger.nowMs())
  if (typeof found !== 'string') return found
  broker.refusals.note('operator', found)
  return refuse()
}

/**
 * The broker as the holder of this credential may use it: a change by callback commits only while the credential still
 * proves an operator, which is looked up once more in the change's own transaction (invariant 13). So what an operator had
 * under way when it was revoked does not come after. Throws `unauthenticated`.
 */
export function actAsOperator(broker: Broker, credential: string): Broker {
  const { ledger, refusals } = broker
  async function transact<R>(change: CallbackChange<R>): Promise<Recorded<R>> {
    let found: Operator | RefusalReason | undefined
    try {
      return await ledger.transact({
        ...change,
        async apply(tx, place) {
          found = await recogniseOperator(broker, tx, credential, place.timeMs)
          if (typeof found === 'string') throw unauthenticated()
          return change.apply(tx, place)
        },
      })
    } finally {
      // Here, for the callback may run more than once.
      if (typeof found === 'string') refusals.note('operator', found)
    }
  }
  const guarded: Ledger = {
    ...ledger,
    transact,
    get halted() {
      return ledger.halted
    },
    get held() {
      return ledger.held
    },
  }
  return { ...broker, ledger: guarded }
}

/** The operator whose credential this is at that time, or why it proves none. Every kind of credential is judged here. */
async function recogniseOperator(
  { companyIssuer, ledger }: Pick<Broker, 'companyIssuer' | 'ledger'>,
  db: Kysely<Schema>,
  credential: string,
  nowMs: number,
): Promise<Operator | RefusalReason> {
  const presented = parseCredential(credential, ['operator', 'session'])
  if (presented?.kind === 'session') {
    // It may have been ended in what a restored backup lacks; all of them end when that is accepted.
    return ledger.held === undefined ? recogniseSession(db, presented, companyIssuer?.issuer, nowMs) : 'session_held'
  }
  // A look-up and a comparison in any case, so that time does not tell which ids exist.
  const operator = await findOperator(db, presented?.id ?? '')
  const matches = secretMatches(presented?.secretHash ?? '', operator?.secretHash)
  if (presented === undefined) return 'operator_malformed'
  if (operator === undefined) return 'operator_unknown'
  if (!matches) return 'operator_wrong'
  const { id, name, role, expiresAtMs } = operator
  const status = operatorStatus(operator, nowMs)
  if (status !== 'active') return status === 'revoked' ? 'operator_revoked' : 'operator_expired'
  return { id, name, role, ...(expiresAtMs !== undefined && { expiresAtMs }) }
}

function unauthenticated(): BrokerError {
  return new BrokerError({
    code: 'unauthenticated',
    publicMessage: 'This needs an operator credential: send it as `Authorization: Bearer stint_op_…`, or sign in with `stint login`.',
  })
}
