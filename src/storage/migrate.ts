import { sql, type Kysely } from 'kysely'
import { Migrator, type Migration } from 'kysely/migration'
import { BrokerError } from '../kernel/errors.ts'
import type { Engine } from './engine.ts'
import { createFoundation } from './migrations/0001-foundation.ts'
import { createOperation } from './migrations/0002-operation.ts'
import { createProof } from './migrations/0003-proof.ts'
import { createCredentials } from './migrations/0004-credentials.ts'
import { createRotation } from './migrations/0005-rotation.ts'
import type { Schema } from './schema.ts'

function migrations(engine: Engine): Record<string, Migration> {
  return {
    // Kysely hands over an untyped handle: a migration knows only the tables of its own time.
    '0001-foundation': { up: (db: Kysely<never>) => createFoundation(db, engine) },
    '0002-operation': { up: (db: Kysely<never>) => createOperation(db, engine) },
    '0003-proof': { up: (db: Kysely<never>) => createProof(db, engine) },
    '0004-credentials': { up: (db: Kysely<never>) => createCredentials(db, engine) },
    '0005-rotation': { up: (db: Kysely<never>) => createRotation(db, engine) },
  }
}

/** Brings the schema up to this version and returns the names of the migrations that ran. */
export async function migrate(db: Kysely<Schema>, engine: Engine): Promise<string[]> {
  return engine === 'sqlite' ? inTransaction(db, (tx) => migrateToLatest(tx, engine)) : migrateToLatest(db, engine)
}

/**
 * Kysely migrates PostgreSQL in a transaction, and SQLite in none: a process that died in between would leave half a schema,
 * from which no later one could go on.
 */
function inTransaction<T>(db: Kysely<Schema>, body: (tx: Kysely<Schema>) => Promise<T>): Promise<T> {
  return db.connection().execute(async (tx) => {
    await sql`begin immediate`.execute(tx)
    try {
      const result = await body(tx)
      await sql`commit`.execute(tx)
      return result
    } catch (error) {
      // On some errors SQLite has rolled back by itself.
      await sql`rollback`.execute(tx).catch(() => undefined)
      throw error
    }
  })
}

async function migrateToLatest(db: Kysely<Schema>, engine: Engine): Promise<string[]> {
  const { error, results = [] } = await createMigrator(db, engine).migrateToLatest()
  if (error !== undefined) throw error
  return results.filter((r) => r.status === 'Success').map((r) => r.migrationName)
}

/** Throws `config_invalid` unless every migration of this version, and no other, has run. */
export async function checkMigrated(db: Kysely<Schema>, engine: Engine): Promise<void> {
  const known = await createMigrator(db, engine).getMigrations()
  const pending = known.filter((m) => m.executedAt === undefined)
  if (pending.length > 0) {
    throw new BrokerError({
      code: 'config_invalid',
      publicMessage: `the database lacks ${pending.map((m) => m.name).join(', ')}: run \`stint migrate\` first`,
    })
  }
  const { rows } = await sql<{ name: string }>`select name from ${sql.table(migrationTable)} order by name`.execute(db)
  const newer = rows.filter(({ name }) => !known.some((m) => m.name === name))
  if (newer.length > 0) {
    throw new BrokerError({
      code: 'config_invalid',
      publicMessage: `the database is of a newer version (${newer.map((m) => m.name).join(', ')}): run that version of Stint`,
    })
  }
}

const migrationTable = 'schema_migration'

function createMigrator(db: Kysely<Schema>, engine: Engine): Migrator {
  return new Migrator({
    db,
    provider: { getMigrations: async () => migrations(engine) },
    migrationTableName: migrationTable,
    migrationLockTableName: 'schema_migration_lock',
  })
}

/** What the serving role may do on PostgreSQL, table by table: nothing that could rewrite history (invariant 3). */
const privileges: Record<keyof Schema | 'schema_migration' | 'schema_migration_lock', string> = {
  log_head: 'select, update',
  audit_event: 'select, insert',
  replay_mark: 'select, insert, delete',
  grants: 'select, insert, update (revoked_index, expires_at)',
  revocation: 'select, insert',
  workload: 'select, insert, update',
  workload_key: 'select, insert, update (removed_at)',
  operator: 'select, insert, update (secret_hash, expires_at, revoked_at)',
  operator_session: 'select, insert, update (ended_at), delete',
  enrolment: 'select, insert, update (ended_at, kid)',
  policy_set: 'select, insert',
  policy_in_force: 'select, insert, update',
  sealing_key: 'select, insert, update (wrapped, root)',
  signing_key: 'select, insert, update (sign_from, verify_until, sealed_private, sealed_version)',
  checkpoint: 'select, insert',
  cosignature: 'select, insert',
  tree_hash: 'select, insert',
  credential: 'select, insert, update (state, cause, owner, lease_until, due_at, tries, reference, handle, handle_version, token_hash, dies_at, deny_until, problem, ended_at)',
  renewal: 'select, insert',
  idempotency_key: 'select, insert, update (body_hash, grant_id, expires_at), delete',
  sealed_secret: 'select, insert, update (sealed, sealed_version, stage)',
  deny_list: 'select, insert, update',
  rotation: 'select, insert, update',
  custody: 'select, insert, update',
  sweep: 'select, update',
  schema_migration: 'select',
  schema_migration_lock: 'select',
}

/** Gives the serving role exactly the privileges it needs. PostgreSQL only; run as the tables' owner. */
export async function grantPrivileges(db: Kysely<Schema>, role: string): Promise<void> {
  for (const [table, allowed] of Object.entries(privileges)) {
    await sql`revoke all on ${sql.table(table)} from ${sql.id(role)}`.execute(db)
    await sql`grant ${sql.raw(allowed)} on ${sql.table(table)} to ${sql.id(role)}`.execute(db)
  }
}
