import { sql, type Kysely } from 'kysely'
import type { Engine } from '../engine.ts'

/** What is denied in roles of a cloud, secrets in more than one version, and the rotation of whatever lives long. */
export async function createRotation(db: Kysely<never>, engine: Engine): Promise<void> {
  const { int, text, options } =
    engine === 'sqlite' ? { int: 'integer', text: 'text', options: 'strict' } : { int: 'bigint', text: 'text collate "C"', options: '' }
  const statements = [
    `alter table credential add column deny_list ${text}`,
    `alter table credential add column deny_until ${text}`,
    `alter table credential add column delay_seconds ${int}`,
    'create index credential_denied on credential (deny_list, deny_until) where deny_list is not null',
    `create table deny_list (
      id ${text} primary key, tool ${text} not null, policy_set ${text} not null, owner ${text}, lease_until ${text},
      cut_off_before ${text}, look_at ${text}, written_at ${text}, problem ${text}) ${options}`,
    'create index deny_list_by_look on deny_list (look_at) where look_at is not null',
    `alter table sealed_secret add column stage ${text}`,
    `alter table sealed_secret add column rotation ${text}`,
    "update sealed_secret set stage = 'current' where sealed <> ''",
    'drop index sealed_secret_kept',
    'create unique index sealed_secret_by_stage on sealed_secret (name, stage) where stage is not null',
    `create table rotation (
      name ${text} primary key, tool ${text}, policy_set ${text}, id ${text}, step ${text}, reason ${text}, leaked ${int} not null,
      tries ${int} not null, started_at ${text}, finished_at ${text}, version ${text}, replaced ${text}, retire_at ${text},
      next_at ${text}, due_at ${text}, owner ${text}, lease_until ${text}, problem ${text}, failed_at ${text}, overdue_announced ${text}) ${options}`,
    'create index rotation_due on rotation (due_at) where due_at is not null',
    `alter table sealing_key add column root ${text}`,
    `alter table sealing_key add column seals_from ${text}`,
  ]
  for (const statement of statements) await sql.raw(statement).execute(db)
}
