import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { loadPolicySet } from '../../src/policy/policy-set.ts'
import { readPolicyFolder } from '../../src/storage/policy-folder.ts'
import { createFolder, runRecorded } from './recorder.ts'

const tool = `tool: tickets
connector: jwt
audience: https://tickets.example.com
sensitivity: low
ttl: { default: 10m, max: 1h }
actions: { read: {} }
`
const rules = '@id("reads") permit (principal, action == Action::"tickets:read", resource);\n'
const tests = `workloads: { ada: { team: support, stage: pilot } }
tests:
  - { name: reads, workload: ada, actions: [tickets:read], expect: allow }
`

function folderWith(files: Readonly<Record<string, string>>): string {
  const folder = createFolder()
  for (const name of ['tools', 'tests']) mkdirSync(join(folder, name))
  for (const [path, text] of Object.entries({ 'tools/tickets.yaml': tool, 'rules.cedar': rules, 'tests/t.yaml': tests, ...files })) {
    writeFileSync(join(folder, path), text)
  }
  return folder
}

async function hashOf(folder: string): Promise<string> {
  const loaded = loadPolicySet(await readPolicyFolder(folder))
  return 'set' in loaded ? loaded.set.hash : ''
}

test('check: one line for a sound folder', async () => {
  const folder = folderWith({})
  expect(await runRecorded(['policy', 'check', folder])).toEqual({ code: 0, out: `ok: 1 policy, 1 tool, ${await hashOf(folder)}\n`, err: '' })
})

test('check: each problem on a line of its own, exit code 1', async () => {
  const folder = folderWith({ 'a.cedar': 'permit (;', 'b.cedar': '@id("x")\nforbid (principal, action == Action::"tickets:raed", resource);' })
  const { code, out, err } = await runRecorded(['policy', 'check', folder])
  expect({ code, lines: out.split('\n'), err }).toEqual({
    code: 1,
    lines: [
      'a.cedar:1:9 unexpected token `;`: expected `)` or identifier',
      'b.cedar:2:30 no action is named "tickets:raed" (did you mean tickets:read?)',
      '',
    ],
    err: '2 problems\n',
  })
})

test('check --json: the problems for programs', async () => {
  const { code, out } = await runRecorded(['policy', 'check', folderWith({ 'x.yml': '' }), '--json'])
  expect({ code, ...JSON.parse(out) }).toMatchObject({ code: 1, ok: false, problems: [{ file: 'x.yml', line: 1, column: 1 }] })
})

test('check: no folder is one sentence, two are wrong usage', async () => {
  expect(await runRecorded(['policy', 'check', join(createFolder(), 'none')])).toMatchObject({ code: 1, out: '', err: expect.stringContaining('There is no policy folder') })
  expect(await runRecorded(['policy', 'check', 'a', 'b'])).toMatchObject({ code: 2 })
})

test('check: what a file says does not steer the terminal', async () => {
  const { out } = await runRecorded(['policy', 'check', folderWith({ 'a.cedar': '@id("x") forbid (principal, action == Action::"\\u{1b}[31m\\u{202e}", resource);' })])
  // oxlint-disable-next-line no-control-regex
  expect(out).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f\u202e]/)
})

test('test: a table and the totals', async () => {
  const passed = await runRecorded(['policy', 'test', folderWith({})])
  expect(passed).toEqual({
    code: 0,
    out: 'RESULT  TEST            NAME   EXPECTED  WHY\nok      tests/t.yaml:3  reads  allow     by reads\n1 test passed\n',
    err: '',
  })
  const failed = await runRecorded(['policy', 'test', folderWith({ 'tests/t.yaml': tests.replace('expect: allow', 'expect: deny') })])
  expect(failed).toMatchObject({ code: 1, out: expect.stringContaining('FAILED  tests/t.yaml:3  reads  deny, got allow  decided by reads') })
  expect(failed.out).toContain('1 of 1 test failed\n')
})

