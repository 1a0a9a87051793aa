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

/** Runs statements as the superuser, outside any database of a test. */
export async function runAsOwner(server: Server, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: ownerUrl(server, 'postgres') })
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}
