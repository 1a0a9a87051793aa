import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import type { PostgresServer } from './postgres-connection.ts'
import type { Session } from './postgres-session.ts'

const { escapeLiteral } = pg

const rolesPerStep = 250
const lockMsMax = 100
const roundsMax = 3

/**
 * Takes the login and the sessions from all of these roles at once, as far as nobody's lock is in the way for more than a
 * moment. What remains, and whatever the roles own, is for `endRole`.
 */
export async function disableRoles(server: PostgresServer, names: readonly string[], signal: AbortSignal): Promise<void> {
  for (let at = 0; at < names.length; at += rolesPerStep) {
    await server.run('disable', signal, (session) => disable(session, names.slice(at, at + rolesPerStep)))
  }
}

async function disable(session: Session, names: readonly string[]): Promise<void> {
  for (let round = 1; ; round++) {
    // To end sessions needs the rights of their roles; and who holds a lock on its own role has lost it by then.
    await session.query(forEach(names, `exists (select from pg_stat_activity where usesysid = oid) and not pg_has_role(oid, 'usage')`, 'grant %I to current_user with inherit true, set true'))
    await cut(session, names)
    await session.query(forEach(names, 'rolcanlogin', 'alter role %I nologin connection limit 0 password null'))
    await cut(session, names)
    // Who had passed the door shows its role only now.
    await setTimeout(20)
    if (round === roundsMax || (await countLeft(session, names)) === 0) return
  }
}

/** What fails for one role is passed over, and what was done for others is kept soon. */
function forEach(names: readonly string[], which: string, statement: string): string {
  return `do $$ declare
      role text; began timestamptz := clock_timestamp();
    begin
      for role in select rolname from pg_roles where rolname = any (array[${names.map(escapeLiteral).join(', ')}]) and ${which} order by rolname loop
        begin
          perform set_config('lock_timeout', '${lockMsMax}ms', true);
          execute format(${escapeLiteral(statement)}, role);
        exception when others then null;
        end;
        if clock_timestamp() > began + interval '50 ms' then
          commit;
          began := clock_timestamp();
        end if;
      end loop;
    end $$`
}

async function cut({ query }: Session, names: readonly string[]): Promise<void> {
  await query(`select pg_terminate_backend(pid) from pg_stat_activity where usename = any ($1::text[]) and pg_has_role(usesysid, 'usage')`, [names])
}

async function countLeft({ query }: Session, names: readonly string[]): Promise<number> {
  const [row] = await query<{ left: number }>(
    `select ((select count(*) from pg_roles where rolname = any ($1::text[]) and rolcanlogin)
      + (select count(*) from pg_stat_activity where usename = any ($1::text[])))::int as left`,
    [names],
  )
  return row?.left ?? 0
}
