import pg from 'pg'
import type { PostgresConfig } from '../policy/kinds/postgres.ts'
import { ConnectorError, type Finding } from './connector.ts'
import type { PostgresServer } from './postgres-connection.ts'
import { judgeGroups } from './postgres-roles.ts'
import type { Session } from './postgres-session.ts'

const { escapeIdentifier } = pg

export interface ToCheck {
  readonly config: PostgresConfig
  /** The group roles of all actions of the tool. */
  readonly groups: readonly string[]
  /** Those of each action. */
  readonly actions: ReadonlyMap<string, readonly string[]>
}

/** Whether the server answers and the root role has just the rights that it needs, in sentences that name the remedy. */
export async function checkServer(server: PostgresServer, toCheck: ToCheck, signal: AbortSignal): Promise<readonly Finding[]> {
  const findings: Finding[] = []
  try {
    await server.runAlone(signal, async (session) => {
      const acting = await findActing(session)
      findings.push(...(await checkRoot(acting, toCheck)), ...(await checkLogin(session, acting)), ...(await checkPlace(session)))
      for (const part of [checkHeir, checkGroups, checkDatabase]) findings.push(...(await part(acting, toCheck)))
    })
  } catch (error) {
    findings.push(bad(error instanceof ConnectorError ? error.adminMessage : 'The check failed for a reason of its own.'))
  }
  return findings
}

/** The session as the role that acts in it: who logs in may share the root role with another (`ALTER ROLE … SET role`). */
async function findActing(session: Session): Promise<Session> {
  const [row] = await session.query<{ name: string }>('select current_user::text as name')
  return { ...session, root: { ...session.root, user: row?.name ?? session.root.user } }
}

/** What who logs in may do beside what the root role may, which it shares: it can go back to it at any time. */
async function checkLogin({ query, root: { user } }: Session, { root }: Session): Promise<readonly Finding[]> {
  if (user === root.user) return []
  const [row] = await query<{ attributes: readonly string[]; others: readonly string[] }>(
    `select array_remove(array[case when rolsuper then 'SUPERUSER' end, case when rolcreaterole then 'CREATEROLE' end, case when rolcreatedb then 'CREATEDB' end,
        case when rolreplication then 'REPLICATION' end, case when rolbypassrls then 'BYPASSRLS' end], null) as attributes,
      array(select distinct g.rolname::text from pg_auth_members m join pg_roles g on g.oid = m.roleid
        where m.member = login.oid and g.rolname <> current_user and g.rolname <> 'pg_use_reserved_connections' order by 1) as others
    from pg_roles login where rolname = session_user`,
  )
  const login = escapeIdentifier(user)
  const findings = [
    ...(row?.attributes ?? []).map((attribute) => bad(`The user ${user} has ${attribute}, which it does not need, for it acts as ${root.user}: ALTER ROLE ${login} NO${attribute}.`)),
    ...(row?.others ?? []).map((other) => bad(`The user ${user} is a member of ${other}, which it does not need, for it acts as ${root.user}: REVOKE ${escapeIdentifier(other)} FROM ${login}.`)),
  ]
  return findings.length > 0 ? findings : [good(`The user ${user} logs in, acts as ${root.user}, and has nothing beside that.`)]
}

interface RoleRow {
  readonly version: number
  readonly encrypted: boolean
  readonly superuser: boolean
  readonly createrole: boolean
  readonly more: readonly string[]
  readonly others: readonly string[]
}

