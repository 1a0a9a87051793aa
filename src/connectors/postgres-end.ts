import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import { ConnectorError } from './connector.ts'
import type { PostgresServer } from './postgres-connection.ts'
import { isConflict, isLost, quoteAnswer, sqlState } from './postgres-failure.ts'
import { handOver } from './postgres-hand-over.ts'
import { retryConflicts, runInTransaction, type Session } from './postgres-session.ts'
import type { RootUrl } from './postgres-url.ts'

const { escapeIdentifier, escapeLiteral } = pg

export interface RoleToEnd {
  readonly name: string
  readonly reassignTo: string
  /** Where it was made, as `describePlace` says it, as far as that is known. */
  readonly place?: string
}

/** What of a role keeps it from being dropped, once no session of it is left. */
interface Remains {
  readonly prepared: readonly { readonly gid: string; readonly database: string }[]
  /** In which databases something is owned by the role, or something was granted to it. */
  readonly databases: readonly string[]
}

/**
 * Ends a role for good: it cannot log in from the first step on, which is committed by itself; then its sessions are ended,
 * what it owns is given to another role, what was granted to it is taken away, and it is dropped. Each step can be done
 * again, so that whoever comes after a crash goes on from wherever it was left.
 */
export async function endRole(server: PostgresServer, role: RoleToEnd, signal: AbortSignal): Promise<void> {
  await retryConflicts(signal, () =>
    server.run('end', signal, async (session) => {
      for (;;) {
        const oid = await findRole(session, role.name)
        if (oid === undefined && (await isNameFree(session, role.name))) return judgePlace(session, role)
        if (oid === undefined) continue
        try {
          await disableRole(session, role.name, oid)
          return await dropRole(server, session, role, oid, signal)
        } catch (error) {
          // Who ends it at the same time may be done first; then each step fails in its own way.
          if (isLost(error) || (await findRole(session, role.name)) !== undefined) throw error
        }
      }
    }),
  )
}

/** That a server does not have the role says nothing of the server on which it was made. */
function judgePlace({ root }: Session, { name, place = describePlace(root) }: RoleToEnd): void {
  if (place === describePlace(root)) return
  const publicMessage = `The role ${name} was made at ${place}, and is not at ${describePlace(root)}, which the tool's URL names now: an admin sees whether it is gone there, and writes the grant off.`
  throw new ConnectorError({ outcome: 'nothing_done', publicMessage })
}

/** A server, as `host:port`. */
export function describePlace({ host, port }: RootUrl): string {
  return `${host}:${port}`
}

async function findRole({ query }: Session, name: string): Promise<number | undefined> {
  const [row] = await query<{ oid: number }>('select oid from pg_roles where rolname = $1', [name])
  return row?.oid
}

/**
 * Whether the role is not there for good. A mint that has not committed yet would still make it: so this claims the name,
 * which waits for any such transaction, and lets go of it.
 */
async function isNameFree(session: Session, name: string): Promise<boolean> {
  await session.query('begin')
  try {
    await session.query(`create role ${escapeIdentifier(name)}`)
    return true
  } catch (error) {
    if (!/^(?:42710|23505)$/.test(sqlState(error))) throw error
    return false
  } finally {
    await session.query('rollback').catch(() => undefined)
  }
}

const roundsMax = 50
const roundsOfClearing = 4

/**
 * An agent that keeps a change of its own role open (its password is its to change) would hold this up: its sessions are
 * ended then, and the change tried in the same breath.
 */
async function disableRole(session: Session, name: string, oid: number): Promise<void> {
  const role = escapeIdentifier(name)
  for (let round = 1; ; round++) {
    try {
      await runInTransaction(session, async () => {
        if (round > 1) await terminate(session, oid)
        await session.query(`set local lock_timeout = '300ms'; alter role ${role} nologin connection limit 0 password null`)
      })
      return
    } catch (error) {
      if (sqlState(error) === '42501') {
        throw new ConnectorError({
          outcome: 'nothing_done',
          publicMessage: `The root role ${session.root.user} may not change the role ${name}, which another root role made, or has lost CREATEROLE: an admin runs GRANT ${role} TO ${escapeIdentifier(session.root.user)} WITH ADMIN OPTION.`,
          cause: error,
        })
      }
      if ((sqlState(error) !== '55P03' && !isConflict(error)) || round === roundsMax) throw error
      await joinRole(session, name)
    }
  }
}

