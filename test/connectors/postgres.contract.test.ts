import { inject } from 'vitest'
import { connect, listRoles, opens, writePolicies } from '../broker/lending.ts'
import { startTcpProxy } from '../storage/tcp-proxy.ts'
import { describeConnector, type Prepare } from './contract.ts'
import { createSite } from './postgres-tool.ts'

const prepare: Prepare = async () => {
  const site = await createSite()
  const wire = await startTcpProxy(site.server.port)
  return {
    tool: 'ledger',
    file: writePolicies(site).get('tools/ledger.yaml') ?? '',
    env: { LEDGER_URL: site.rootUrl.replace(`:${site.server.port}/`, `:${wire.port}/`) },
    rootSecrets: ['root-password'],
    actions: ['read'],
    effect: 'immediate',
    use: (lent) => opens({ site }, lent),
    async useMore(lent) {
      const client = await connect({ site }, lent)
      const attempts = ["insert into work.notes values ('mine')", 'select * from hidden.secrets', 'create role other', `set role ${site.writer}`]
      const done = await Promise.all(attempts.map((statement) => client.query(statement).then(() => true, () => false)))
      return done.includes(true)
    },
    secretsOf: ({ credential, environment }) => [String(credential['password']), String(environment['PGPASSWORD'])],
    outage: { begin: () => wire.stop(), end: () => wire.listen() },
    countMade: async (broker) => (await listRoles({ broker, site })).length,
    lists: true,
  }
}

const { missing } = inject('postgres')

if (missing === undefined) for (const engine of ['sqlite', 'postgres'] as const) describeConnector('postgres', prepare, engine)
