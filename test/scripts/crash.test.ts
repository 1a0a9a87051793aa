import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, inject, test, vi } from 'vitest'
import { describeAws } from '../aws/moto.ts'
import { createTestFolder, describeEngines, describePostgres } from '../harness.ts'

// Starting a process takes as long as the machine lets it.
vi.setConfig({ testTimeout: 300_000 })

const server = inject('postgres')
const script = fileURLToPath(new URL('../../scripts/crash.ts', import.meta.url))
const run = (...args: readonly string[]) => spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' })

describeEngines('The crash test', (engine) => {
  test('kills a broker under load, and finds nothing lost and nothing twice', () => {
    const json = join(createTestFolder(), 'report.json')
    const { status, stdout, stderr } = run('--engine', engine, '--rounds', '2', '--seed', '7', '--json', json)
    expect([status, stderr, stdout]).toEqual([0, '', expect.stringContaining('nothing lost, nothing twice')])
    const [report] = JSON.parse(readFileSync(json, 'utf8')) as Record<string, unknown>[]
    expect(report).toMatchObject({ engine, rounds: 2, databases: 1, kills: { serving: 2 }, problems: [] })
    // What was never tried was not found wanting either.
    const numbers = ['counts.tokens', 'counts.revocations', 'counts.changes', 'counts.checkpoints', 'tried.entries', 'tried.replays', 'tried.introspections']
    for (const path of numbers) expect(report, path).toHaveProperty(path, expect.toSatisfy((n: number) => n > 0))
  })
})

describePostgres('The crash test with connectors', (engine) => {
  test('kills a broker that lends roles, and finds nothing lost and nothing left', () => {
    const json = join(createTestFolder(), 'report.json')
    const { status, stdout, stderr } = run('--connectors', '--rounds', '2', '--seed', '7', '--json', json)
    expect([status, stderr, stdout]).toEqual([0, '', expect.stringMatching(/orphans +\d+ roles found [^]*nothing lost, nothing left/)])
    // One after the other, each with a PostgreSQL of its own as the tool.
    const reports = JSON.parse(readFileSync(json, 'utf8')) as Record<string, unknown>[]
    expect(reports.map((one) => one['engine'])).toEqual(['sqlite', 'postgres'])
    const report = reports.find((one) => one['engine'] === engine)
    expect(report).toMatchObject({ engine, rounds: 2, databases: 1, problems: [] })
    for (const path of ['counts.received', 'entries']) expect(report, path).toHaveProperty(path, expect.toSatisfy((n: number) => n > 0))
  })
})

describeAws('The crash test with AWS', () => {
  test.skipIf(server.missing !== undefined)('kills a broker that lends sessions and replaces secrets, and finds none without a record', () => {
    const json = join(createTestFolder(), 'report.json')
    const { status, stdout, stderr } = run('--aws', '--engine', 'sqlite', '--rounds', '2', '--seed', '7', '--json', json)
    expect([status, stderr, stdout]).toEqual([0, '', expect.stringMatching(/sessions +\d+ opened[^]*no session without a record, no secret without a version in force/)])
    const [report] = JSON.parse(readFileSync(json, 'utf8')) as Record<string, unknown>[]
    expect(report).toMatchObject({ engine: 'sqlite', rounds: 2, databases: 1, problems: [] })
    for (const path of ['counts.received', 'entries', 'rotations.begun']) expect(report, path).toHaveProperty(path, expect.toSatisfy((n: number) => n > 0))
  })
})

describe('The crash test\'s options', () => {
  test('are explained, and refused where they are none', () => {
    expect(run('--help')).toMatchObject({ status: 0, stdout: expect.stringMatching(/^Usage: npm run crash --.*\n[^]*SIGKILL[^]*fsync/) })
    expect(run('--engine', 'mysql')).toMatchObject({ status: 2, stderr: expect.stringContaining('--engine is sqlite, postgres or both, not mysql') })
    expect(run('--aws', '--connectors')).toMatchObject({ status: 2, stderr: expect.stringContaining('give one of them') })
    expect(run('--rounds', 'many')).toMatchObject({ status: 2, stderr: expect.stringContaining('--rounds takes a whole number, not many') })
  })
})
