import { hash } from 'node:crypto'
import { readAccessToken, type AccessTokenClaims } from '../crypto/access-token.ts'
import { grantState } from '../grant/grant.ts'
import { judgeStanding, type Principal } from '../identity/authenticate.ts'
import { findGrantOfToken } from '../storage/credentials.ts'
import type { StoredGrant } from '../storage/grants.ts'
import { findGrant } from '../storage/grants.ts'
import { findWorkload } from '../storage/workloads.ts'
import { actorOf, markOf, proofOf, withWorkload, type ClientCredentials } from './authenticate.ts'
import { causedBy, type Broker } from './broker.ts'
import type { View } from './knowledge.ts'

/** What Stint knows of a token that it signed: its claims, and the grant behind it. */
export interface KnownToken {
  readonly claims: AccessTokenClaims
  readonly grant: StoredGrant
}

/**
 * RFC 7662: the claims of a token that is alive, or `undefined` for one that is not, or that is not for the asker to know
 * about. The holder may ask, and the workloads that the catalog names as the tool's introspectors. Answers from the
 * database as it is now, so that a revocation shows at once on every process.
 */
export async function introspectToken(
  broker: Broker,
  credentials: ClientCredentials,
  token: string,
  requestId: string,
): Promise<AccessTokenClaims | undefined> {
  const known = await withWorkload(broker, credentials, async (principal, view) => {
    const found = await findToken(broker, view, token)
    const conditions = { epoch: view.epoch, mark: markOf(principal) }
    if (found === undefined || mayIntrospect(principal, view, found.grant)) {
      const spent = await broker.ledger.spend(conditions)
      return spent.status === 'recorded' ? { ...spent, result: found } : spent
    }
    const refused = await broker.ledger.append({
      ...conditions,
      events: [
        {
          type: 'introspection.refused',
          ...causedBy({ actor: actorOf(principal), requestId }),
          workload: principal.workload.name,
          grant: found.grant.id,
          ...proofOf(principal),
        },
      ],
    })
    return refused.status === 'recorded' ? { ...refused, result: undefined } : refused
  })
  return known !== undefined && (await isAlive(broker, known.grant.id)) ? known.claims : undefined
}

/** The token's claims and grant, if Stint signed it and has its record; dead or alive. */
export async function findToken(broker: Broker, { keyring }: View, token: string): Promise<KnownToken | undefined> {
  const nowMs = broker.ledger.nowMs()
  const claims = await readAccessToken(token, {
    issuer: broker.issuer,
    verificationKey: (kid) => keyring.verificationKey(kid, nowMs),
  })
  if (claims === undefined) return undefined
  const grant = await findGrant(broker.database.read, claims.jti)
  return grant === undefined ? undefined : { claims, grant }
}

/** The grant behind a token, be it one that Stint signed or one of an outside tool that it lent. */
export async function findGrantBehind(broker: Broker, view: View, token: string): Promise<StoredGrant | undefined> {
  const known = await findToken(broker, view, token)
  if (known !== undefined) return known.grant
  const id = await findGrantOfToken(broker.database.read, hash('sha256', token, 'hex'))
  return id === undefined ? undefined : findGrant(broker.database.read, id)
}

function mayIntrospect({ workload }: Principal, { policySet }: View, grant: StoredGrant): boolean {
  if (grant.workload === workload.name) return true
  return policySet?.catalog.get(grant.tool)?.introspectors.includes(workload.name) ?? false
}

/** Whether the grant stands and its workload is in good order, read after the asker's assertion was spent. */
async function isAlive({ database, ledger }: Broker, grantId: string): Promise<boolean> {
  const grant = await findGrant(database.read, grantId)
  if (grant === undefined) return false
  const workload = await findWorkload(database.read, grant.workload)
  const nowMs = ledger.nowMs()
  return grantState(grant, nowMs) === 'active' && workload !== undefined && judgeStanding(workload, nowMs) === undefined
}
