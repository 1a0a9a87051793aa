import { randomBytes } from 'node:crypto'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { browse, startCompanyProvider } from '../company-provider.ts'
import { findFreePort } from '../free-port.ts'
import { createTestFolder } from '../harness.ts'
import { runProgram, startProgram } from '../program.ts'

// Starting a process takes as long as the machine lets it.
vi.setConfig({ testTimeout: 60_000 })

test('A person signs in to a production broker, as its configuration says', async () => {
  const provider = await startCompanyProvider({ groups: ['everybody', 'audit'] })
  const folder = createTestFolder()
  const port = await findFreePort()
  const file = join(folder, 'stint.yaml')
  writeFileSync(join(folder, 'root.key'), randomBytes(32).toString('base64'), { mode: 0o600 })
  writeFileSync(
    file,
    `issuer: https://stint.example.com
trust_domain: example.com
listen: { port: ${port} }
proxy: { addresses: [127.0.0.1] }
database: { sqlite: { file: ${folder}/stint.db } }
root_key: { from: "file:${folder}/root.key" }
operators:
  oidc:
    issuer: ${provider.url}
    client_id: stint-cli
    session_minutes: 5
    roles: { admin: [platform-admins], auditor: [audit] }
`,
  )
  const surroundings = { cwd: folder, env: { STINT_URL: `http://127.0.0.1:${port}`, HOME: folder } }
  expect((await runProgram(['migrate', '--config', file], surroundings)).code).toBe(0)
  const broker = startProgram(['serve', '--config', file], surroundings)
  await broker.until('Stint is ready')
  const login = startProgram(['login', '--no-browser'], surroundings)
  await login.until('/auth?')
  const [, url = ''] = /\n {2}(http:\S+\/auth\?\S+)\n/.exec(login.said().err) ?? []
  await browse(url, 'grace')
  const beganMs = Date.now()
  expect(await login.ended).toMatchObject({ code: 0, out: expect.stringContaining('oidc:grace, auditor, until ') })
  const listed = await runProgram(['audit', 'list'], surroundings)
  const [, until = ''] = /until (\S+Z)/.exec(login.said().out) ?? []
  expect(listed).toMatchObject({ code: 0, out: expect.stringMatching(/operator\.signed_in .*session [0-9a-f]{16} of grace role auditor/) })
  expect(Math.abs(Date.parse(until) - beganMs - 300_000)).toBeLessThan(30_000)
  expect(readdirSync(join(folder, '.local', 'state', 'stint'))).toEqual([`${encodeURIComponent(surroundings.env.STINT_URL)}.json`])
  expect(await runProgram(['logout'], surroundings)).toMatchObject({ code: 0, out: expect.stringContaining('Signed out') })
  await broker.stop()
  expect(broker.said().err).not.toMatch(/stint_os_|eyJ/)
})
