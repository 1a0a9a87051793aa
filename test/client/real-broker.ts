import { createServer } from 'node:http'
import { once } from 'node:events'
import { getRequestListener } from '@hono/node-server'
import { onTestFinished } from 'vitest'
import { createFirstOperator } from '../../src/broker/operators.ts'
import { createAdminClient, type AdminClient } from '../../src/client/admin.ts'
import { compose, type Composition } from '../../src/compose.ts'
import { createTestDatabase, createTestLog } from '../harness.ts'

export interface RealBroker {
  readonly url: string
  /** The credential of its only operator. */
  readonly operator: string
  readonly admin: AdminClient
}

/** A small policy set: two tools, what the pilot `bot` may do, and one thing that needs a human. */
export const policyFiles = {
  'tools/tickets.yaml': `tool: tickets
connector: jwt
audience: https://tickets.example.com
sensitivity: medium
ttl: { default: 10m, max: 1h }
target: { name: queue, required: false, pattern: "[a-z]+" }
actions:
  read: {}
  comment: {}
  delete: { sensitivity: high }
`,
  'rules.cedar': `@id("support-reads")
permit (principal in Team::"support", action in [Action::"tickets:read", Action::"tickets:comment"], resource);

@id("deleting-needs-a-human")
permit (principal in Team::"support", action == Action::"tickets:delete", resource) when { context.approvals >= 1 };
`,
}

/** A whole broker that listens on a free port of this machine, with an operator and a policy set; gone after the test. */
export async function startRealBroker(): Promise<RealBroker> {
  let composition: Composition | undefined
  const server = createServer((request, response) => {
    if (composition === undefined) throw new Error('not composed yet')
    void getRequestListener(composition.app.fetch)(request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  // The issuer is where the broker is, and that is known only now.
  const url = `http://127.0.0.1:${address.port}`
  const database = await (await createTestDatabase('sqlite')).open()
  const started = await compose({
    issuer: url,
    trustDomain: 'example.com',
    database,
    rootKey: new Uint8Array(32).fill(7),
    log: createTestLog().log,
    development: true,
  })
  composition = started
  onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await started.close()
  })
  const { credential } = await createFirstOperator(started.broker, { actor: { kind: 'stint', id: 'start' } }, 'first')
  const operator = credential.reveal()
  const admin = createAdminClient({ url, token: operator })
  await admin.applyPolicy({ files: policyFiles, expected: null })
  return { url, operator, admin }
}
