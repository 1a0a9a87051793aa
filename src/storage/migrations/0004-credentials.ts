import { sql, type Kysely } from 'kysely'
import type { Engine } from '../engine.ts'

/** What lives in outside systems, what was asked for under a key of the caller's own, renewals, and secrets that admins handed over. */
export async function createCredentials(db: Kysely<never>, engine: Engine): Promise<void> {
  const { int, text, options } =
    engine === 'sqlite' ? { int: 'integer', text: 'text', options: 'strict' } : { int: 'bigint', text: 'text collate "C"', options: '' }
  const statements = [
    `create table credential (
      grant_id ${text} primary key references grants (id), tool ${text} not null, workload ${text} not null,
      connector ${text} not null, policy_set ${text} not null, state ${text} not null, cause ${text}, effect ${text} not null,
      owner ${text}, lease_until ${text}, due_at ${text}, tries ${int} not null, reference ${text}, handle ${text},
      handle_version ${int}, token_hash ${text}, dies_at ${text}, problem ${text}, ended_at ${text}) ${options}`,
    'create index credential_due on credential (tool, due_at, grant_id) where due_at is not null',
    'create index credential_by_workload on credential (workload, state)',
    "create index credential_live on credential (tool, grant_id) where due_at is not null or state = 'stuck'",
    'create index credential_by_state on credential (state, grant_id)',
    'create index credential_by_token on credential (token_hash) where token_hash is not null',
    `create table renewal (
      grant_id ${text} primary key references grants (id), renews ${text} not null, first_issued_at ${text} not null) ${options}`,
    'create index renewal_by_first on renewal (renews)',
    `create table idempotency_key (
      workload ${text} not null, id ${text} not null, body_hash ${text} not null, grant_id ${text} not null,
      expires_at ${text} not null, primary key (workload, id)) ${options}`,
    'create index idempotency_key_by_expiry on idempotency_key (expires_at)',
    `create table sealed_secret (
      name ${text} not null, version ${int} not null, sealed ${text} not null, sealed_version ${int} not null,
      created_at ${text} not null, primary key (name, version)) ${options}`,
    "create unique index sealed_secret_kept on sealed_secret (name) where sealed <> ''",
    `create table custody (
      name ${text} primary key, tool ${text} not null, state ${text} not null, owner ${text}, lease_until ${text},
      problem ${text}) ${options}`,
    // How far the revocations of many grants have been carried to what lives in outside systems.
    `create table sweep (id ${int} primary key check (id = 1), revocations_carried ${int} not null) ${options}`,
    ...(engine === 'sqlite' ? sqliteRevocation : postgresRevocation),
    // Nothing lives outside yet that an earlier one could cover.
    'insert into sweep (id, revocations_carried) select 1, coalesce(max(idx), -1) from revocation',
    'create index grants_alive_by_tool on grants (tool, expires_at)',
    ...(engine === 'sqlite' ? sqliteGuard : postgresGuard),
  ]
  for (const statement of statements) await sql.raw(statement).execute(db)
}

// SQLite changes no constraint of a table that exists.
const sqliteRevocation = [
  `create table revocation_by_tool (
    idx integer primary key, workload text, task text, before_time text, tool text,
    check (workload is not null or task is not null or before_time is not null or tool is not null)) strict`,
  'insert into revocation_by_tool select idx, workload, task, before_time, null from revocation',
  'drop table revocation',
  'alter table revocation_by_tool rename to revocation',
  `create trigger revocation_no_update before update on revocation
    begin select raise(abort, 'revocation is append-only: rows are never changed'); end`,
  `create trigger revocation_no_delete before delete on revocation
    begin select raise(abort, 'revocation is append-only: rows are never deleted'); end`,
  `create trigger revocation_once before insert on revocation
    when exists (select 1 from revocation where idx = new.idx)
    begin select raise(abort, 'revocation is append-only: rows are never replaced'); end`,
]

const postgresRevocation = [
  'alter table revocation add column tool text collate "C"',
  'alter table revocation drop constraint revocation_check',
  `alter table revocation add constraint revocation_check
    check (workload is not null or task is not null or before_time is not null or tool is not null)`,
]

// A grant that was ended stays ended, by the entry that ended it. Until then it may be renewed; nothing else of it changes.
const sqliteGuard = [
  'drop trigger grants_end_once',
  `create trigger grants_end_once before update on grants
    when old.revoked_index is not null or new.id <> old.id or new.workload <> old.workload or new.tool <> old.tool
      or new.actions <> old.actions or new.issued_index <> old.issued_index or new.issued_at <> old.issued_at
      or (new.revoked_index is null and new.expires_at <= old.expires_at)
      or (new.revoked_index is not null and new.expires_at <> old.expires_at)
    begin select raise(abort, 'grants are renewed, or end once'); end`,
]

const postgresGuard = [
  `do $do$ begin execute format($create$
    create or replace function stint_grant_ends() returns trigger language plpgsql
      set search_path = pg_catalog, %1$I, pg_temp as $body$
    begin
      if old.revoked_index is not null or new.id <> old.id or new.workload <> old.workload or new.tool <> old.tool
        or new.actions <> old.actions or new.issued_index <> old.issued_index or new.issued_at <> old.issued_at
        or (new.revoked_index is null and new.expires_at <= old.expires_at)
        or (new.revoked_index is not null and new.expires_at <> old.expires_at) then
        raise exception 'grants are renewed, or end once';
      end if;
      return new;
    end $body$ $create$, current_schema()); end $do$`,
]
