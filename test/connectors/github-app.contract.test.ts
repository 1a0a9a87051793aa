import { startGithub } from '../github.ts'
import { describeConnector, type Prepare } from './contract.ts'

const issues = '/repos/acme/website/issues'

const prepare: Prepare = async (clock) => {
  const github = await startGithub({ clock, permissions: { issues: 'write', metadata: 'read' } })
  const call = (token: unknown, method: string, path: string, body?: object) =>
    fetch(`${github.url}${path}`, { method, headers: { authorization: `Bearer ${String(token)}`, 'content-type': 'application/json' }, ...(body && { body: JSON.stringify(body) }) })
  return {
    tool: 'github',
    file: `tool: github
connector: github-app
sensitivity: medium
ttl: { default: 10m, max: 1h }
target: { name: repository, required: true, pattern: "[\\\\w.-]+/[\\\\w.-]+" }
actions:
  issues.read: { permissions: { issues: read } }
  issues.write: { permissions: { issues: write } }
config:
  app_id: "${github.appId}"
  private_key: { from: "env:GITHUB_KEY" }
  api_url: ${github.url}
  private_network: true
`,
    env: { GITHUB_KEY: github.privateKey },
    // Two lines from the middle: the first ones of all PEMs of a kind begin alike.
    rootSecrets: github.privateKey.split('\n').slice(5, 7),
    actions: ['issues.read'],
    target: 'acme/website',
    effect: 'immediate',
    async use({ credential }) {
      const response = await call(credential['token'], 'GET', issues)
      return response.status === 200 && ((await response.json()) as object[]).length > 0
    },
    async useMore({ credential: { token } }) {
      const attempts = [await call(token, 'POST', issues, { title: 'mine' }), await call(token, 'GET', '/repos/acme/payroll/issues'), await call(token, 'GET', '/repos/acme/Docs.v2/issues')]
      return attempts.some(({ ok }) => ok)
    },
    secretsOf: ({ credential, environment }) => [String(credential['token']), String(environment['GH_TOKEN'])],
    outage: { begin: () => github.fail(/./, { status: 500, body: 'out of order' }, 1_000_000), end: github.mend },
    countMade: async () => github.tokens().length,
    lists: false,
  }
}

describeConnector('github-app', prepare)
