import { randomBytes } from 'node:crypto'
import { Secret } from '../kernel/secret.ts'
import type { Tool } from '../policy/catalog.ts'
import type { PostgresAction, PostgresConfig } from '../policy/kinds/postgres.ts'
import { ConnectorError, type Connector, type Minted } from './connector.ts'
import { checkServer } from './postgres-check.ts'
import { createPostgresServer } from './postgres-connection.ts'
import { disableRoles } from './postgres-disable.ts'
import { describePlace, endRole } from './postgres-end.ts'
import { listRoles, makeRole, nameRole, prolongRole } from './postgres-roles.ts'
import { formatUrl, type RootUrl } from './postgres-url.ts'
import { createScramVerifier } from './scram-verifier.ts'

/**
 * A role of a PostgreSQL server per grant, member of the group roles that its actions name. The root role needs CREATEROLE,
 * ADMIN OPTION on those groups and the right to give things to `reassign_to`; it need not be a superuser.
 */
export const postgresConnector: Connector = {
  kind: 'postgres',
  open(tool, context) {
    // The catalog has parsed it by this kind's schema.
    const config = tool.config as PostgresConfig
    const actions = new Map([...tool.actions].map(([name, { settings }]) => [name, readRoles(settings)]))
    const groups = [...new Set([...actions.values()].flat())]
    refuseHeir(tool, config, groups)
    const server = createPostgresServer(tool.name, config, context)
    const nameOf = (grant: string): string => nameRole(context.instance, grant)
    return {
      effect: 'immediate',
      undo: 'by_grant',
      async mint({ grant, actions, expiresAtMs }, signal) {
        const name = nameOf(grant)
        const password = new Secret(randomBytes(32).toString('base64url'))
        const root = await makeRole(
          server,
          {
            name,
            verifier: await createScramVerifier(password.reveal()),
            groups: actions.flatMap(({ settings }) => readRoles(settings)),
            connectionsMax: config.connections_max,
            searchPath: config.search_path,
            reassignTo: config.reassign_to,
            livesMs: expiresAtMs - context.nowMs(),
          },
          signal,
        )
        return describeCredential(root, name, password)
      },
      async revoke({ grant, handle }, signal) {
        await endRole(server, { name: nameOf(grant), reassignTo: config.reassign_to, ...(handle && { place: handle.reveal() }) }, signal)
        return { status: 'ended' }
      },
      disable: (endings, signal) => disableRoles(server, endings.map(({ grant }) => nameOf(grant)), signal),
      check: (signal) => checkServer(server, { config, groups, actions }, signal),
      list: (signal) => listRoles(server, context.instance, signal),
      renew: ({ grant }, expiresAtMs, signal) => prolongRole(server, nameOf(grant), expiresAtMs - context.nowMs(), signal),
      close: server.close,
    }
  },
}

function readRoles(settings: Readonly<Record<string, unknown>>): readonly string[] {
  // The catalog has parsed them by this kind's schema.
  return (settings as PostgresAction).roles
}

function refuseHeir({ name }: Tool, { reassign_to: heir }: PostgresConfig, groups: readonly string[]): void {
  if (!groups.includes(heir)) return
  throw new ConnectorError({
    outcome: 'nothing_done',
    publicMessage: `The tool ${name} lends the role ${heir} that is to own what agents leave behind (reassign_to): an admin names another one in its catalog file.`,
  })
}

/**
 * As node-postgres and libpq name things: `new pg.Client(credential)` and `psql "$connectionString"` take it unmodified, and
 * psql the environment. Where the root URL does not speak of TLS, the server is known to speak it, and nobody need do without.
 */
function describeCredential(root: RootUrl, user: string, password: Secret): Minted {
  const { host, port, database, sslmode = 'require' } = root
  return {
    credential: { host, port, database, user, password, sslmode, connectionString: formatUrl({ host, port, database, user, password, sslmode }) },
    environment: { PGHOST: host, PGPORT: String(port), PGDATABASE: database, PGUSER: user, PGPASSWORD: password, PGSSLMODE: sslmode },
    // libpq looks up a service before the other variables, and an address before the host.
    conceals: ['PGSERVICE', 'PGHOSTADDR'],
    reference: user,
    handle: new Secret(describePlace(root)),
  }
}
