import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { routes } from '../../src/http/app.ts'
import { nameOperation } from '../../src/http/openapi.ts'
import { openSqlite } from '../../src/storage/sqlite.ts'
import { testPolicies } from '../broker.ts'
import { createTestFolder } from '../harness.ts'
import { checkLog } from '../storage/check-log.ts'
import { startFuzzedBroker, startMaker, type FuzzedBroker } from './fuzzed-broker.ts'

/** Where `.ci/run` installs it, or as the environment says. */
const schemathesis = process.env['SCHEMATHESIS'] ?? fileURLToPath(new URL('../../.venv/bin/schemathesis', import.meta.url))
const missing = existsSync(schemathesis) || process.env['CI'] ? '' : ' (skipped: install it with python3 -m venv .venv && .venv/bin/pip install -r test/openapi/requirements.txt)'
const hooks = fileURLToPath(new URL('hooks.py', import.meta.url))
const config = fileURLToPath(new URL('schemathesis.toml', import.meta.url))

interface Run {
  readonly who: string
  readonly credential?: string
  /** Of a second operator of that role, for what ends the credential that it is asked with. */
  readonly spare?: string
  /** The names of the operations, as in the document. */
  readonly operations: readonly string[]
  readonly phases: string
  readonly examples: number
}

async function fuzz({ url }: FuzzedBroker, maker: string, { who, credential, spare = 'none', operations, phases, examples }: Run) {
  const args = [
    '--config-file', config, 'run', `${url}/openapi.json`, '--url', url, '--seed', '20260115', '--no-color', '--continue-on-failure',
    '--max-examples', String(examples), '--generation-database', 'none', '--phases', phases,
    ...operations.flatMap((operation) => ['--include-operation-id', operation]),
    ...(credential === undefined ? [] : ['--header', `Authorization: Bearer ${credential}`]),
  ]
  const child = spawn(schemathesis, args, {
    cwd: createTestFolder(),
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      SCHEMATHESIS_HOOKS: hooks,
      STINT_MAKER: maker,
      STINT_KEPT: JSON.stringify(kept),
      STINT_POLICIES: JSON.stringify(Object.fromEntries(testPolicies)),
      STINT_SPARE_CREDENTIAL: spare,
    },
  })
  const [out, err, [code]] = await Promise.all([child.stdout.toArray(), child.stderr.toArray(), once(child, 'close')])
  // Says which operations were refused throughout, of which there are many.
  const [said = ''] = `${Buffer.concat(out).toString()}${Buffer.concat(err).toString()}`.split('= WARNINGS =')
  return { who, code: code as number | null, said, credential }
}

const fuzzedRoles = ['auditor', 'approver', 'admin'] as const
const kept = { workloads: ['fuzzed-bot'], operators: ['root', ...fuzzedRoles.flatMap((role) => [`fuzzing-${role}`, `spare-${role}`])] }

describe.skipIf(missing !== '')(`A live broker, fuzzed by Schemathesis against its OpenAPI document${missing}`, () => {
  test('answers each role, and nobody, as the document says', { timeout: 600_000 }, async () => {
    const broker = await startFuzzedBroker()
    const maker = await startMaker(await broker.register('fuzzed-bot'))
    const makeOperator = async (name: string, role: string) => String((await broker.ask('POST', '/v1/operators', { name, role }))['credential'])
    const guarded = routes.filter(({ access }) => typeof access !== 'string').map(nameOperation)
    const open = routes.filter(({ access }) => typeof access === 'string').map(nameOperation)
    const whole = 'examples,coverage,fuzzing,stateful'
    // Who may do nothing somewhere needs few tries there; each of them costs the stranger 20 ms.
    const runs: Run[] = [
      { who: 'nobody', operations: open, phases: whole, examples: 15 },
      { who: 'nobody', operations: guarded, phases: 'fuzzing', examples: 2 },
    ]
    for (const who of fuzzedRoles) {
      const [credential, spare] = [await makeOperator(`fuzzing-${who}`, who), await makeOperator(`spare-${who}`, who)]
      const depth = who === 'admin' ? { phases: whole, examples: 15 } : { phases: 'fuzzing', examples: 4 }
      runs.push({ who, credential, spare, operations: guarded, ...depth })
    }

    // All at once, as it is in life: what one of them changes must not make a wrong answer of another's.
    for (const { who, code, said, credential } of await Promise.all(runs.map((run) => fuzz(broker, maker, run)))) {
      expect.soft([who, code], said).toEqual([who, 0])
      // The run was not cut short by an operator that ended itself.
      if (credential === undefined) continue
      const response = await fetch(`${broker.url}/v1/operator`, { headers: { authorization: `Bearer ${credential}` } })
      expect(await response.json()).toMatchObject({ name: `fuzzing-${who}`, role: who })
    }

    expect(broker.program.child.exitCode).toBeNull()
    expect((await fetch(`${broker.url}/readyz`)).status).toBe(200)
    const { code, err } = await broker.program.stop()
    expect(code).toBe(0)
    const lines = err.trimEnd().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(lines.filter(({ level }) => level === 'error')).toEqual([])
    const database = openSqlite({ file: broker.database })
    const bodies = await checkLog(database.read).finally(() => database.close())
    // What was behind the proofs was reached, too.
    const types = new Set(bodies.map(({ type }) => type))
    expect(types).toEqual(types.union(new Set(['grant.issued', 'grant.denied', 'workload.registered', 'change.refused', 'policy.rejected'])))
  })
})
