import { Secret } from '../../src/kernel/secret.ts'
import { putSecret } from '../../src/broker/secrets.ts'
import { findCredential, handlePlace, insertIntent, stepCredential } from '../../src/storage/credentials.ts'
import { sealedColumns } from '../../src/storage/sealed-rows.ts'
import { sql } from 'kysely'
import { getToken, type TestAgent, type TestBroker } from '../broker.ts'

const caller = { actor: { kind: 'stint', id: 'test' } } as const

/** Puts a secret as an admin does. */
export async function put(broker: TestBroker, name: string, value: string): Promise<void> {
  await putSecret(broker.broker, caller, name, new Secret(value))
}

/** A grant whose credential is active in some outside system, with what would end it there. Returns the grant's id. */
export async function lend(broker: TestBroker, agent: TestAgent, handle: string): Promise<string> {
  await getToken(broker, agent, { scope: 'tickets:read' })
  const issued = (await broker.events()).findLast((event) => event.type === 'grant.issued')
  if (issued?.type !== 'grant.issued') throw new Error('no grant')
  const { grant } = issued
  const { sealer, database, ledger } = broker.broker
  await database.write(async ({ db }) => {
    await insertIntent(db, { grant, tool: 'tickets', workload: agent.name, connector: 'postgres', policySet: 'none', effect: 'immediate', owner: 'test', leaseUntilMs: ledger.nowMs() })
    const sealed = sealer.seal(handle, handlePlace(grant))
    // Due in a year, so that nobody looks for its tool.
    await stepCredential(db, { grant, state: 'minting' }, 'minted', { handle: sealed, owner: null, leaseUntilMs: null, dueAtMs: ledger.nowMs() + 365 * 86_400_000 })
  })
  return grant
}

/** What would end the credential, opened by this process. */
export async function openLent({ broker: { database, sealer } }: TestBroker, grant: string): Promise<string> {
  const credential = await findCredential(database.read, grant)
  if (credential?.handle === undefined) return 'erased'
  return Buffer.from(sealer.open(credential.handle, handlePlace(grant))).toString()
}

/** The versions under which values are sealed, in each table. */
export async function sealedVersions({ broker: { database } }: TestBroker): Promise<Record<string, number[]>> {
  const found: Record<string, number[]> = {}
  for (const { table, value, version } of sealedColumns) {
    const { rows } = await sql<{ version: number }>`select distinct ${sql.ref(version)} as version from ${sql.table(table)} where ${sql.ref(value)} <> '' order by 1`.execute(database.read)
    found[table] = rows.map((row) => Number(row.version))
  }
  return found
}
