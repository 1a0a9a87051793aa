import pg from 'pg'
import { ConnectorError } from './connector.ts'
import type { PostgresServer } from './postgres-connection.ts'
import { sqlState } from './postgres-failure.ts'
import { retryConflicts, runInTransaction, type Session } from './postgres-session.ts'
import type { RootUrl } from './postgres-url.ts'

const { escapeIdentifier, escapeLiteral } = pg

/** `stint_<instance>_<grant id without its prefix>`: 41 characters, of the 63 bytes that a name may have. */
export function nameRole(instance: string, grant: string): string {
  const [, id] = /^grant_([0-9a-z]{26})$/.exec(grant) ?? []
  if (id === undefined || !/^[0-9a-z]{8}$/.test(instance)) throw new Error(`no role can be named for the grant ${grant} of ${instance}`)
  return `stint_${instance}_${id}`
}

export interface RoleToMake {
  readonly name: string
  /** As `createScramVerifier` makes it. */
  readonly verifier: string
  readonly groups: readonly string[]
  readonly connectionsMax: number
  readonly searchPath: readonly string[]
  readonly reassignTo: string
  /** For how long the role can log in, should nothing end it: a second fence, on which nothing relies. */
  readonly livesMs: number
}

/** Makes the role with all that belongs to it, or nothing of it: one transaction. Returns where it was made. */
export async function makeRole(server: PostgresServer, role: RoleToMake, signal: AbortSignal): Promise<RootUrl> {
  const { name, verifier, connectionsMax, searchPath, reassignTo } = role
  const quoted = escapeIdentifier(name)
  // Sorted, so that no two mints wait for each other's lock on a group.
  const groups = [...new Set(role.groups)].sort()
  return retryConflicts(signal, () =>
    server.run('mint', signal, (session) =>
      runInTransaction(session, async () => {
        // First of all, for whoever ends this grant meanwhile waits at the name.
        await createRole(session, `create role ${quoted} login inherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls
          connection limit ${connectionsMax} password ${escapeLiteral(verifier)}`)
        const problems = await judgeGroups(session, groups, reassignTo)
        if (problems.length > 0) throw new ConnectorError({ outcome: 'nothing_done', publicMessage: problems.join(' ') })
        const until = await readEnd(session, role.livesMs)
        const path = searchPath.length === 0 ? '' : `alter role ${quoted} set search_path = ${searchPath.map(escapeIdentifier).join(', ')};`
        // Without SET the role cannot become its group, so that whatever it makes is its own, and goes where its own things go.
        await session.query(`alter role ${quoted} valid until ${escapeLiteral(until)}; ${path}
          grant ${groups.map(escapeIdentifier).join(', ')} to ${quoted} with admin false, inherit true, set false`)
        return session.root
      }),
    ),
  )
}

async function createRole({ query, root }: Session, statement: string): Promise<void> {
  await query(statement).catch((error: unknown) => {
    if (sqlState(error) !== '42710') throw error
    // Grants have their ids for ever: this is what an earlier try has made, and it is to be ended.
    throw new ConnectorError({ outcome: 'unknown', publicMessage: `PostgreSQL at ${root.host}:${root.port} has a role of this grant already.`, cause: error })
  })
}

/** Lets the role log in until then, and not before that time only. Throws where it is not there. */
export async function prolongRole(server: PostgresServer, name: string, livesMs: number, signal: AbortSignal): Promise<void> {
  await retryConflicts(signal, () =>
    server.run('mint', signal, async (session) => {
      const until = await readEnd(session, livesMs)
      await session.query(`alter role ${escapeIdentifier(name)} valid until ${escapeLiteral(until)}`).catch((error: unknown) => {
        if (sqlState(error) !== '42704') throw error
        throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `The role ${name} is not there any more.`, cause: error })
      })
    }),
  )
}

