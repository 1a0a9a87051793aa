import { sql } from 'kysely'
import type { Config } from '../config.ts'
import { createOperator } from '../broker/operators.ts'
import { openLog } from '../broker/open-log.ts'
import { operatorNamePattern } from '../identity/operator.ts'
import { systemClock } from '../kernel/clock.ts'
import { BrokerError } from '../kernel/errors.ts'
import { systemRandom } from '../kernel/ids.ts'
import type { Log } from '../kernel/log.ts'
import { openConfiguredDatabase, type OpenedDatabase } from '../open-database.ts'
import type { Database } from '../storage/engine.ts'
import { readHead } from '../storage/head.ts'
import { createLedger } from '../storage/ledger.ts'
import { grantPrivileges, migrate } from '../storage/migrate.ts'
import { checkPostgres } from '../storage/postgres.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { createStderrLog, readConfig } from './serve.ts'

export const migrateCommand: Command = {
  name: 'migrate',
  summary: 'bring the database to the schema of this version',
  help: `Usage: stint migrate --config FILE [--admin NAME]

Brings the database to the schema of this version, and makes it where there is
none; on PostgreSQL as the owner of the tables (database.postgres.migrate_url),
who also gives the serving role just the rights that it needs. Running it again
does nothing.

Options:
  --config FILE  the broker's configuration
  --admin NAME   also make an admin whose credential does not expire, and print
                 it, once: the first one, or a further one, also where every
                 admin's credential was lost (a SQLite broker is to be stopped
                 for it)

Examples:
  stint migrate --config /etc/stint/stint.yaml --admin ada
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('migrate', args, { config: { type: 'string' }, admin: { type: 'string' } })
    const { config: file, admin } = values
    if (file === undefined || positionals.length > 0) throw new UsageError('give --config FILE and no other words. See: stint migrate --help')
    if (admin !== undefined && !operatorNamePattern.test(admin)) {
      throw new UsageError('--admin takes a name of lower-case letters, digits, dots, dashes and underscores.')
    }
    const config = readConfig(file)
    const log = createStderrLog(io, config.log.level)
    const serving = 'postgres' in config.database ? openConfiguredDatabase(config, io.env, log, 'server') : undefined
    try {
      await migrateAsOwner(config, log, serving, admin, io)
    } finally {
      await serving?.database.close()
    }
    return 0
  },
}

/** `serving` is the database as the role that serves, on PostgreSQL: what it may do is set and then checked by itself. */
async function migrateAsOwner(config: Config, log: Log, serving: OpenedDatabase | undefined, admin: string | undefined, io: Io): Promise<void> {
  const { database, explain } = openConfiguredDatabase(config, io.env, log, 'owner')
  try {
    if (serving?.role !== undefined) await refuseOwner(database, serving.role)
    const ran = await migrate(database.maintenance, database.engine)
    io.err(ran.length === 0 ? 'The schema is that of this version already.\n' : `Ran ${ran.join(', ')}.\n`)
    if (serving?.role !== undefined) await grantPrivileges(database.maintenance, serving.role)
    if (serving !== undefined) await checkServing(serving, io)
    if (admin !== undefined) await makeAdmin(config, log, database, admin, io)
  } catch (error) {
    throw explain(error)
  } finally {
    await database.close()
  }
}

/** The same check as at the broker's start, so that it is not the next start that fails. */
async function checkServing({ database, role = '', explain }: OpenedDatabase, io: Io): Promise<void> {
  try {
    await checkPostgres(database.read)
  } catch (error) {
    throw explain(error)
  }
  io.err(`The role ${role} has the rights to serve, and none that it must not have.\n`)
}

async function makeAdmin(config: Config, log: Log, database: Database, name: string, io: Io): Promise<void> {
  const ledger = createLedger({ database, clock: systemClock, random: systemRandom, log })
  try {
    ledger.observe(await readHead(database.read))
    const caller = { actor: { kind: 'stint', id: 'migrate' } } as const
    await openLog({ ledger, database, issuer: config.issuer, trustDomain: config.trust_domain, log }, caller)
    const { credential } = await createOperator({ ledger, random: systemRandom }, caller, { name, role: 'admin' }).catch((error: unknown) => {
      if (!(error instanceof BrokerError) || error.code !== 'conflict') throw error
      throw new CommandError(`${error.publicMessage}
Nothing was made. Another admin: --admin OTHER-NAME. A new credential of ${name}, by an admin: stint operator rotate ${name}`)
    })
    io.err(`The admin ${name}'s credential, shown this once (only its hash is kept):\n`)
    io.out(`${credential.reveal()}\n`)
  } finally {
    await ledger.close()
  }
}

/** The owner would take its own rights away, and could not serve either. */
async function refuseOwner({ maintenance }: Database, role: string): Promise<void> {
  const { rows } = await sql<{ user: string }>`select current_user as user`.execute(maintenance)
  if (rows[0]?.user !== role) return
  throw new CommandError(
    `${role} would own the tables and serve: make a role of its own for database.postgres.url, and name the owner in database.postgres.migrate_url`,
  )
}