/** CREATEROLE gave the right to do this with each role that it made: from then on its sessions and its things can be ended. */
export async function joinRole({ query }: Session, name: string): Promise<void> {
  await query(`grant ${escapeIdentifier(name)} to current_user with inherit true, set true`)
}

async function terminate({ query }: Session, oid: number): Promise<void> {
  await query('select pg_terminate_backend(pid) from pg_stat_activity where usesysid = $1', [oid])
}

/** Of a role that is disabled already: what goes wrong here does not leave it as dangerous as it was, and the sentence says so. */
async function dropRole(server: PostgresServer, session: Session, role: RoleToEnd, oid: number, signal: AbortSignal): Promise<void> {
  try {
    await clearRole(server, session, role, oid, signal)
  } catch (error) {
    if (isConflict(error) || isLost(error)) throw error
    const holders = sqlState(error) === '55P03' ? await listHolders(session, oid).catch(() => []) : []
    throw describeObstacle(error, role, holders)
  }
}

const holdersListed = 5

/** Who holds locks on a role, or on what it owns in the URL's database: an agent among them may do so on purpose. */
async function listHolders({ query }: Session, oid: number): Promise<readonly string[]> {
  const rows = await query<{ name: string }>(
    `select distinct a.usename as name from pg_locks l join pg_stat_activity a on a.pid = l.pid
      where l.granted and l.pid <> pg_backend_pid() and a.usename is not null and (
        (l.locktype = 'object' and l.classid = 'pg_authid'::regclass and l.objid = $1)
        or (l.locktype = 'relation' and l.relation in (select oid from pg_class where relowner = $1)))
      order by 1 limit ${holdersListed}`,
    [oid],
  )
  return rows.map(({ name }) => name)
}

async function clearRole(server: PostgresServer, session: Session, role: RoleToEnd, oid: number, signal: AbortSignal): Promise<void> {
  const { name } = role
  for (let round = 1; ; round++) {
    await endSessions(session, name, oid)
    try {
      const remains = await readRemains(session, name, oid)
      if (remains.prepared.length > 0 || remains.databases.length > 0) await joinRole(session, name)
      for (const { database, gids } of groupByDatabase(remains.prepared)) {
        await server.runAlone(signal, (there) => rollBackPrepared(there, name, gids), database)
      }
      for (const database of remains.databases) {
        if (database === session.root.database) await handOver(session, role)
        else await server.runAlone(signal, (there) => handOver(there, role), database)
      }
      const dropped = await runInTransaction(session, async () => {
        // The last look: who had passed the door before it was locked, and was not to be seen yet.
        if ((await look(session, oid)).sessions > 0) return false
        await session.query(`drop role ${escapeIdentifier(name)}`)
        return true
      })
      if (dropped) return
    } catch (error) {
      // Something has come to be its own since it was looked for, as the end of a transaction that was being rolled back; or
      // somebody ends at the same time to whom it gave rights or who gave some to it, of which each undoes some for the other.
      if (!/^(?:2BP01|42501)$/.test(sqlState(error)) || round >= roundsOfClearing || signal.aborted) throw error
      await setTimeout(Math.random() * 50 * round)
    }
  }
}

async function readRemains(session: Session, name: string, oid: number): Promise<Remains> {
  const prepared = await session.query<{ gid: string; database: string }>('select gid, database::text as database from pg_prepared_xacts where owner = $1', [name])
  // What belongs to the whole server can be handed over from any database.
  const databases = await session.query<{ name: string }>(
    `select distinct coalesce(d.datname, current_database())::text as name from pg_shdepend s left join pg_database d on d.oid = s.dbid
     where s.refclassid = 'pg_authid'::regclass and s.refobjid = $1 order by 1`,
    [oid],
  )
  return { prepared, databases: databases.map((database) => database.name) }
}

