import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findFreePort } from '../../test/free-port.ts'
import { checkToken } from './check-token.ts'
import { root, type Children } from './children.ts'
import { exchange } from './exchange.ts'
import { createSigners } from './signers.ts'
import type { Subject } from './subject.ts'

/** Starts node-oidc-provider for the same job as Stint's: the reference. */
export async function startOidcProvider(children: Children, folder: string): Promise<Subject> {
  const home = join(folder, 'oidc')
  mkdirSync(home, { mode: 0o700 })
  const signersFile = join(home, 'signers.json')
  writeFileSync(signersFile, JSON.stringify(await createSigners(['triage-bot'])), { mode: 0o600 })
  const port = await findFreePort()
  const issuer = `http://127.0.0.1:${port}`
  const [scope, resource] = ['tickets:read', 'https://tickets.example.com']
  const start = { script: join(root, 'scripts/bench/oidc-server.ts'), args: [String(port), signersFile, resource, scope], logFile: join(home, 'oidc.log') }
  const server = await children.serve(start, async () => (await exchange(`${issuer}/jwks`)).status === 200)
  return {
    name: 'oidc',
    servers: [server],
    urls: [`${issuer}/token`],
    audience: issuer,
    signersFile,
    signerCount: 1,
    form: new URLSearchParams({ grant_type: 'client_credentials', scope, resource }).toString(),
    notes: {},
    async check(body) {
      await checkToken(`${issuer}/token`, body, { issuer, audience: resource, scope, jwksUrl: `${issuer}/jwks` })
      return {}
    },
  }
}
