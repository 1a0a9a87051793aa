import { sql, type Kysely } from 'kysely'
import { encodeFrontier, rootOf } from '../../audit/merkle.ts'
import type { Engine } from '../engine.ts'

/** The first tables, their indexes and the guards that make the log append-only (invariant 3). */
export async function createFoundation(db: Kysely<never>, engine: Engine): Promise<void> {
  const types =
    engine === 'sqlite'
      ? { int: 'integer', text: 'text', bytes: 'blob', options: 'strict', keyed: 'strict, without rowid' }
      : { int: 'bigint', text: 'text collate "C"', bytes: 'bytea', options: '', keyed: '' }
  for (const statement of tables(types)) await sql.raw(statement).execute(db)
  for (const statement of engine === 'sqlite' ? sqliteGuards : postgresGuards) await sql.raw(statement).execute(db)
  await sql`insert into log_head (id, size, epoch, time, root, frontier)
    values (1, 0, 0, '1970-01-01T00:00:00.000Z', ${Buffer.from(rootOf([]))}, ${encodeFrontier([])})`.execute(db)
}

function tables({ int, text, bytes, options, keyed }: Record<'int' | 'text' | 'bytes' | 'options' | 'keyed', string>): string[] {
  return [
    `create table log_head (
      id ${int} primary key check (id = 1), size ${int} not null, epoch ${int} not null, time ${text} not null,
      root ${bytes} not null, frontier ${bytes} not null) ${options}`,
    `create table audit_event (
      idx ${int} primary key, time ${text} not null, type ${text} not null, workload ${text}, tool ${text},
      grant_id ${text}, task ${text}, body ${text} not null, leaf_hash ${bytes} not null) ${options}`,
    'create index audit_event_by_workload on audit_event (workload, idx)',
    'create index audit_event_by_type on audit_event (type, idx)',
    'create index audit_event_by_grant on audit_event (grant_id) where grant_id is not null',
    'create index audit_event_by_task on audit_event (task, idx) where task is not null',
    `create index audit_event_denials on audit_event (workload, time) where type = 'grant.denied'`,
    `create table replay_mark (id ${text} primary key, expires_at ${text} not null) ${options}`,
    'create index replay_mark_by_expiry on replay_mark (expires_at)',
    `create table grants (
      id ${text} primary key, workload ${text} not null, tool ${text} not null, actions ${text} not null,
      target ${text}, task ${text}, audience ${text} not null, issued_index ${int} not null, issued_at ${text} not null,
      expires_at ${text} not null, revoked_index ${int}) ${options}`,
    'create index grants_by_workload on grants (workload, issued_at)',
    'create index grants_alive_by_workload on grants (workload, expires_at)',
    'create index grants_alive_by_task on grants (task, expires_at) where task is not null',
    'create index grants_alive on grants (expires_at)',
    `create table revocation (
      idx ${int} primary key, workload ${text}, task ${text}, before_time ${text},
      check (workload is not null or task is not null or before_time is not null)) ${options}`,
    `create table workload (
      name ${text} primary key, environment ${text} not null, stage ${text} not null, team ${text} not null,
      contact ${text} not null, purpose ${text} not null, tags ${text} not null, review_at ${text} not null,
      status ${text} not null check (status in ('active', 'suspended', 'retired')), created_at ${text} not null,
      updated_at ${text} not null) ${options}`,
    `create table workload_key (
      kid ${text} primary key, workload ${text} not null references workload (name), alg ${text} not null,
      jwk ${text} not null, added_at ${text} not null, removed_at ${text}) ${options}`,
    'create index workload_key_by_workload on workload_key (workload)',
    `create table operator (
      id ${text} primary key, name ${text} not null unique, role ${text} not null, secret_hash ${text} not null,
      created_at ${text} not null) ${options}`,
    `create table policy_set (
      hash ${text} primary key, files ${text} not null, cedar_version ${text} not null,
      created_at ${text} not null) ${keyed}`,
    `create table policy_in_force (
      id ${int} primary key check (id = 1), hash ${text} not null references policy_set (hash), since ${text} not null,
      event_index ${int} not null) ${options}`,
    `create table sealing_key (version ${int} primary key, wrapped ${text} not null, created_at ${text} not null) ${options}`,
    `create table signing_key (
      kid ${text} primary key, use ${text} not null, alg ${text} not null, public_jwk ${text} not null,
      sealed_private ${text} not null, sealed_version ${int} not null references sealing_key (version),
      created_at ${text} not null, publish_at ${text} not null, sign_from ${text} not null,
      verify_until ${text}) ${options}`,
  ]
}

/** Tables of which a row, once written, stays as it is. */
const appendOnly = ['audit_event', 'revocation', 'policy_set'] as const

