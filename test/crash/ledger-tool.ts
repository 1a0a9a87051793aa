import { randomBytes } from 'node:crypto'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import { ownerUrl, runAsOwner, type Server } from '../template.ts'

/** A database that agents are lent roles of, on a real PostgreSQL, seen with the eyes of its superuser. */
export interface LedgerTool {
  /** The files of a policy set that lends it to the team `support`. */
  readonly policies: Readonly<Record<string, string>>
  /** The roles that Stint's root role has made and that are there, by the grants that their names tell. */
  readRoles(): Promise<Map<string, LedgerRole>>
  /** Ends the connections of the root role, or those alone in the middle of something; returns how many. */
  cutRoot(onlyBusy: boolean): Promise<number>
  /** Waits until no connection of the root role is left, and no longer than that. */
  untilRootIsGone(msMax: number): Promise<void>
  /** How many tables agents have made that are there. */
  countTables(): Promise<number>
  /** How many rows there are of everything that roles leave behind. */
  countTraces(): Promise<number>
  close(): Promise<void>
}

export interface LedgerRole {
  readonly name: string
  readonly canLogIn: boolean
  readonly sessions: number
}

/** Makes the database with its roles, as an admin does for Stint. The root role's URL goes to a file in `folder`. */
export async function createLedgerTool(server: Server, folder: string): Promise<LedgerTool> {
  const id = randomBytes(4).toString('hex')
  const [database, root, heir, reader, writer] = [`ledger_${id}`, `root_${id}`, `heir_${id}`, `reader_${id}`, `writer_${id}`] as const
  await runAsOwner(server, `create database ${database}`)
  const owner = new pg.Client({ connectionString: ownerUrl(server, database) })
  owner.on('error', () => undefined)
  await owner.connect()
  await owner.query(`
    create role ${root} login createrole password 'root-password';
    create role ${heir} nologin; grant ${heir} to ${root} with inherit true, set true;
    create role ${reader} nologin; grant ${reader} to ${root} with admin true, inherit false, set false;
    create role ${writer} nologin; grant ${writer} to ${root} with admin true, inherit false, set false;
    create schema work; create table work.notes (text text); insert into work.notes values ('a note');
    grant usage on schema work to ${reader}, ${writer}; grant select on work.notes to ${reader};
    grant insert on work.notes to ${writer}; grant create on schema work to ${writer}`)
  const urlFile = join(folder, 'ledger.url')
  writeFileSync(urlFile, `postgres://${root}:root-password@127.0.0.1:${server.port}/${database}?sslmode=disable\n`, { mode: 0o600 })
  chmodSync(urlFile, 0o600)

  const countRoot = async (): Promise<number> => (await owner.query('select 1 from pg_stat_activity where usename = $1', [root])).rowCount ?? 0
  const count = async (text: string, values: readonly unknown[] = []): Promise<number> => {
    const { rows } = await owner.query<{ count: number }>(`select count(*)::int as count ${text}`, [...values])
    return rows[0]?.count ?? 0
  }
  return {
    policies: {
      'tools/ledger.yaml': `tool: ledger
connector: postgres
sensitivity: low
ttl: { default: 10m, max: 2h }
actions:
  read: { roles: [${reader}] }
  write: { roles: [${writer}] }
config:
  url: { from: "file:${urlFile}" }
  reassign_to: ${heir}
  search_path: [work]
  connections_max: 4
  private_network: true
`,
      'rules.cedar': `@id("support-works-on-the-ledger")
permit (principal in Team::"support", action in [Action::"ledger:read", Action::"ledger:write"], resource in Tool::"ledger");
`,
    },
    async readRoles() {
      const { rows } = await owner.query<LedgerRole>(
        `select made.rolname::text as name, made.rolcanlogin as "canLogIn",
          (select count(*)::int from pg_stat_activity where usesysid = made.oid) as sessions
        from pg_auth_members m join pg_roles made on made.oid = m.roleid join pg_roles root on root.oid = m.member
        where root.rolname = $1 and made.rolname ~ '^stint_[0-9a-z]{8}_[0-9a-z]{26}$' group by made.oid, made.rolname, made.rolcanlogin`,
        [root],
      )
      return new Map(rows.map((role) => [`grant_${role.name.slice(-26)}`, role]))
    },
    async cutRoot(onlyBusy) {
      const { rowCount } = await owner.query(`select pg_terminate_backend(pid) from pg_stat_activity where usename = $1 and (state <> 'idle' or not $2)`, [root, onlyBusy])
      return rowCount ?? 0
    },
    async untilRootIsGone(msMax) {
      const giveUpMs = performance.now() + msMax
      while ((await countRoot()) > 0 && performance.now() < giveUpMs) await setTimeout(5)
    },
    countTables: () => count(`from pg_tables where schemaname = 'work' and tablename <> 'notes'`),
    // What is shared by all databases of the server, as far as it is this one's.
    countTraces: () =>
      count(
        `from (
          select 1 from pg_auth_members m join pg_roles r on r.oid = m.roleid where r.rolname = any ($1::text[])
          union all select 1 from pg_auth_members m join pg_roles r on r.oid = m.member where r.rolname = any ($1::text[])
          union all select 1 from pg_shdepend s join pg_database d on d.oid = s.dbid and d.datname = current_database() where s.deptype = 'a'
          union all select 1 from pg_db_role_setting s where s.setrole <> 0 and not exists (select from pg_roles r where r.oid = s.setrole)) traces`,
        [[root, heir, reader, writer]],
      ),
    async close() {
      const { rows } = await owner.query<{ name: string }>('select distinct r.rolname::text as name from pg_auth_members m join pg_roles r on r.oid = m.roleid where m.member = $1::regrole', [root])
      await owner.end()
      await runAsOwner(server, `drop database ${database} with (force)`)
      for (const name of new Set([...rows.map((row) => row.name), root, heir, reader, writer])) await runAsOwner(server, `drop role if exists ${pg.escapeIdentifier(name)}`)
    },
  }
}
