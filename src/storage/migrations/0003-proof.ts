import { sql, type Kysely } from 'kysely'
import type { Engine } from '../engine.ts'

/** What lets others verify the log: signed checkpoints, what witnesses said to them, and the hashes above the leaves. */
export async function createProof(db: Kysely<never>, engine: Engine): Promise<void> {
  const { int, text, bytes, options } =
    engine === 'sqlite'
      ? { int: 'integer', text: 'text', bytes: 'blob', options: 'strict' }
      : { int: 'bigint', text: 'text collate "C"', bytes: 'bytea', options: '' }
  const statements = [
    `create table checkpoint (
      size ${int} primary key, root ${bytes} not null, note ${text} not null, created_at ${text} not null) ${options}`,
    `create table cosignature (
      size ${int} not null references checkpoint (size), witness ${text} not null, line ${text} not null,
      created_at ${text} not null, primary key (size, witness)) ${engine === 'sqlite' ? 'strict, without rowid' : ''}`,
    `create table tree_hash (
      level ${int} not null, idx ${int} not null, hash ${bytes} not null, primary key (level, idx))
      ${engine === 'sqlite' ? 'strict, without rowid' : ''}`,
    ...(engine === 'sqlite' ? sqliteGuards : postgresGuards),
  ]
  for (const statement of statements) await sql.raw(statement).execute(db)
}

const tables = { checkpoint: ['size'], cosignature: ['size', 'witness'], tree_hash: ['level', 'idx'] }

const sqliteGuards = Object.entries(tables).flatMap(([table, key]) => [
  `create trigger ${table}_no_update before update on ${table}
    begin select raise(abort, '${table} is append-only: rows are never changed'); end`,
  `create trigger ${table}_no_delete before delete on ${table}
    begin select raise(abort, '${table} is append-only: rows are never deleted'); end`,
  `create trigger ${table}_once before insert on ${table}
    when exists (select 1 from ${table} where ${key.map((column) => `${column} = new.${column}`).join(' and ')})
    begin select raise(abort, '${table} is append-only: rows are never replaced'); end`,
])

const postgresGuards = Object.keys(tables).flatMap((table) => [
  `create trigger ${table}_no_truncate before truncate on ${table} for each statement execute function stint_refuse()`,
  `create trigger ${table}_no_delete before delete on ${table} for each statement execute function stint_refuse()`,
  `create trigger ${table}_no_update before update on ${table} for each statement execute function stint_refuse()`,
])