// `INSERT OR REPLACE` deletes without firing delete triggers, so an insert must not meet an existing row either: neither by
// its key nor by a row id, which is why an append-only table has none beside its key.
const sqliteGuards = [
  ...appendOnly.flatMap((table) => [
    `create trigger ${table}_no_update before update on ${table}
      begin select raise(abort, '${table} is append-only: rows are never changed'); end`,
    `create trigger ${table}_no_delete before delete on ${table}
      begin select raise(abort, '${table} is append-only: rows are never deleted'); end`,
  ]),
  `create trigger audit_event_in_order before insert on audit_event
    when new.idx <> (select size from log_head) or exists (select 1 from audit_event where idx >= new.idx)
    begin select raise(abort, 'audit_event is append-only: the next index is the size of the log head'); end`,
  // The head follows each entry at once, so that the entries of one batch are in order too.
  `create trigger audit_event_moves_head after insert on audit_event
    begin update log_head set size = new.idx + 1 where id = 1; end`,
  `create trigger revocation_once before insert on revocation
    when exists (select 1 from revocation where idx = new.idx)
    begin select raise(abort, 'revocation is append-only: rows are never replaced'); end`,
  `create trigger policy_set_once before insert on policy_set
    when exists (select 1 from policy_set where hash = new.hash)
    begin select raise(abort, 'policy_set is append-only: rows are never replaced'); end`,
  // A grant that was ended stays ended, by the entry that ended it; nothing else of it ever changes.
  `create trigger grants_end_once before update on grants
    when old.revoked_index is not null or new.revoked_index is null or new.id <> old.id
      or new.workload <> old.workload or new.issued_index <> old.issued_index or new.expires_at <> old.expires_at
    begin select raise(abort, 'grants only ever end, once'); end`,
  `create trigger log_head_forward before update on log_head
    when new.id <> old.id or new.size < old.size or new.epoch < old.epoch or new.time < old.time
      or new.size <> (select coalesce(max(idx) + 1, 0) from audit_event)
    begin select raise(abort, 'log_head only moves forward, with the entries'); end`,
  `create trigger log_head_stays before delete on log_head
    begin select raise(abort, 'log_head is never deleted'); end`,
  `create trigger log_head_once before insert on log_head when exists (select 1 from log_head)
    begin select raise(abort, 'log_head is one row'); end`,
]

// The functions name their schema, or a temporary table of the same name would be read instead of the real one.
const postgresGuards = [
  `create function stint_refuse() returns trigger language plpgsql as $$
    begin raise exception '% is append-only: % is refused', tg_table_name, tg_op; end $$`,
  ...[...appendOnly, 'log_head'].flatMap((table) => [
    `create trigger ${table}_no_truncate before truncate on ${table}
      for each statement execute function stint_refuse()`,
    `create trigger ${table}_no_delete before delete on ${table}
      for each statement execute function stint_refuse()`,
  ]),
  ...appendOnly.map(
    (table) => `create trigger ${table}_no_update before update on ${table}
      for each statement execute function stint_refuse()`,
  ),
  `do $do$ begin execute format($create$
    create function stint_audit_in_order() returns trigger language plpgsql
      set search_path = pg_catalog, %1$I, pg_temp as $body$
    declare head_size bigint; first_idx bigint; last_idx bigint; entries bigint;
    begin
      select size into head_size from %1$I.log_head;
      select min(idx), max(idx), count(*) into first_idx, last_idx, entries from added;
      if entries > 0 and (first_idx <> head_size or last_idx <> head_size + entries - 1) then
        raise exception 'audit_event is append-only: the next index is %%, not %%', head_size, first_idx;
      end if;
      return null;
    end $body$;
    create function stint_grant_ends() returns trigger language plpgsql
      set search_path = pg_catalog, %1$I, pg_temp as $body$
    begin
      if old.revoked_index is not null or new.revoked_index is null or new.id <> old.id or new.workload <> old.workload
        or new.issued_index <> old.issued_index or new.expires_at <> old.expires_at then
        raise exception 'grants only ever end, once';
      end if;
      return new;
    end $body$;
    create function stint_head_forward() returns trigger language plpgsql
      set search_path = pg_catalog, %1$I, pg_temp as $body$
    begin
      if new.id <> old.id or new.size < old.size or new.epoch < old.epoch or new.time < old.time
        or new.size <> (select coalesce(max(idx) + 1, 0) from %1$I.audit_event) then
        raise exception 'log_head only moves forward, with the entries';
      end if;
      return new;
    end $body$ $create$, current_schema()); end $do$`,
  `create trigger audit_event_in_order after insert on audit_event referencing new table as added
    for each statement execute function stint_audit_in_order()`,
  `create trigger grants_end_once before update on grants
    for each row execute function stint_grant_ends()`,
  `create trigger log_head_forward before update on log_head
    for each row execute function stint_head_forward()`,
]
