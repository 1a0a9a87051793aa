import { randomBytes } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import type { Secret } from '../../kernel/secret.ts'
import type { PostgresRotator } from '../../policy/kinds/rotators.ts'
import { ConnectorError, type Tested } from '../connector.ts'
import { runOnce } from '../postgres-connection.ts'
import { isConflict, quoteAnswer, sqlState } from '../postgres-failure.ts'
import { retryConflicts, type Session, type Use } from '../postgres-session.ts'
import { parseRootUrl, type RootUrl } from '../postgres-url.ts'
import { createScramVerifier } from '../scram-verifier.ts'
import { parsePostgresValue, type PostgresValue } from './postgres-value.ts'
import { checkUsers } from './postgres-users.ts'
import { findAll, type Rotator, type RotatorPlace } from './rotator.ts'

const { escapeIdentifier, escapeLiteral } = pg

/**
 * Two users take turns: while one is current, the other gets a new password, so that nobody who holds the current value is
 * cut off. A third role, `admin`, changes them; the server never sees a password, only what it verifies one by.
 */
export function openPostgresRotator(settings: PostgresRotator, { tool, context }: RotatorPlace): Rotator {
  const { users, admin, role, private_network: privateNetwork } = settings
  const [first, second] = users
  const parse = (value: Secret): PostgresValue => parsePostgresValue(value, { tool: tool.name, privateNetwork, what: 'The value', member: 'secret' })
  const refuse = (publicMessage: string): ConnectorError => new ConnectorError({ outcome: 'nothing_done', publicMessage })

  function judgeUser(user: string): string {
    if (users.includes(user)) return user
    throw refuse(`The value of the tool ${tool.name} is of the user ${user}, and its catalog file has ${first} and ${second} take turns (rotator.postgres.users): an admin names ${user} there, or puts a value of one of the two.`)
  }

  async function readAdmin(): Promise<RootUrl> {
    const url = await context.readSecret(admin.from, `the URL of a role that may change ${first} and ${second}, postgres://user:password@host:port/database`)
    const root = parseRootUrl(url, { tool: tool.name, privateNetwork, what: 'The URL `admin`', member: 'admin' })
    if (!users.includes(root.user)) return root
    throw refuse(`The role ${root.user} would change itself: an admin makes one of its own, which \`admin\` of the tool ${tool.name} names, with CREATEROLE and ADMIN OPTION on ${first} and ${second}.`)
  }

  async function runAsAdmin(user: string, signal: AbortSignal, use: Use<void>): Promise<void> {
    const root = await readAdmin()
    try {
      await retryConflicts(signal, () => runOnce(root, { privateNetwork }, signal, use))
    } catch (error) {
      throw explain(error, root.user, user)
    }
  }

  async function tryOut(root: RootUrl, signal: AbortSignal): Promise<Tested> {
    try {
      return await runOnce(root, { privateNetwork }, signal, (session) => judgeSession(session, role))
    } catch (error) {
      const why = explainRefusal(error, root.user, root.database)
      if (why === undefined) throw error
      return { ok: false, why }
    }
  }

  return {
    async create(_rotation, current) {
      const { root, withUser } = parse(current)
      return withUser(judgeUser(root.user) === first ? second : first, randomBytes(32).toString('base64url'))
    },

    async set(_rotation, pending, current, signal) {
      const { user, password } = parse(pending).root
      // Put by hand meanwhile: whoever holds it is not to be cut off.
      if (parse(current).root.user === judgeUser(user)) throw refuse(`The value in force is of the user ${user} by now, whose password was to be replaced: the rotation begins anew.`)
      const verifier = await createScramVerifier(password.reveal())
      await runAsAdmin(user, signal, async (session) => {
        // Whoever is still in by an older value could change the new one, or what the user does by itself when it logs in.
        await alterUser(session, user, ['nologin'])
        await endSessions(session, user)
        const resets = ['reset all', ...(await listDatabasesWithSettings(session, user)).map((database) => `in database ${escapeIdentifier(database)} reset all`)]
        await alterUser(session, user, [`login password ${escapeLiteral(verifier)}`, ...resets, ...(role === undefined ? [] : [`set role = ${escapeLiteral(role)}`])])
      })
    },

    async test(pending, signal) {
      const { root } = parse(pending)
      judgeUser(root.user)
      return tryOut(root, signal)
    },

    async retire(value, current, { cutOff }, signal) {
      const { root } = parse(value)
      const user = judgeUser(root.user)
      // Whatever its password is by now: whoever was lent it may have given the user another one.
      const isOther = user !== parse(current).root.user
      if (!isOther && !cutOff) return
      await runAsAdmin(user, signal, async (session) => {
        if (isOther) await alterUser(session, user, lockedOut)
        if (cutOff) await endSessions(session, user)
      })
    },

    async abandon(value, current, _options, signal) {
      const { root } = parse(value)
      const user = judgeUser(root.user)
      // Where it never was set, the user's last value may still be lent.
      if (user === parse(current).root.user || !(await isLetIn(root, { privateNetwork }, signal))) return
      await runAsAdmin(user, signal, (session) => alterUser(session, user, lockedOut))
    },

    check: (current, signal) =>
      findAll(async () => {
        const { root } = parse(current)
        judgeUser(root.user)
        const found = await runOnce(await readAdmin(), { privateNetwork }, signal, (session) => checkUsers(session, users, role))
        const tried = await tryOut(root, signal)
        // What the check of the users says already is not said twice.
        if (tried.ok || found.some(({ ok }) => !ok)) return found
        return [...found, { ok: false, sentence: `The value in force is not what it should be: ${tried.why} Where whoever was lent it has changed it, as a user may its own password, an admin has it replaced: stint rotate ${tool.name}.` }]
      }),

    close: async () => undefined,
  }
}

