import { sql, type Kysely, type SqlBool } from 'kysely'
import { handlePlace } from './credentials.ts'
import type { Schema } from './schema.ts'
import { secretPlace } from './secrets.ts'
import { signingKeyPlace } from './keys.ts'

/** Where sealed values stand: a column of ciphertext, and one for the version of the key that sealed it. */
interface SealedColumn {
  readonly table: keyof Schema
  readonly value: string
  readonly version: string
  readonly key: readonly string[]
  /** What the value is sealed for. */
  place(key: Key): { readonly table: string; readonly row: string }
}

/** The values of a row's primary key. */
type Key = readonly (string | number)[]

/** Every one that there is: what is not in here is lost with the key that sealed it. */
export const sealedColumns: readonly SealedColumn[] = [
  { table: 'signing_key', value: 'sealed_private', version: 'sealed_version', key: ['kid'], place: ([kid]) => signingKeyPlace(String(kid)) },
  { table: 'sealed_secret', value: 'sealed', version: 'sealed_version', key: ['name', 'version'], place: ([name, version]) => secretPlace(String(name), Number(version)) },
  { table: 'credential', value: 'handle', version: 'handle_version', key: ['grant_id'], place: ([grant]) => handlePlace(String(grant)) },
]

/** A sealed value where it stands. */
export interface SealedRow {
  readonly key: Key
  readonly sealed: { readonly version: number; readonly ciphertext: string }
}

/** Values that were sealed under a version before this one, from the row after `after` on. */
export async function listSealedBefore(db: Kysely<Schema>, column: SealedColumn, version: number, limit: number, after?: SealedRow): Promise<SealedRow[]> {
  const order = sql.join([column.version, ...column.key].map((name) => sql.ref(name)))
  const next = after === undefined ? sql<SqlBool>`true` : sql<SqlBool>`(${order}) > (${sql.join([after.sealed.version, ...after.key])})`
  const { rows } = await sql<Record<string, string | number>>`select ${order}, ${sql.ref(column.value)} from ${sql.table(column.table)}
    where ${isSealedBefore(column, version)} and ${next} order by ${order} limit ${limit}`.execute(db)
  return rows.map((row) => ({
    key: column.key.map((name) => row[name] ?? ''),
    sealed: { version: Number(row[column.version]), ciphertext: String(row[column.value]) },
  }))
}

/** How many values were sealed under a version before this one. */
export async function countSealedBefore(db: Kysely<Schema>, version: number): Promise<number> {
  let count = 0
  for (const column of sealedColumns) {
    const { rows } = await sql<{ count: number }>`select count(*) as count from ${sql.table(column.table)} where ${isSealedBefore(column, version)}`.execute(db)
    count += Number(rows[0]?.count ?? 0)
  }
  return count
}

/** Puts a value that was sealed anew in the place of what was `seen` there, unless that has changed meanwhile. */
export async function replaceSealed(tx: Kysely<Schema>, column: SealedColumn, seen: SealedRow, sealed: SealedRow['sealed']): Promise<void> {
  const isRow = sql.join(column.key.map((name, i) => sql`${sql.ref(name)} = ${seen.key[i]}`), sql` and `)
  await sql`update ${sql.table(column.table)}
    set ${sql.ref(column.value)} = ${sealed.ciphertext}, ${sql.ref(column.version)} = ${sealed.version}
    where ${isRow} and ${sql.ref(column.value)} = ${seen.sealed.ciphertext}`.execute(tx)
}

// What was erased is empty, or not there at all.
function isSealedBefore(column: SealedColumn, version: number) {
  return sql`${sql.ref(column.version)} < ${version} and ${sql.ref(column.value)} <> ''`
}