test('test: checks first, and says where a test is wrong', async () => {
  expect(await runRecorded(['policy', 'test', folderWith({ 'rules.cedar': 'permit (;' })])).toMatchObject({ code: 1, out: expect.stringContaining('rules.cedar:1:9') })
  const wrong = folderWith({ 'tests/t.yaml': tests.replace('workload: ada', 'workload: bob') })
  expect(await runRecorded(['policy', 'test', wrong])).toMatchObject({ code: 1, out: expect.stringContaining('tests/t.yaml:3:30 "bob" is not among') })
})

test('test: a folder without tests does not pass', async () => {
  const folder = folderWith({})
  rmSync(join(folder, 'tests'), { recursive: true })
  expect(await runRecorded(['policy', 'test', folder])).toEqual({ code: 1, out: '', err: 'There are no tests: write some in tests/*.yaml.\n' })
  const json = await runRecorded(['policy', 'test', folder, '--json'])
  expect([json.code, JSON.parse(json.out)]).toEqual([1, expect.objectContaining({ ok: false, tests: 0, failed: 0 })])
})

test('apply: sends rules and catalog but no tests, and says what is in force', async () => {
  const folder = folderWith({})
  const hash = await hashOf(folder)
  const { url, requests } = await serve({ hash, previous: null, changed: true, audit_index: 7 })
  const env = { STINT_URL: url, STINT_OPERATOR_TOKEN: 'stint_op_abc' }
  const { code, out } = await runRecorded(['policy', 'apply', folder, '--expect', 'none'], { env })
  expect({ code, out }).toEqual({ code: 0, out: `in force: 1 policy, 1 tool, ${hash}, audit entry 7\n` })
  const previous = 'b'.repeat(64)
  const second = await serve({ hash, previous, changed: true, audit_index: 8 })
  const replaced = await runRecorded(['policy', 'apply', folder], { env: { ...env, STINT_URL: second.url } })
  expect(replaced.out).toBe(`in force: 1 policy, 1 tool, ${hash}, audit entry 8, replaces ${previous}\n`)
  expect(requests).toEqual([
    { method: 'PUT', url: '/v1/policy', body: { files: { 'rules.cedar': rules, 'tools/tickets.yaml': tool }, expected: null } },
  ])
})

test('apply: sends nothing that does not load, and refuses a hash that is none', async () => {
  const { url, requests } = await serve({})
  const env = { STINT_URL: url, STINT_OPERATOR_TOKEN: 'stint_op_abc' }
  expect(await runRecorded(['policy', 'apply', folderWith({ 'rules.cedar': 'permit (;' })], { env })).toMatchObject({ code: 1, out: expect.stringContaining('rules.cedar:1:9') })
  expect(await runRecorded(['policy', 'apply', folderWith({}), '--expect', 'abc'], { env })).toMatchObject({ code: 2 })
  expect(requests).toEqual([])
})

test('show: what is in force', async () => {
  const { url } = await serve({ hash: 'a'.repeat(64), in_force_since: '2026-11-21T12:00:00.000Z', cedar_version: '4.13.0', policies: 8, tools: 3, audit_index: 7 })
  const { code, out } = await runRecorded(['policy', 'show'], { env: { STINT_URL: url, STINT_OPERATOR_TOKEN: 'stint_op_abc' } })
  expect(code).toBe(0)
  expect(out).toContain(`hash            ${'a'.repeat(64)}\nin force since  2026-11-21T12:00:00.000Z\npolicies        8\n`)
})

/** A listener on loopback that answers everything alike and remembers what it was asked. */
async function serve(answer: object): Promise<{ url: string; requests: unknown[] }> {
  const requests: unknown[] = []
  const server = createServer((request, response) => {
    const remember = async (): Promise<void> => {
      const text = await readBody(request)
      requests.push({ method: request.method, url: request.url, body: text === '' ? undefined : JSON.parse(text) })
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify(answer))
    }
    void remember()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return { url: `http://127.0.0.1:${address.port}`, requests }
}

async function readBody(request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) text += String(chunk)
  return text
}
