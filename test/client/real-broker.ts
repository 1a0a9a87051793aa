import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { createAdminClient, type AdminClient } from '../../src/client/admin.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { startBroker, type BrokerOptions, type TestBroker } from '../broker.ts'
import { listen } from '../listen.ts'

export interface RealBroker {
  readonly url: string
  /** The credential of its only operator. */
  readonly operator: string
  readonly admin: AdminClient
  readonly broker: TestBroker
}

/** A small policy set: one tool, what the team may do with it, and one thing that needs a human. */
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

export type RealBrokerOptions = Pick<BrokerOptions, 'signIn' | 'anchors' | 'policies' | 'env' | 'rootKey' | 'previousRootKey' | 'connectors'> & {
  /** Sees each request first, may hold it up, and returns true where it has taken it from the broker. */
  readonly intercept?: (request: IncomingMessage, response: ServerResponse) => Promise<boolean>
}

/** A whole broker that listens on a free port of this machine, by the machine's clock; gone after the test. */
export async function startRealBroker(options: RealBrokerOptions = {}): Promise<RealBroker> {
  const { intercept, ...rest } = options
  let broker: TestBroker | undefined
  // The issuer is where the broker listens, and that is known only now.
  const url = await listen(async (request, response) => {
    if ((await intercept?.(request, response)) === true) return
    if (broker === undefined) throw new Error('the broker is not there yet')
    void getRequestListener(broker.app.fetch)(request, response)
  })
  const policies = new Map(Object.entries(policyFiles))
  broker = await startBroker('sqlite', { issuer: url, development: true, clock: systemClock, policies, ...rest })
  const operator = broker.adminCredential
  return { url, operator, admin: createAdminClient({ url, token: operator }), broker }
}
