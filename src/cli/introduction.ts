import { createFirstOperator } from '../broker/operators.ts'
import { createAdminClient } from '../client/admin.ts'
import { createAgentClient } from '../client/agent.ts'
import { brokerUrlDefault } from '../client/url.ts'
import { formatTime } from '../kernel/clock.ts'
import type { RunningBroker } from '../main.ts'
import { countOperators } from '../storage/operators.ts'
import type { Io } from './command.ts'
import { showLoan } from './introduction-loan.ts'
import type { Warehouse } from './sample/warehouse.ts'
import { createKeyFile } from './key-file.ts'
import { quoteArgument } from './shell.ts'

export interface IntroductionOptions {
  readonly running: RunningBroker
  /** The sample database, if it runs. */
  readonly warehouse: Warehouse | undefined
  /** Where the sample agent's private key goes. */
  readonly keyFile: string
  /** The same file as the person would type it. */
  readonly shownKeyFile: string
}

const agent = 'triage-bot'
const dayMs = 86_400_000

/**
 * Shows a newcomer a first real token: makes the admin credential and shows it once, registers the sample agent with a
 * key of its own and lets it ask, all through the same HTTP API as anybody. Does nothing where an operator exists.
 */
export async function introduce({ running, warehouse, keyFile, shownKeyFile }: IntroductionOptions, io: Io): Promise<void> {
  const { broker } = running.composition
  if ((await countOperators(broker.database.read)) > 0) {
    io.out('The admin credential was shown at the first start and is kept nowhere; without it, delete the folder and start afresh.\n')
    return
  }
  const operator = await createFirstOperator(broker, { actor: { kind: 'stint', id: 'start' } }, 'admin')
  io.out(`
The admin credential, shown this once (only its hash is kept):

  export STINT_OPERATOR_TOKEN=${operator.credential.reveal()}
${running.url === brokerUrlDefault ? '' : `  export STINT_URL=${running.url}\n`}
`)
  const keyArgument = quoteArgument(shownKeyFile)
  const admin = createAdminClient({ url: running.url, token: operator.credential.reveal() })
  const key = await createKeyFile(keyFile, 'ES256')
  await admin.registerWorkload({
    name: agent,
    environment: 'dev',
    stage: 'pilot',
    owner: { team: 'support', contact: 'oncall:support' },
    purpose: 'Reads incoming tickets and comments on them',
    tags: ['sample'],
    review_at: formatTime(broker.clock.nowMs() + 90 * dayMs),
    jwks: { keys: [key.publicJwk] },
  })
  const client = createAgentClient({ url: running.url, workload: agent, key })
  const token = await client.requestToken({ actions: ['tickets:read', 'tickets:comment'], task: 'hello', ttlSeconds: 300 })
  const claims: unknown = JSON.parse(Buffer.from(token.accessToken.split('.')[1] ?? '', 'base64url').toString())
  const { entries } = await admin.listAudit({ type: 'grant.issued', limit: 1 })
  const entry = entries[0]
  io.out(`The sample agent ${agent} proved itself with its own key (${shownKeyFile}) and got its first token. Its claims:

${indent(JSON.stringify(claims, undefined, 2))}

The log recorded it before the agent had it, as entry ${entry?.index ?? '?'}:

${indent(JSON.stringify(summarise(entry?.event ?? {}), undefined, 2))}
`)
  if (warehouse !== undefined) await showLoan({ admin, client }, io)
  io.out(`
Now in another terminal, in this folder: what is to be exported, as above, then for example

  # a refusal: the policy does not let a pilot refund money
  npx stint token payments:refund --target eu-1001 --workload ${agent} --key ${keyArgument}

  # a token, alive; then revoked; then dead
  TOKEN=$(npx stint token tickets:read --workload ${agent} --key ${keyArgument})
  npx stint token introspect $TOKEN --workload ${agent} --key ${keyArgument}
  npx stint revoke --workload ${agent} --reason "trying it out"
  npx stint token introspect $TOKEN --workload ${agent} --key ${keyArgument}

${warehouse === undefined ? '' : describeWarehouse(keyArgument)}  # what happened, from the log; and the log taken away and checked, which needs no broker
  npx stint audit list
  npx stint audit key > log.key
  npx stint audit export --output log.jsonl
  npx stint audit verify log.jsonl --key log.key

  # an agent of your own: it makes its own key, which nobody else ever handles
  CODE=$(npx stint workload register docs-bot --environment dev --stage sandbox --team support \\
    --contact oncall:support --purpose "Tries Stint" --review-at 90d --enroll)
  npx stint enroll $CODE --key docs-bot.key
  npx stint token docs:read --workload docs-bot --key docs-bot.key --claims

`)
}

/** What there is to try with the sample database. */
function describeWarehouse(keyArgument: string): string {
  return `  # a role of its own in a real PostgreSQL, for as long as one command runs; then it is gone
  npx stint grant warehouse read --workload ${agent} --key ${keyArgument} -- \\
    node --input-type=module -e "import pg from 'pg'; const c = new pg.Client(); await c.connect();
      console.table((await c.query('select current_user::text, * from orders')).rows); await c.end()"
  npx stint grants

`
}

/** The entry without the parts that are long and for machines. */
function summarise(event: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { index, time, type, workload, grant, tool, actions, task, expires_at, ends, decision } = event
  const { verdict, reasons, policy_set } = (decision ?? {}) as Record<string, unknown>
  return { index, time, type, workload, grant, tool, actions, task, expires_at, ends, decision: { verdict, reasons, policy_set } }
}

function indent(text: string): string {
  return text.replaceAll(/^/gm, '  ')
}
