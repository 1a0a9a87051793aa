import type { IssuerKeys } from '../crypto/issuer-keys.ts'
import { verifyJws } from '../identity/compact-jws.ts'
import { createCredential } from '../identity/credential.ts'
import { judgeIdToken, readGroups, readIdToken, referToSubject, roleOfGroups, type IdToken } from '../identity/id-token.ts'
import type { Role } from '../identity/operator.ts'
import type { RefusalReason } from '../identity/refusal.ts'
import { formatTime } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Secret } from '../kernel/secret.ts'
import { insertSession, type StoredSession } from '../storage/sessions.ts'
import { createRefuser } from './authenticate.ts'
import type { Broker } from './broker.ts'
import { operatorIdOf } from './sessions.ts'

/** How people sign in with the account of their company: the configuration's `operators.oidc`. */
export interface SignInSettings {
  readonly issuer: string
  readonly clientId: string
  /** What a client asks the issuer for. */
  readonly scopes: readonly string[]
  readonly groupsClaim: string
  readonly groupsByRole: Readonly<Record<Role, readonly string[]>>
  readonly sessionMinutes: number
}

/** The company issuer, and its keys. */
export interface CompanyIssuer extends SignInSettings {
  readonly keys: IssuerKeys
}

/** A session that has just begun. The credential is given once: only its hash is stored. */
export interface BegunSession {
  readonly session: StoredSession
  readonly credential: Secret
  readonly auditIndex: number
}

/** The company issuer. Throws `not_found` where the configuration names none. */
export function requireCompanyIssuer({ companyIssuer }: Pick<Broker, 'companyIssuer'>): CompanyIssuer {
  if (companyIssuer !== undefined) return companyIssuer
  const publicMessage = 'Nobody signs in to this broker with an account of a company: its configuration has no operators.oidc.'
  throw new BrokerError({ code: 'not_found', publicMessage })
}

/**
 * Begins a session with an ID token of the company issuer (OpenID Connect Core §3.1.3.7), which does so once. Throws
 * `unauthenticated`, the same for every reason (invariant 10), `forbidden` for a person whose groups have no role, and
 * `unavailable` while the issuer's keys cannot be had.
 */
export async function beginSession(broker: Broker, idToken: string, requestId: string): Promise<BegunSession> {
  const { ledger, refusals } = broker
  const company = requireCompanyIssuer(broker)
  const refuse = createRefuser(unauthenticated)
  // Nothing that is committed below is under an epoch, so that the newest view is asked.
  const { proofsFromMs } = await broker.knowledge.refresh()
  const proven = await proveIdToken(idToken, company, ledger.nowMs(), proofsFromMs)
  if (typeof proven === 'string') {
    refusals.note('sign_in', proven)
    return refuse()
  }
  const role = requireRole(broker, company, proven)
  const { id, credential, secretHash } = createCredential(broker.random, 'session')
  const outcome = await ledger.transact({
    mark: { id: proven.replayId, expiresAtMs: proven.endsMs },
    async apply(tx, { timeMs }) {
      const session: StoredSession = {
        id,
        issuer: company.issuer,
        subject: referToSubject(proven),
        role,
        secretHash,
        createdAtMs: timeMs,
        expiresAtMs: timeMs + company.sessionMinutes * 60_000,
      }
      await insertSession(tx, session)
      const actor = { kind: 'operator', id: operatorIdOf(session), session: id } as const
      const { issuer, subject, expiresAtMs } = session
      return {
        result: session,
        // No decision reads sessions: each request of an operator reads the row itself.
        raisesEpoch: false,
        events: [
          { type: 'operator.signed_in', actor, request_id: requestId, session: id, issuer, subject, role, expires_at: formatTime(expiresAtMs) },
        ],
      }
    },
  })
  if (outcome.status === 'recorded') return { session: outcome.result, credential, auditIndex: outcome.index }
  refusals.note('sign_in', outcome.status === 'late' ? 'id_token_expired' : 'id_token_replayed')
  return refuse()
}

/** The ID token once it has proven its person, or why it does not. */
async function proveIdToken(compact: string, company: CompanyIssuer, nowMs: number, proofsFromMs: number | undefined): Promise<IdToken | RefusalReason> {
  const token = readIdToken(compact)
  if (token === undefined) return 'id_token_malformed'
  // Before the keys: what is not for Stint in any case must not make it ask the issuer.
  const reason = judgeIdToken(token, company, nowMs, proofsFromMs)
  if (reason !== undefined) return reason
  const key = await company.keys.find(token)
  if (key === undefined) return 'id_token_key_unknown'
  return (await verifyJws(token.jws, key)) ? token : 'id_token_signature_invalid'
}

/** The person's role. Throws `forbidden` with what there is to mend: who has proven who they are may know it. */
function requireRole({ refusals }: Broker, { groupsClaim, groupsByRole }: CompanyIssuer, token: IdToken): Role {
  const groups = readGroups(token, groupsClaim)
  const role = roleOfGroups(groups ?? [], groupsByRole)
  if (role !== undefined) return role
  refusals.note('sign_in', 'id_token_no_role')
  const why = groups === undefined ? `the ID token has no list of groups in its claim ${groupsClaim}` : 'none of your groups has a role here'
  const publicMessage = `You are ${operatorIdOf({ subject: referToSubject(token) })}, but ${why}: ask those who run this broker.`
  throw new BrokerError({ code: 'forbidden', publicMessage })
}

function unauthenticated(): BrokerError {
  return new BrokerError({
    code: 'unauthenticated',
    publicMessage: 'The ID token was not accepted: send a fresh one of the company issuer, made for the client of this broker and not used before.',
  })
}
