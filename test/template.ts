import pg from 'pg'
import { migrate, grantPrivileges } from '../src/storage/migrate.ts'
import { openPostgres } from '../src/storage/postgres.ts'

export interface Server {
  readonly port: number
  readonly password: string
}

/** As whom the broker serves: a role that owns nothing. */
export const servingRole = 'stint_app'

export function ownerUrl({ port, password }: Server, database: string): string {
  return `postgres://postgres:${password}@127.0.0.1:${port}/${database}`
}

export function servingUrl({ port }: Server, database: string): string {
  return `postgres://${servingRole}:app-password@127.0.0.1:${port}/${database}`
}

/** One migrated database that all tests copy, which costs a fraction of migrating each. */
export async function migrateTemplate(server: Server): Promise<void> {
  await runAsOwner(server, `create role ${servingRole} login password 'app-password'`, 'create database stint_template')
  const database = openPostgres({ url: ownerUrl(server, 'stint_template') })
  try {
    await migrate(database.maintenance, 'postgres')
    await grantPrivileges(database.maintenance, servingRole)
  } finally {
    await database.close()
  }
}

/** Ends whatever still uses the database and puts every table back to what the migrations left, guards or not. */
export async function emptyDatabase(server: Server, database: string): Promise<void> {
  await runIn(
    server,
    database,
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`,
    `do $$ declare name text; begin
      set local session_replication_role = replica;
      for name in select tablename from pg_tables where schemaname = 'public' and tablename not like 'schema_migration%' loop
        execute format('delete from %I', name);
      end loop;
      insert into log_head values (1, 0, 0, '1970-01-01T00:00:00.000Z', sha256(''), '');
      insert into sweep values (1, -1);
    end $$`,
  )
}

/** Runs statements as the superuser, outside any database of a test. */
export async function runAsOwner(server: Server, ...statements: string[]): Promise<void> {
  await runIn(server, 'postgres', ...statements)
}

async function runIn(server: Server, database: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: ownerUrl(server, database) })
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}
