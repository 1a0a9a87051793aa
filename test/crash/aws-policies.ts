import { vaultSecret, type Cloud } from './aws-cloud.ts'
import type { Logins } from './aws-logins.ts'

/** How long a value that Stint replaces is to be current: there is no shorter time. */
export const rotatedEveryDays = 1

/** The files of a policy set that lends the cloud's role and both secrets to the team `support`. */
export function awsPolicies({ place, role, policies }: Cloud, { admin, vault, kept }: Logins): Record<string, string> {
  const rotation = (users: readonly string[]): string =>
    `  rotation: { every: ${rotatedEveryDays}d, rotator: { postgres: { users: [${users.join(', ')}], admin: { from: "${admin}" }, private_network: true } } }`
  const head = (tool: string, connector: string, ttl: string): string => `tool: ${tool}\nconnector: ${connector}\nsensitivity: low\nttl: ${ttl}\n`
  return {
    'tools/cloud.yaml': `${head('cloud', 'aws-sts', '{ default: 5m, max: 15m }')}target: { name: prefix, required: true, pattern: "[a-z0-9-]+(/[a-z0-9-]+)*" }
actions:
  read: { statements: [{ actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/{target}/*"] }] }
  write: { statements: [{ actions: ["s3:PutObject"], resources: ["arn:aws:s3:::reports/{target}/*"] }] }
config:
  role: ${role}
${inLines(place)}
  kill_switch: { policies: [${policies.join(', ')}] }
`,
    'tools/vault.yaml': `${head('vault', 'aws-secrets-manager', '{ default: 30s, max: 1m }')}actions: { use: {} }
config:
  secret_id: ${vaultSecret}
${inLines(place)}
${rotation(vault.users)}
`,
    'tools/kept.yaml': `${head('kept', 'sealed-secret', '{ default: 30s, max: 1m }')}actions: { use: {} }
config:
  secret: kept
${rotation(kept.users)}
`,
    'rules.cedar': `@id("support-works")
permit (principal in Team::"support", action in [Action::"cloud:read", Action::"cloud:write", Action::"vault:use", Action::"kept:use"], resource);
`,
  }
}

function inLines(place: string): string {
  return place.split(', ').map((member) => `  ${member}`).join('\n')
}