interface Seen {
  readonly sessions: number
  /** Whether some session is being opened, of which nobody can say yet whose it is. */
  readonly starting: boolean
}

/**
 * A session shows its role only once it is open, a moment after its right to log in was looked at. Until then all that shows
 * is the transaction in which it is being opened.
 */
async function look({ query }: Session, oid: number): Promise<Seen> {
  const [row] = await query<Seen>(
    `select (select count(*)::int from pg_stat_activity where usesysid = $1) as sessions,
      exists (select from pg_locks l where l.locktype = 'virtualxid' and not exists (
        select from pg_stat_activity a where a.pid = l.pid and (a.usesysid is not null or a.datid is not null))) as starting`,
    [oid],
  )
  return row ?? { sessions: 0, starting: false }
}

/** Ends sessions until a look finds none. For those who are only knocking, strangers perhaps, it does not wait for long. */
async function endSessions(session: Session, name: string, oid: number): Promise<void> {
  for (let round = 1; ; round++) {
    const { sessions, starting } = await look(session, oid)
    if (sessions === 0 && (!starting || round > 3)) return
    if (round > 2 * roundsMax) {
      const publicMessage = `${sessions} of its sessions have not ended yet, though the server was told to end them.`
      throw new ConnectorError({ outcome: 'nothing_done', publicMessage, retryAfterSeconds: 5 })
    }
    if (sessions > 0) {
      // Granted anew it stays as it is.
      await joinRole(session, name)
      await terminate(session, oid)
    }
    await setTimeout(round < 4 ? 20 : 100)
  }
}

function groupByDatabase(prepared: Remains['prepared']): readonly { readonly database: string; readonly gids: readonly string[] }[] {
  const groups = Map.groupBy(prepared, ({ database }) => database)
  return [...groups].map(([database, transactions]) => ({ database, gids: transactions.map(({ gid }) => gid) }))
}

/** Prepared transactions keep their locks whoever has gone; only their owner ends them, in their own database. */
async function rollBackPrepared({ query }: Session, name: string, gids: readonly string[]): Promise<void> {
  await query(`set role ${escapeIdentifier(name)}`)
  for (const gid of gids) {
    await query(`rollback prepared ${escapeLiteral(gid)}`).catch((error: unknown) => {
      if (sqlState(error) !== '42704') throw error
    })
  }
}

function describeObstacle(error: unknown, { name, reassignTo }: RoleToEnd, holders: readonly string[]): ConnectorError {
  const why = (): string => {
    const [state, said] = [sqlState(error), quoteAnswer(error)]
    if (error instanceof ConnectorError && state === '') return error.publicMessage
    if (state === '42704') return `there is no role ${reassignTo} to own what it has made (reassign_to), and an admin creates it.`
    if (state === '55P03') {
      const who = holders.length === 0 ? 'others hold' : `${holders.map(escapeIdentifier).join(', ')} ${holders.length === 1 ? 'holds' : 'hold'}`
      return `${who} locks on it or on what it owns (${said}): it goes when they end their transactions, or are ended.`
    }
    if (state === '57014') return `it has so much that the server did not get through it in time (${said}): each try comes further.`
    if (state === '42501') return `a right is missing (${said}), and \`stint tool check\` says which.`
    if (state === '2BP01') return `somebody gave it rights that only they can take back (${said}): an admin runs DROP OWNED BY ${escapeIdentifier(name)} in each of those databases.`
    return `the server refused (${state}: ${said}), and an admin has to see to it.`
  }
  return new ConnectorError({ outcome: 'nothing_done', publicMessage: `The role ${name} cannot log in any more, but it is not dropped: ${why()}`, cause: error })
}
