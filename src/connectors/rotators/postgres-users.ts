import pg from 'pg'
import type { Finding } from '../connector.ts'
import type { Session } from '../postgres-session.ts'

const { escapeIdentifier, escapeLiteral } = pg

interface AdminRow {
  readonly superuser: boolean
  readonly createrole: boolean
}

interface UserRow {
  readonly name: string
  readonly superuser: boolean
  readonly mine: boolean
  readonly acts: boolean
  /** Of its own, which `set` takes away; without the role that it acts as. */
  readonly settings: readonly string[]
}

/**
 * Whether the role of this session has just the rights that it needs to change both users, and both act as the role that they
 * share, where there is one; in sentences that name the remedy.
 */
export async function checkUsers({ query, root }: Session, users: readonly string[], role: string | undefined): Promise<readonly Finding[]> {
  const [admin] = await query<AdminRow>('select rolsuper as superuser, rolcreaterole as createrole from pg_roles where rolname = current_user')
  const rows = await query<UserRow>(
    `select rolname::text as name, rolsuper as superuser, pg_has_role(current_user, oid, 'member with admin option') as mine,
      $2::text is null or exists (select from pg_db_role_setting s, unnest(s.setconfig) setting where s.setrole = oid and s.setdatabase = 0 and setting = 'role=' || $2::text) as acts,
      array(select split_part(setting, '=', 1) from pg_db_role_setting s, unnest(s.setconfig) setting where s.setrole = oid and ($2::text is null or setting <> 'role=' || $2::text)) as settings
    from pg_roles where rolname = any ($1::text[])`,
    [users, role ?? null],
  )
  const me = escapeIdentifier(root.user)
  const findings: string[] = []
  if (admin?.superuser === true) findings.push(`The role ${root.user}, which changes ${users.join(' and ')}, is a superuser, which is far more than it needs: an admin makes one with LOGIN and CREATEROLE.`)
  if (admin?.createrole === false) findings.push(`The role ${root.user} may not change ${users.join(' and ')}: ALTER ROLE ${me} CREATEROLE.`)
  for (const user of users) {
    const [found, quoted] = [rows.find(({ name }) => name === user), escapeIdentifier(user)]
    if (found === undefined) findings.push(`There is no user ${user}: CREATE ROLE ${quoted} LOGIN; GRANT ${quoted} TO ${me} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE.`)
    if (found?.superuser === true) findings.push(`The user ${user} is a superuser, whom only a superuser may change: ALTER ROLE ${quoted} NOSUPERUSER.`)
    if (found?.mine === false) findings.push(`The role ${root.user} may not change ${user}: GRANT ${quoted} TO ${me} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE.`)
    if (found?.acts === false) findings.push(`The user ${user} does not act as ${role ?? ''}: ALTER ROLE ${quoted} SET role = ${escapeLiteral(role ?? '')}.`)
    if (found !== undefined && found.settings.length > 0) findings.push(`The user ${user} has settings of its own (${found.settings.join(', ')}), which its next password takes away, for whoever is lent it can make some: an admin makes those that are needed for the database, and names role in the catalog file.`)
  }
  if (findings.length > 0) return findings.map((sentence) => ({ ok: false, sentence }))
  return [{ ok: true, sentence: `The role ${root.user} may change ${users.join(' and ')}, who take turns, and need not do more.` }]
}