/** By the server's clock, which is the one that judges it. */
async function readEnd({ query }: Session, livesMs: number): Promise<string> {
  const [row] = await query<{ until: string }>(`select (clock_timestamp() + $1 * interval '1 millisecond')::text as until`, [Math.max(0, livesMs)])
  return row?.until ?? ''
}

/** What the server itself has made and lends without danger to itself. Default deny: what is new is not lent. */
const harmless = [
  'pg_read_all_data', 'pg_write_all_data', 'pg_maintain', 'pg_monitor', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables',
]

interface GroupRow {
  readonly name: string
  readonly found: boolean
  readonly superior: string | null
  readonly why: 'superuser' | 'createrole' | 'replication' | 'bypassrls' | 'root' | 'reassign_to' | 'owns_database' | 'predefined' | null
}

const reasons: Readonly<Record<NonNullable<GroupRow['why']>, string>> = {
  superuser: 'is a superuser',
  createrole: 'may create roles',
  replication: 'may copy the whole server (REPLICATION)',
  bypassrls: 'passes row security by (BYPASSRLS)',
  root: 'is the root role of Stint',
  reassign_to: 'owns what other agents have left behind (reassign_to)',
  owns_database: 'owns the database',
  predefined: 'is a role by which the server itself, its files or its sessions are reached',
}

/** Which of these groups cannot be lent and why, in sentences; a role counts for whatever it is a member of, however indirectly. */
export async function judgeGroups({ query }: Session, groups: readonly string[], reassignTo: string): Promise<readonly string[]> {
  const rows = await query<GroupRow>(
    `with recursive named as (select name, r.oid from unnest($1::text[]) as name left join pg_roles r on r.rolname = name),
      above as (
        select name, oid from named where oid is not null
        union
        select above.name, m.roleid from above join pg_auth_members m on m.member = above.oid),
      judged as (
        select above.name, r.rolname as superior, case
          when r.rolsuper then 'superuser'
          when r.rolcreaterole and r.rolname <> current_user then 'createrole'
          when r.rolreplication then 'replication'
          when r.rolbypassrls then 'bypassrls'
          when r.rolname = current_user then 'root'
          when r.rolname = $2 then 'reassign_to'
          when exists (select from pg_database d where d.datname = current_database() and d.datdba = r.oid) then 'owns_database'
          -- Ids below 16384 are the server's own (access/transam.h).
          when r.oid < 16384 and r.rolname <> all ($3::text[]) then 'predefined' end as why
        from above join pg_roles r on r.oid = above.oid)
    select named.name, named.oid is not null as found, judged.superior, judged.why
    from named left join judged on judged.name = named.name and judged.why is not null order by named.name, judged.superior`,
    [groups, reassignTo, harmless],
  )
  return rows.flatMap(({ name, found, superior, why }) => {
    if (!found) return [`There is no role ${name}, which the tool's actions name: an admin creates it, or takes it out of the catalog file.`]
    if (why === null) return []
    const through = superior === name ? 'it' : `it is a member of ${superior ?? ''}, which`
    return [`The role ${name}, which the tool's actions name, is not lent: ${through} ${reasons[why]}.`]
  })
}

/** The roles that this broker has made and that are still there, page by page. */
export async function* listRoles(server: PostgresServer, instance: string, signal: AbortSignal): AsyncGenerator<{ readonly grant: string; readonly reference: string }> {
  let after = ''
  for (;;) {
    const page = await server.run('end', signal, ({ query }) =>
      query<{ name: string }>(
        `select rolname::text as name from pg_roles where rolname ~ $1 and rolname::text collate "C" > $2 order by rolname::text collate "C" limit 1000`,
        [`^stint_${instance}_[0-9a-z]{26}$`, after],
      ),
    )
    for (const { name } of page) yield { grant: `grant_${name.slice(-26)}`, reference: name }
    const last = page.at(-1)
    if (last === undefined) return
    after = last.name
  }
}
