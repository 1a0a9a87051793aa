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
    // A process of the version before may still run: it knows of no stages, and what it put would be found by nobody.
    ...(engine === 'postgres' ? ["alter table sealed_secret add constraint sealed_secret_staged check ((sealed <> '') = (stage is not null))"] : []),
    'create index sealed_secret_by_stage on sealed_secret (name, stage) where stage is not null',
    // Of what was replaced there may be several, each until the system behind it was told.
    "create unique index sealed_secret_one on sealed_secret (name, stage) where stage in ('current', 'pending')",
    `create table rotation (
      name ${text} primary key, tool ${text}, secret ${text}, every_seconds ${int}, scheduled_by ${text}, policy_set ${text}, id ${text}, step ${text},
      reason ${text}, leaked ${int} not null, again ${text}, tries ${int} not null, failures ${int} not null, started_at ${text},
      version ${text}, replaced ${text}, retire_at ${text}, retire_leaked ${int} not null, finished_at ${text}, failed_at ${text},
      last_id ${text}, next_at ${text}, due_at ${text}, owner ${text}, lease_until ${text}, problem ${text}, overdue_announced ${text}) ${options}`,
    'create index rotation_due on rotation (due_at) where due_at is not null',
    `alter table sealing_key add column root ${text}`,
    `alter table sealing_key add column seals_from ${text}`,
    `alter table sealing_key add column created_index ${int}`,
    'create index credential_by_handle_version on credential (handle_version, grant_id) where handle_version is not null',
    ...(engine === 'sqlite' ? sqliteSealing : postgresSealing),
  ]
  for (const statement of statements) await sql.raw(statement).execute(db)
}

// What would be sealed under a key that is gone could never be opened again; and a key that is gone stays so.
const sealed = [
  ['credential', 'handle', 'handle_version'],
  ['sealed_secret', 'sealed', 'sealed_version'],
  ['signing_key', 'sealed_private', 'sealed_version'],
] as const

const sqliteSealing = [
  ...sealed.flatMap(([table, value, version]) =>
    ['insert', `update of ${value}, ${version}`].map(
      (change) => `create trigger ${table}_sealed_${change.slice(0, 6)} before ${change} on ${table}
        when new.${value} <> '' and exists (select 1 from sealing_key where version = new.${version} and wrapped = '')
        begin select raise(abort, 'the sealing key of this version is erased: nothing is sealed under it'); end`,
    ),
  ),
  `create trigger sealing_key_erased before update on sealing_key when old.version <> new.version or (old.wrapped = '' and new.wrapped <> '')
    begin select raise(abort, 'a sealing key keeps its version, and stays erased'); end`,
]

const postgresSealing = [
  `do $do$ begin execute format($create$
    create function stint_sealed() returns trigger language plpgsql set search_path = pg_catalog, %1$I, pg_temp as $body$
    begin
      if exists (select 1 from %1$I.sealing_key where version = (to_jsonb(new) ->> tg_argv[0])::bigint and wrapped = '') then
        raise exception 'the sealing key of this version is erased: nothing is sealed under it';
      end if;
      return new;
    end $body$;
    create function stint_sealing_key() returns trigger language plpgsql set search_path = pg_catalog, %1$I, pg_temp as $body$
    begin
      if old.version <> new.version or (old.wrapped = '' and new.wrapped <> '') then
        raise exception 'a sealing key keeps its version, and stays erased';
      end if;
      return new;
    end $body$ $create$, current_schema()); end $do$`,
  ...sealed.map(
    ([table, value, version]) => `create trigger ${table}_sealed before insert or update of ${value}, ${version} on ${table}
      for each row when (new.${value} <> '') execute function stint_sealed('${version}')`,
  ),
  'create trigger sealing_key_erased before update on sealing_key for each row execute function stint_sealing_key()',
]