async function checkRoot({ query, root }: Session, { config, groups }: ToCheck): Promise<readonly Finding[]> {
  const [row] = await query<RoleRow>(
    `select current_setting('server_version_num')::int as version,
      coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false) as encrypted,
      rolsuper as superuser, rolcreaterole as createrole,
      array_remove(array[case when rolcreatedb then 'CREATEDB' end, case when rolreplication then 'REPLICATION' end, case when rolbypassrls then 'BYPASSRLS' end], null) as more,
      -- What it made itself it is a member of by having made it.
      array(select distinct g.rolname::text from pg_auth_members m join pg_roles g on g.oid = m.roleid
        where m.member = me.oid and g.rolname <> all ($1::text[]) and g.rolname <> 'pg_use_reserved_connections' and g.rolname !~ '^stint_[0-9a-z]{8}_[0-9a-z]{26}$' order by 1) as others
    from pg_roles me where rolname = current_user`,
    [[...groups, config.reassign_to]],
  )
  if (row === undefined) return [bad('The root role cannot see itself in pg_roles.')]
  const me = escapeIdentifier(root.user)
  const place = `PostgreSQL ${Math.floor(row.version / 10_000)}.${row.version % 10_000} answers at ${root.host}:${root.port}, database ${root.database}, ${row.encrypted ? 'over TLS' : 'without TLS'}.`
  const findings = [row.version >= 160_000 ? good(place) : bad(`${place} Stint needs 16 or later, where a member of a role can be kept from becoming that role.`)]
  if (row.superuser) return [...findings, bad(`The root role ${root.user} is a superuser, which is far more than it needs: make a role with LOGIN and CREATEROLE for Stint.`)]
  findings.push(row.createrole ? good(`The root role ${root.user} may create roles, and is no superuser.`) : bad(`The root role ${root.user} may not create roles: ALTER ROLE ${me} CREATEROLE.`))
  for (const attribute of row.more) findings.push(bad(`The root role ${root.user} has ${attribute}, which it does not need: ALTER ROLE ${me} NO${attribute}.`))
  for (const other of row.others) findings.push(bad(`The root role ${root.user} is a member of ${other}, which it does not need: REVOKE ${escapeIdentifier(other)} FROM ${me}.`))
  return findings
}

/** Agents who take all connections of a server must not keep Stint from ending them (invariant 8). */
async function checkPlace({ query, root }: Session): Promise<readonly Finding[]> {
  const [row] = await query<{ reserved: number; member: boolean }>(
    `select coalesce(current_setting('reserved_connections', true), '0')::int as reserved,
      exists (select from pg_roles where rolname = 'pg_use_reserved_connections' and pg_has_role(session_user, oid, 'usage')) as member`,
  )
  const { reserved = 0, member = false } = row ?? {}
  if (reserved >= 2 && member) return [good(`${reserved} connections are kept for ${root.user} and its like, whatever agents take.`)]
  const remedies = [
    ...(reserved >= 2 ? [] : ['set reserved_connections = 5 in postgresql.conf and restart the server']),
    ...(member ? [] : [`GRANT pg_use_reserved_connections TO ${escapeIdentifier(root.user)}`]),
  ]
  return [bad(`Agents who take all connections of the server could keep the root role ${root.user} from ending them: ${remedies.join(', and ')}.`)]
}

interface HeirRow {
  readonly login: boolean
  readonly attributes: boolean
  readonly above: readonly string[]
  readonly rights: number
  readonly inherits: boolean
  readonly sets: boolean
}

