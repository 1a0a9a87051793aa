import pg from 'pg'
import type { AdminClient } from '../client/admin.ts'
import type { AgentClient } from '../client/agent.ts'
import type { Io } from './command.ts'

/** Shows a real credential being lent, used, revoked and refused: a role in the sample database, by the API as for anybody. */
export async function showLoan({ admin, client }: { readonly admin: AdminClient; readonly client: AgentClient }, io: Io): Promise<void> {
  const loan = await client.requestGrant({ tool: 'warehouse', actions: ['read'], task: 'hello', ttlSeconds: 300, reason: 'The monthly report' })
  io.out(`
A real credential: the agent asked for the orders in a real PostgreSQL and got a role of its own there, for five minutes.

  role      ${String(loan.credential['user'])}
`)
  const session = new pg.Client(loan.credential)
  // Its end is what this is to show; it must not end the broker.
  let end: unknown
  session.on('error', (error) => (end ??= error))
  await session.connect()
  const { rows } = await session.query<{ count: string; sum: string }>('select count(*), sum(total) from orders')
  io.out(`  used      by a plain PostgreSQL client: ${rows[0]?.count ?? '?'} orders, ${rows[0]?.sum ?? '?'} in all\n`)
  const denied = await session.query('delete from orders').then(() => 'allowed', describe)
  io.out(`  not more  delete from orders: ${denied}\n`)
  const { grants } = await admin.revokeGrants({ grant: loan.grant, reason: 'trying it out' })
  io.out(`  revoked   by the admin while the session was open: ${grants[0]?.outcome ?? '?'}, ${grants[0]?.effect ?? '?'}\n`)
  const cut = await session.query('select 1').then(() => 'still open', (error: unknown) => describe(end ?? error))
  io.out(`  refused   the open session: ${cut}\n`)
  const again = new pg.Client(loan.credential)
  again.on('error', () => undefined)
  const refused = await again.connect().then(() => 'still let in', describe)
  io.out(`            a new one: ${refused}\n`)
  await Promise.allSettled([session.end(), again.end()])
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
