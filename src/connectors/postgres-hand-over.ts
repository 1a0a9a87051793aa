import pg from 'pg'
import { runInTransaction, type Session } from './postgres-session.ts'

const { escapeIdentifier } = pg

/** A role that Stint's own role has the rights of. */
export interface RoleToClear {
  readonly name: string
  readonly reassignTo: string
}

/**
 * Gives away what the role owns in a database, and takes away what else it has there: rights, default rights, mappings. Of what
 * there can be very much, portions are committed by themselves, so that each try comes further than the one before.
 */
export async function handOver(session: Session, role: RoleToClear): Promise<void> {
  const [name, heir] = [escapeIdentifier(role.name), escapeIdentifier(role.reassignTo)]
  for (let after = 0; ; ) {
    const portion = await findLargeObjects(session, role, after)
    if (portion.length > 0) await session.query(portion.map(({ statement }) => statement).join(';'))
    if (portion.length < largeObjectsPerPortion) break
    after = portion.at(-1)?.oid ?? after
  }
  for (;;) {
    const portion = await findRelations(session, role)
    // Few are given with the rest.
    if (portion.length < relationsPerPortion) break
    await withRights(session, role, () => session.query(portion.map(({ statement }) => statement).join(';')))
  }
  await withRights(session, role, () => session.query(`reassign owned by ${name} to ${heir}; drop owned by ${name}`))
}

/**
 * For the moment, which nobody else ever sees, the heir may what the role may, for who is to own a function must be allowed to
 * create one in its schema; and Stint may what other agents may who gave rights to this one. Whether the role may create in
 * a schema was for its owner to say: where that is an agent, or was, it is not to keep anything from being given away.
 */
async function withRights(session: Session, role: RoleToClear, body: () => Promise<unknown>): Promise<void> {
  const [name, heir] = [escapeIdentifier(role.name), escapeIdentifier(role.reassignTo)]
  await runInTransaction(session, async () => {
    const schemas = await findClosedSchemas(session, role.name)
    const strangers = schemas.flatMap(({ owner, joined }) => (joined ? [] : [owner]))
    const givers = [...new Set([...(await findGivers(session, role.name)), ...strangers])].sort().map(escapeIdentifier).join(', ')
    await session.query(`grant ${name} to ${heir} with inherit true, set false;
      ${givers === '' ? '' : `grant ${givers} to current_user with inherit true, set false`}`)
    for (const { schema } of schemas) await session.query(`grant create on schema ${escapeIdentifier(schema)} to ${name}`)
    await body()
    for (const { schema, owner } of schemas) {
      if (owner !== role.name) await session.query(`revoke create on schema ${escapeIdentifier(schema)} from ${name}`)
    }
    await session.query(`${givers === '' ? '' : `revoke ${givers} from current_user;`} revoke ${name} from ${heir}`)
  })
}

interface Step {
  readonly oid: number
  readonly statement: string
}

const largeObjectsPerPortion = 5_000

/** Anybody can make any number of them, and give rights on them to anybody. */
function findLargeObjects({ query }: Session, { name, reassignTo }: RoleToClear, after: number): Promise<readonly Step[]> {
  return query<Step>(
    `select s.objid as oid, case s.deptype when 'o' then format('alter large object %s owner to %I', s.objid, $2::text)
        else format('revoke all on large object %s from %I cascade', s.objid, $1::text) end as statement
     from pg_roles me join pg_shdepend s on s.refclassid = 'pg_authid'::regclass and s.refobjid = me.oid
       join pg_largeobject_metadata l on l.oid = s.objid
     where me.rolname = $1 and s.classid = 'pg_largeobject'::regclass and s.objid > $3 and s.deptype in ('o', 'a')
       and s.dbid = (select oid from pg_database where datname = current_database()) and pg_has_role(current_user, l.lomowner, 'usage')
     order by s.objid limit ${largeObjectsPerPortion}`,
    [name, reassignTo, after],
  )
}

/** Each is locked with all that belongs to it, and the server has room for so many locks. */
const relationsPerPortion = 500

function findRelations({ query }: Session, { name, reassignTo }: RoleToClear): Promise<readonly Step[]> {
  return query<Step>(
    `select c.oid, format('alter table %s owner to %I', c.oid::regclass, $2::text) as statement
     from pg_roles me join pg_class c on c.relowner = me.oid
     where me.rolname = $1 and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
       -- The sequence of a column goes with its table.
       and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.refclassid = 'pg_class'::regclass
         and d.refobjsubid > 0 and d.deptype in ('a', 'i') and c.relkind = 'S')
     order by c.oid limit ${relationsPerPortion}`,
    [name, reassignTo],
  )
}

interface ClosedSchema {
  readonly schema: string
  readonly owner: string
  /** Whether Stint's own role has the owner's rights. */
  readonly joined: boolean
}

/** The schemas in which the role owns something and may create nothing, of those that Stint may act for the owner of. */
function findClosedSchemas({ query }: Session, name: string): Promise<readonly ClosedSchema[]> {
  return query<ClosedSchema>(
    `select distinct n.nspname::text as schema, owner.rolname::text as owner, pg_has_role(current_user, owner.oid, 'usage') as joined
     from pg_roles me join pg_shdepend s on s.refclassid = 'pg_authid'::regclass and s.refobjid = me.oid and s.deptype = 'o' and s.classid <> 'pg_largeobject'::regclass
         and s.dbid = (select oid from pg_database where datname = current_database())
       cross join lateral pg_identify_object(s.classid, s.objid, 0) as thing
       join pg_namespace n on quote_ident(n.nspname) = thing.schema
       join pg_roles owner on owner.oid = n.nspowner
     where me.rolname = $1 and not has_schema_privilege(me.oid, n.oid, 'create')
       and (pg_has_role(current_user, owner.oid, 'usage') or pg_has_role(current_user, owner.oid, 'member with admin option')) order by 1`,
    [name],
  )
}

/** Who owns things on which the role was given rights, of those whom Stint may act for and does not yet. */
async function findGivers({ query }: Session, name: string): Promise<readonly string[]> {
  const rows = await query<{ name: string }>(
    `select distinct owner.rolname::text as name
     from pg_roles me join pg_shdepend given on given.refclassid = 'pg_authid'::regclass and given.refobjid = me.oid and given.deptype = 'a'
       join pg_shdepend owned on (owned.dbid, owned.classid, owned.objid) = (given.dbid, given.classid, given.objid)
         and owned.refclassid = 'pg_authid'::regclass and owned.deptype = 'o'
       join pg_roles owner on owner.oid = owned.refobjid
     where me.rolname = $1 and owner.oid <> me.oid and pg_has_role(current_user, owner.oid, 'member with admin option')
       and not pg_has_role(current_user, owner.oid, 'usage') order by 1`,
    [name],
  )
  return rows.map((row) => row.name)
}