/** Functions and views that agents leave behind run with the heir's rights from then on: so it must have none. */
async function checkHeir({ query, root }: Session, { config }: ToCheck): Promise<readonly Finding[]> {
  const name = config.reassign_to
  const [row] = await query<HeirRow>(
    `select rolcanlogin as login, (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls) as attributes,
      array(select g.rolname::text from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = heir.oid order by 1) as above,
      (select count(*)::int from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = heir.oid and deptype = 'a') as rights,
      pg_has_role(current_user, heir.oid, 'usage') as inherits, pg_has_role(current_user, heir.oid, 'set') as sets
    from pg_roles heir where rolname = $1`,
    [name],
  )
  const heir = escapeIdentifier(name)
  if (row === undefined) return [bad(`There is no role ${name} (reassign_to) to own what agents leave behind: CREATE ROLE ${heir} NOLOGIN.`)]
  const findings: Finding[] = []
  if (row.login) findings.push(bad(`The role ${name} (reassign_to) can log in, which it need not: ALTER ROLE ${heir} NOLOGIN.`))
  if (row.attributes) findings.push(bad(`The role ${name} (reassign_to) has attributes such as SUPERUSER or CREATEROLE, which functions left behind by agents could use: take them away.`))
  for (const above of row.above) findings.push(bad(`The role ${name} (reassign_to) is a member of ${above}, whose rights functions left behind by agents could use: REVOKE ${escapeIdentifier(above)} FROM ${heir}.`))
  if (row.rights > 0) findings.push(bad(`The role ${name} (reassign_to) was granted rights on ${row.rights} things, which functions left behind by agents could use: REVOKE them.`))
  if (!row.inherits || !row.sets) {
    findings.push(bad(`The root role ${root.user} may not give things to ${name} (reassign_to): GRANT ${heir} TO ${escapeIdentifier(root.user)} WITH INHERIT TRUE, SET TRUE.`))
  }
  return findings.length > 0 ? findings : [good(`What agents leave behind goes to ${name}, which has no rights of its own.`)]
}

interface GroupRow {
  readonly name: string
  readonly admin: boolean
  readonly more: boolean
  readonly owns: number
}

async function checkGroups(session: Session, { groups, config }: ToCheck): Promise<readonly Finding[]> {
  const { query, root } = session
  const me = escapeIdentifier(root.user)
  const problems = await judgeGroups(session, groups, config.reassign_to)
  const rows = await query<GroupRow>(
    `select g.rolname::text as name, pg_has_role(current_user, g.oid, 'member with admin option') as admin,
      exists (select from pg_auth_members m where m.roleid = g.oid and m.member = current_user::regrole and (m.inherit_option or m.set_option)) as more,
      (select count(*)::int from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = g.oid and deptype = 'o') as owns
    from pg_roles g where g.rolname = any ($1::text[]) order by 1`,
    [groups],
  )
  const findings = problems.map(bad)
  for (const { name, admin, more, owns } of rows) {
    const group = escapeIdentifier(name)
    if (!admin) findings.push(bad(`The root role ${root.user} may not lend ${name}: GRANT ${group} TO ${me} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE.`))
    if (more) findings.push(bad(`The root role ${root.user} has the rights of ${name} itself, which it does not need: GRANT ${group} TO ${me} WITH INHERIT FALSE, SET FALSE.`))
    if (owns > 0) {
      findings.push(bad(`The role ${name} owns ${owns} things (or default privileges): what an agent lets others do with them outlives its grant. Give them to a role that is not lent, and grant ${name} what it needs.`))
    }
  }
  return findings.length > 0 ? findings : [good(`The roles that are lent are right: ${groups.join(', ')}.`)]
}

async function checkDatabase({ query, root }: Session, { config, actions, groups }: ToCheck): Promise<readonly Finding[]> {
  const [row] = await query<{ connecting: readonly string[]; schemas: readonly string[] }>(
    `select array(select rolname::text from pg_roles where rolname = any ($1::text[]) and has_database_privilege(oid, current_database(), 'connect')) as connecting,
      array(select nspname::text from pg_namespace where nspname = any ($2::text[])) as schemas`,
    [groups, config.search_path],
  )
  const findings: Finding[] = []
  for (const [action, roles] of actions) {
    if (roles.some((role) => row?.connecting.includes(role))) continue
    findings.push(bad(`With the action ${action} nobody could connect to the database ${root.database}: GRANT CONNECT ON DATABASE ${escapeIdentifier(root.database)} to one of its roles.`))
  }
  for (const schema of config.search_path) {
    if (schema === '$user' || row?.schemas.includes(schema)) continue
    findings.push(bad(`There is no schema ${schema} in the database ${root.database}, which search_path names.`))
  }
  return findings
}

function good(sentence: string): Finding {
  return { ok: true, sentence }
}

function bad(sentence: string): Finding {
  return { ok: false, sentence }
}
