import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonicalJson, type JsonObject } from '../../src/audit/encode.ts'
import { verifyDecisions } from '../../src/cli/verify-decisions.ts'
import type { Section } from '../../src/cli/verify-report.ts'
import { cedarVersion } from '../../src/policy/cedar.ts'
import type { AccessRequest } from '../../src/policy/request.ts'
import { startBroker, testPolicies, type TestAgent, type TestBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { askToken, details } from '../http/oauth-requests.ts'
import { loadSound, policy, request } from '../policy/random.ts'
import { createFolder, runRecorded } from './recorder.ts'

/** An export of the whole log with what proves it, as `stint audit export` writes it. */
async function exportTo(broker: TestBroker, file: string): Promise<string[]> {
  const entries = await broker.sendAsAdmin('GET', '/v1/audit/export')
  const text = await entries.text()
  const range = ['first', 'last'].map((end) => `${end}=${entries.headers.get(`stint-export-${end}`)}`).join('&')
  const proof = await broker.sendAsAdmin('GET', `/v1/audit/proof?${range}`)
  expect([entries.status, proof.status]).toEqual([200, 200])
  writeFileSync(file, text + (await proof.text()))
  return readFileSync(file, 'utf8').trimEnd().split('\n')
}

const silent = { err: () => undefined, errColumns: undefined }
const verify = (file: string, options = {}): Promise<Section> => verifyDecisions(file, silent, options)

function writeLines(file: string, lines: readonly string[]): string {
  writeFileSync(file, lines.map((line) => `${line}\n`).join(''))
  return file
}

/** Of an entry that records a decision, what these tests change. */
interface Decided {
  readonly decision: {
    verdict: string
    approvals_needed: number
    reasons: string[]
    cedar_version: string
    input: { context: { recentGrants: number }; entities: { parents: unknown[] }[] }
  }
}

/** The lines with the entry of that index changed, and written as the log writes it. */
function withEntry(lines: readonly string[], index: number, change: (entry: Decided) => void): string[] {
  return lines.map((line) => {
    const entry = JSON.parse(line) as JsonObject
    if (entry['index'] !== index) return line
    const copy = structuredClone(entry)
    change(copy as unknown as Decided)
    return canonicalJson(copy)
  })
}

function withSet(lines: readonly string[], change: (set: { policy_set: string; files: Record<string, string> }) => void): string[] {
  return lines.map((line) => {
    if (!line.startsWith('{"policy_set"')) return line
    const set = JSON.parse(line) as { policy_set: string; files: Record<string, string> }
    change(set)
    return JSON.stringify(set)
  })
}

const indexOf = (lines: readonly string[], part: string): number => {
  const entry = JSON.parse(lines.find((line) => line.includes(part)) ?? '{}') as { index: number }
  return entry.index
}

async function ask(broker: TestBroker, agent: TestAgent, scope: string): Promise<void> {
  const { status } = await askToken(broker, agent, { scope })
  expect([200, 400]).toContain(status)
}

/** A log of decisions of every kind by two policy sets, one of which counts. */
async function decideSome(broker: TestBroker): Promise<void> {
  const support = await broker.register('triage-bot')
  const finance = await broker.register('finance-bot', { team: 'finance', tags: ['eu', 'bot'] })
  await ask(broker, support, 'tickets:read tickets:comment')
  await ask(broker, support, 'tickets:purge')
  const parameters = { authorization_details: details({ actions: ['payments:refund'], target: 'acct-1', task: 'ticket-4711', ttl_seconds: 60 }) }
  expect((await askToken(broker, finance, parameters)).body).toMatchObject({ error: 'access_denied' })
  const counting = '@id("few") permit (principal, action, resource) when { context.recentGrants < 3 && context.recentDenials < 9 };\n'
  const files = Object.fromEntries([...testPolicies, ['rules.cedar', counting]])
  expect((await broker.sendAsAdmin('PUT', '/v1/policy', { files })).status).toBe(200)
  for (let i = 0; i < 4; i++) await ask(broker, support, 'tickets:read')
}

describeEngines('The decisions of an export', (engine) => {
  test('come out the same, by each set that was in force, and what was changed does not', async () => {
    const broker = await startBroker(engine)
    await decideSome(broker)
    const file = join(createFolder(), 'log.jsonl')
    const lines = await exportTo(broker, file)
    expect(lines.filter((line) => line.startsWith('{"policy_set"'))).toHaveLength(2)
    const good = await verify(file)
    expect(good).toMatchObject({ title: 'decisions', ok: true, json: { decisions: 7, same: 7, wrong: 0, not_replayed: [], cedar_version: cedarVersion } })
    expect(good.lines[0]).toBe('7 of 7 decisions come out as they are recorded, by the policy sets in the file.')

    const purge = indexOf(lines, '"actions":["tickets:purge"]')
    const changed = await verify(writeLines(file, withEntry(lines, purge, (entry) => (entry.decision.verdict = 'allow'))))
    expect(changed).toMatchObject({ ok: false, json: { same: 6, wrong: 1 } })
    expect(changed.lines).toContain(`line ${purge + 1}, entry ${purge}: decision.verdict is "allow", and comes out as "deny"`)

    const refund = indexOf(lines, '"actions":["payments:refund"]')
    const told = await verify(writeLines(file, withEntry(lines, refund, (entry) => (entry.decision.approvals_needed = 2))))
    expect(told.json).toMatchObject({ wrong: 1, problems: [{ index: refund, path: 'decision.approvals_needed', recorded: 2, replayed: 1 }] })

    const last = lines.findLastIndex((line) => line.includes('"type":"grant.denied"'))
    const counted = await verify(writeLines(file, withEntry(lines, last, (entry) => (entry.decision.input.context.recentGrants = 1))))
    expect(counted.json).toMatchObject({ wrong: 1 })
    expect(counted.lines).toContain(`line ${last + 1}, entry ${last}: type is "grant.denied", and comes out as "grant.issued"`)
  })

  test('cannot be made again by a set that is missing, or is not the one that it is called', async () => {
    const broker = await startBroker(engine)
    await decideSome(broker)
    const file = join(createFolder(), 'log.jsonl')
    const lines = await exportTo(broker, file)
    const first = indexOf(lines, '"type":"grant.issued"')
    const { hash } = (await (await broker.sendAsAdmin('GET', '/v1/policy')).json()) as { hash: string }
    const [before = ''] = /"policy_set":"[0-9a-f]{64}"/.exec(lines.find((line) => line.includes('"type":"policy.applied"')) ?? '') ?? []

    const missing = await verify(writeLines(file, lines.filter((line) => !line.startsWith(`{${before}`))))
    const old = before.slice(14, -1)
    expect(missing).toMatchObject({ ok: false, json: { decisions: 7, same: 4, wrong: 0 } })
    expect(missing.lines).toContain(`3 decisions not made again, the first in entry ${first}: the policy set ${old} is not in the file.`)

    const loosened = await verify(
      writeLines(file, withSet(lines, ({ policy_set: set, files }) => {
        if (set === hash) files['rules.cedar'] = '@id("few") permit (principal, action, resource);'
      })),
    )
    expect(loosened).toMatchObject({ ok: false, json: { same: 3, wrong: 0 } })
    expect(loosened.lines.at(-1)).toContain(`the policy set ${hash} is in the file, but its texts do not have that hash.`)
  })
})

describe('An export that was made up', () => {
  async function someLines() {
    const broker = await startBroker('sqlite')
    await decideSome(broker)
    const file = join(createFolder(), 'log.jsonl')
    return { file, lines: await exportTo(broker, file) }
  }

  test('in small pieces, on several threads, says the same', async () => {
    const { file, lines } = await someLines()
    const whole = await verify(file)
    expect(await verify(file, { pieceBytes: 2_000 })).toEqual(whole)
    const purge = indexOf(lines, '"actions":["tickets:purge"]')
    const changed = withEntry(lines, purge, (entry) => (entry.decision.verdict = 'allow'))
    writeLines(file, ['no entry', ...changed.slice(0, -1), '[]', changed.at(-1) ?? ''])
    const inPieces = await verify(file, { pieceBytes: 2_000 })
    expect(inPieces).toEqual(await verify(file))
    expect(inPieces.json).toMatchObject({
      wrong: 3,
      problems: [{ line: 1, what: 'is no entry' }, { line: purge + 2, index: purge }, { line: lines.length + 1, what: 'is no entry' }],
    })
  }, 60_000)

  test('without a line of its own end is whole', async () => {
    const { file } = await someLines()
    writeFileSync(file, readFileSync(file, 'utf8').trimEnd())
    expect(await verify(file)).toMatchObject({ ok: true, json: { same: 7 } })
  })

  test('under another version of Cedar is the same, or cannot be compared, or is wrong in what no version changes', async () => {
    const { file, lines } = await someLines()
    const purge = indexOf(lines, '"actions":["tickets:purge"]')
    const older = (change: (decision: Decided['decision']) => void) =>
      verify(
        writeLines(file, withEntry(lines, purge, ({ decision }) => {
          decision.cedar_version = '4.0.0'
          change(decision)
        })),
      )
    expect(await older(() => undefined)).toMatchObject({ ok: true, json: { same: 7, same_by_another_cedar: 1 } })
    const other = await older((decision) => (decision.reasons = ['sandbox-keeps-away']))
    expect(other).toMatchObject({ ok: false, json: { same: 6, wrong: 0, not_replayed: [{ decisions: 1, first_index: purge }] } })
    expect(other.lines.at(-1)).toContain('Cedar 4.0.0 is said to have decided otherwise')
    expect(await older((decision) => decision.input.entities[3]?.parents.splice(0))).toMatchObject({ ok: false, json: { wrong: 1, not_replayed: [] } })
  })

  test('names no more than a hundred of what is wrong, and counts the rest', async () => {
    const { file, lines } = await someLines()
    const entry = lines[indexOf(lines, '"type":"grant.issued"')] ?? ''
    writeLines(file, [...Array.from({ length: 300 }, () => entry.replace('"verdict":"allow"', '"verdict":"deny"')), ...lines.filter((line) => line.startsWith('{"policy_set"'))])
    const { ok, lines: told, json } = await verify(file)
    expect(ok).toBe(false)
    expect(json).toMatchObject({ decisions: 300, wrong: 300 })
    expect(json['problems']).toHaveLength(100)
    expect(told).toContain('300 entries wrong in all.')
    const strange = (i: number) => entry.replace(/"policy_set":"[0-9a-f]{64}"/, `"policy_set":"${String(i).padStart(500, 'x')}"`)
    writeLines(file, Array.from({ length: 300 }, (_, i) => strange(i)))
    const skipped = (await verify(file)).json['not_replayed'] as { decisions: number; why: string }[]
    expect(skipped.length).toBeLessThanOrEqual(101)
    expect(skipped.reduce((sum, { decisions }) => sum + decisions, 0)).toBe(300)
    expect(Math.max(...skipped.map(({ why }) => why.length))).toBeLessThan(200)
  })

  test.each([
    ['CSV', 'index,time,type\n0,x,log.opened\n'],
    ['a receipt', '{"receipt":1,"grant":"grant_1","entries":[],"checkpoint":""}'],
    ['a receipt on several lines', '{\n  "receipt": 1\n}\n'],
  ])('as %s has no decisions to make again', async (_, text) => {
    const file = join(createFolder(), 'file')
    writeFileSync(file, text)
    expect(await verify(file)).toMatchObject({ ok: false, json: { decisions: 0 } })
  })

  test('that is empty, missing, or one endless line is told so', async () => {
    const file = join(createFolder(), 'file')
    await expect(verify(file)).rejects.toThrow(/cannot read .* \(ENOENT\)/)
    writeFileSync(file, '')
    expect(await verify(file)).toMatchObject({ ok: true, lines: ['No decision is recorded in this file.'] })
    writeFileSync(file, 'x'.repeat(100_000))
    await expect(verify(file, { pieceBytes: 1_000, lineBytesMax: 50_000 })).rejects.toThrow(/line of more than 50000 bytes/)
  })
})

test('The command line says it beside the check of the file, for people and for programs', async () => {
  const broker = await startBroker('sqlite')
  await decideSome(broker)
  const file = join(createFolder(), 'log.jsonl')
  const lines = await exportTo(broker, file)
  const args = ['audit', 'verify', file, '--key', broker.broker.checkpointKey.verifierKey, '--decisions']
  const run = await runRecorded(args)
  expect(run).toMatchObject({ code: 0, err: '' })
  expect(run.out).toContain('decisions: ok\n  7 of 7 decisions come out as they are recorded')
  const purge = indexOf(lines, '"actions":["tickets:purge"]')
  writeLines(file, withEntry(lines, purge, (entry) => (entry.decision.verdict = 'allow')))
  const changed = await runRecorded([...args, '--json'])
  expect(changed.code).toBe(1)
  expect(JSON.parse(changed.out)).toMatchObject({ ok: false, file: { ok: false }, decisions: { ok: false, wrong: 1, problems: [{ index: purge, path: 'decision.verdict' }] } })
})

test('what a broker decides by random sets, comes out the same from its export', async () => {
  const broker = await startBroker('sqlite')
  const agents = new Map<string, TestAgent>()
  const seen = new Set<string>()
  let sets = 0

  async function agentOf({ workload: { stage, team, tags, environment } }: AccessRequest): Promise<TestAgent> {
    const key = `${stage}-${team}-${environment}-${tags.join('-')}`
    const agent = agents.get(key) ?? (await broker.register(`w${agents.size}`, { stage, team, tags, environment }))
    agents.set(key, agent)
    return agent
  }

  await fc.assert(
    fc.asyncProperty(fc.array(policy, { minLength: 1, maxLength: 10 }), fc.array(request, { minLength: 4, maxLength: 8 }), async (rules, requests) => {
      // Left to chance alone, all twelve sets may deny whatever is asked.
      const all: typeof rules = sets++ % 2 === 0 ? [['permit', 'principal', 'action', 'resource', ''], ...rules] : rules
      const files = Object.fromEntries(loadSound(all).files)
      expect((await broker.sendAsAdmin('PUT', '/v1/policy', { files })).status).toBe(200)
      for (const asked of requests) {
        const { actions, target, task, ttlSeconds } = asked
        const members = { actions, ...(target !== undefined && { target }), ...(task !== undefined && { task }), ttl_seconds: Math.min(ttlSeconds, 900) }
        broker.clock.advance(60_000)
        const { status, body } = await askToken(broker, await agentOf(asked), { authorization_details: details(members) })
        expect(status === 200 || body['error'] === 'access_denied').toBe(true)
      }
    }),
    { numRuns: 12 },
  )
  for (const event of await broker.events()) if ('decision' in event) seen.add(event.decision.verdict)
  const file = join(createFolder(), 'log.jsonl')
  await exportTo(broker, file)
  const { ok, lines, json } = await verify(file)
  expect(lines.slice(2)).toEqual([])
  expect(ok).toBe(true)
  expect(json['same']).toBeGreaterThan(40)
  expect(seen.size).toBeGreaterThan(1)
}, 90_000)
