import { sql } from 'kysely'
import { createFirstOperator } from '../broker/operators.ts'
import { openLog } from '../broker/open-log.ts'
import { systemClock } from '../kernel/clock.ts'
import { systemRandom } from '../kernel/ids.ts'
import { readSecretSource } from '../kernel/secret-source.ts'
import { openConfiguredDatabase } from '../main.ts'
import type { Database } from '../storage/engine.ts'
import { readHead } from '../storage/head.ts'
import { createLedger } from '../storage/ledger.ts'
import { grantPrivileges, migrate } from '../storage/migrate.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { createStderrLog, readConfig } from './serve.ts'

export const migrateCommand: Command = {
  name: 'migrate',
  summary: 'bring the database to the schema of this version',
  help: `Usage: stint migrate --config FILE [--admin NAME]

Brings the database to the schema of this version; on PostgreSQL as the owner of
the tables (database.postgres.migrate_url), who also gives the serving role just
the rights that it needs. Running it again does nothing.

Options:
  --config FILE  the broker's configuration
  --admin NAME   also make the first operator and print its credential, once

Examples:
  stint migrate --config /etc/stint/stint.yaml --admin ada
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('migrate', args, { config: { type: 'string' }, admin: { type: 'string' } })
    const { config: file, admin } = values
    if (file === undefined || positionals.length > 0) throw new UsageError('give --config FILE and no other words. See: stint migrate --help')
    if (admin !== undefined && !/^[a-z0-9][a-z0-9._-]{0,62}$/.test(admin)) {
      throw new UsageError('--admin takes a name of lower-case letters, digits, dots and dashes.')
    }
    const config = readConfig(file)
    const log = createStderrLog(io, config.log.level)
    const role = 'postgres' in config.database ? readRole(config.database.postgres.url.from, io) : undefined
    const database = openConfiguredDatabase(config, io.env, log, 'owner')
    try {
      if (role !== undefined) await refuseOwner(database, role)
      const ran = await migrate(database.maintenance, database.engine)
      io.err(ran.length === 0 ? 'The schema is that of this version already.\n' : `Ran ${ran.join(', ')}.\n`)
      if (role !== undefined) {
        await grantPrivileges(database.maintenance, role)
        io.err(`The role ${role} has the rights to serve.\n`)
      }
      if (admin !== undefined) {
        const ledger = createLedger({ database, clock: systemClock, random: systemRandom, log })
        ledger.observe(await readHead(database.read))
        const caller = { actor: { kind: 'stint', id: 'migrate' } } as const
        await openLog({ ledger, database, issuer: config.issuer, trustDomain: config.trust_domain, log }, caller)
        const { credential } = await createFirstOperator({ ledger, random: systemRandom }, caller, admin)
        await ledger.close()
        io.err(`The admin ${admin}'s credential, shown this once (only its hash is kept):\n`)
        io.out(`${credential.reveal()}\n`)
      }
    } finally {
      await database.close()
    }
    return 0
  },
}

/** The role that serves, out of its connection URL. */
function readRole(source: string, io: Io): string {
  const url = readSecretSource(source, 'the database URL', io.env).reveal()
  const role = URL.canParse(url) ? decodeURIComponent(new URL(url).username) : ''
  if (role !== '') return role
  throw new CommandError('database.postgres.url must be of the form postgres://user:password@host/database, with the role that serves as its user')
}

/** The owner would take its own rights away, and could not serve either. */
async function refuseOwner({ maintenance }: Database, role: string): Promise<void> {
  const { rows } = await sql<{ user: string }>`select current_user as user`.execute(maintenance)
  if (rows[0]?.user !== role) return
  throw new CommandError(
    `${role} would own the tables and serve: make a role of its own for database.postgres.url, and name the owner in database.postgres.migrate_url`,
  )
}