/** Whether the value still opens anything, as far as is known: a password that was replaced is not taken away a second time. */
async function isLetIn(root: RootUrl, rules: Parameters<typeof runOnce>[1], signal: AbortSignal): Promise<boolean> {
  try {
    await runOnce(root, rules, signal, async () => undefined)
    return true
  } catch (error) {
    // 28P01: the password is wrong. Whatever else the server says, or does not say, concerns this connection.
    return sqlState(error) !== '28P01'
  }
}

async function judgeSession({ query, root }: Session, role: string | undefined): Promise<Tested> {
  const [row] = await query<{ name: string }>('select current_user::text as name')
  if (role === undefined || row?.name === role) return { ok: true }
  const user = escapeIdentifier(root.user)
  return { ok: false, why: `The user ${root.user} does not act as ${role}: an admin runs GRANT ${escapeIdentifier(role)} TO ${user}; ALTER ROLE ${user} SET role = ${escapeLiteral(role)}.` }
}

/** What the server's refusal says of the value; `undefined` where it says nothing of it. */
function explainRefusal(error: unknown, user: string, database: string): string | undefined {
  const state = sqlState(error)
  if (state === '28P01') return `The server does not take the password of ${user}: VALID UNTIL of the role may be over, or another server may have been told.`
  if (state.startsWith('28')) return `The server does not let ${user} in (${quoteAnswer(error)}).`
  if (state === '42501') return `The user ${user} lacks a right (${quoteAnswer(error)}): an admin runs GRANT CONNECT ON DATABASE ${escapeIdentifier(database)} TO ${escapeIdentifier(user)}.`
  return undefined
}

function explain(error: unknown, admin: string, user: string): unknown {
  if (!(error instanceof ConnectorError)) return error
  const [state, as] = [sqlState(error), escapeIdentifier(admin)]
  const say = (publicMessage: string): ConnectorError => new ConnectorError({ outcome: error.outcome, publicMessage, cause: error })
  if (state === '42704') return say(`There is no user ${user}: an admin runs CREATE ROLE ${escapeIdentifier(user)} LOGIN; GRANT ${escapeIdentifier(user)} TO ${as} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE.`)
  if (state === '42501') return say(`The role ${admin} may not change ${user} (${quoteAnswer(error)}): an admin runs ALTER ROLE ${as} CREATEROLE; GRANT ${escapeIdentifier(user)} TO ${as} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE.`)
  if (state.startsWith('28')) return say(`The server does not let the role ${admin} in, which is to change ${user}: an admin puts its right password where \`admin\` is taken from, or lets it in (pg_hba.conf).`)
  return error
}

const roundsMax = 60

const lockedOut = ['nologin password null']

/**
 * A user may change its own role, and who holds such a change open would hold this one up: its sessions are ended then, of
 * which none is the current value's.
 */
async function alterUser(session: Session, user: string, changes: readonly string[]): Promise<void> {
  await session.query(`set lock_timeout = '300ms'`)
  for (let round = 1; ; round++) {
    try {
      // Sent as one text they take effect together.
      await session.query(changes.map((change) => `alter role ${escapeIdentifier(user)} ${change}`).join('; '))
      return
    } catch (error) {
      // 55P03: somebody else's lock.
      if ((sqlState(error) !== '55P03' && !isConflict(error)) || round === 20) throw error
      await terminate(session, user)
    }
  }
}

/** Users may change their own settings for one database, too. */
async function listDatabasesWithSettings({ query }: Session, user: string): Promise<readonly string[]> {
  const rows = await query<{ name: string }>(
    'select datname::text as name from pg_db_role_setting join pg_database d on d.oid = setdatabase join pg_roles r on r.oid = setrole where rolname = $1',
    [user],
  )
  return rows.map(({ name }) => name)
}

/** Ends all sessions of a user, also one that was being opened while its right to be was taken. */
async function endSessions(session: Session, user: string): Promise<void> {
  for (let round = 1, quiet = 0; quiet < 3; round++) {
    const left = await terminate(session, user)
    quiet = left === 0 ? quiet + 1 : 0
    if (round === roundsMax) {
      throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `${left} sessions of ${user} have not ended yet, though the server was told to end them.`, retryAfterSeconds: 5 })
    }
    await setTimeout(50)
  }
}

/**
 * Returns how many sessions were told to end. For that the admin role has the user's rights, in a transaction that is never
 * committed: what was told is not taken back by that.
 */
async function terminate({ query }: Session, user: string): Promise<number> {
  await query('begin')
  try {
    const [row] = await query<{ told: number }>(
      `grant ${escapeIdentifier(user)} to current_user with inherit true, set false;
       select count(pg_terminate_backend(pid))::int as told from pg_stat_activity where usename = ${escapeLiteral(user)}`,
    )
    return row?.told ?? 0
  } finally {
    await query('rollback')
  }
}
