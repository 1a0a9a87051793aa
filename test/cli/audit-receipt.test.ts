import { existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { decodeJwt } from 'jose'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openCheckpoint } from '../../src/audit/checkpoint.ts'
import { parseVerifierKey } from '../../src/audit/note.ts'
import { verifyReceipt } from '../../src/audit/receipt.ts'
import { startRealBroker } from '../client/real-broker.ts'
import { createFolder, runRecorded, type Surroundings } from './recorder.ts'

/** A broker with one grant, and the command line as an operator and as a stranger would use it. */
async function setUp() {
  const { url, operator, admin } = await startRealBroker()
  const folder = createFolder()
  const keyFile = join(folder, 'bot.key')
  const asOperator = (args: readonly string[], more: Surroundings = {}) =>
    runRecorded(args, { ...more, env: { STINT_URL: url, STINT_OPERATOR_TOKEN: operator } })
  const asStranger = (args: readonly string[], more: Surroundings = {}) => runRecorded(args, { ...more, env: { STINT_URL: url } })
  const made = await runRecorded(['key', 'create', keyFile])
  await admin.registerWorkload({
    name: 'bot',
    environment: 'prod',
    stage: 'pilot',
    owner: { team: 'support', contact: 'oncall:support' },
    purpose: 'Labels tickets',
    review_at: new Date(Date.now() + 86_400_000).toISOString(),
    jwks: JSON.parse(made.out),
  })
  const token = await runRecorded(['token', 'tickets:read'], { env: { STINT_URL: url, STINT_WORKLOAD: 'bot', STINT_KEY_FILE: keyFile } })
  const grant = String(decodeJwt(token.out.trim()).jti)
  return { url, admin, folder, grant, asOperator, asStranger }
}

/** A server that is no broker. */
async function startOther(answer: string): Promise<string> {
  const server = createServer((_request, response) => response.end(answer))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const address = server.address()
  return typeof address === 'object' && address !== null ? `http://127.0.0.1:${address.port}` : ''
}

describe('stint audit receipt', () => {
  test('gives a file that verifies alone, by the key that stint audit key gives', async () => {
    const { admin, folder, grant, asOperator, asStranger } = await setUp()
    await admin.revokeGrants({ grant, reason: 'odd' })
    const file = join(folder, 'receipt.json')
    const given = await asOperator(['audit', 'receipt', grant, '--output', file])
    expect(given).toMatchObject({ code: 0, err: '' })
    const size = (await admin.listAudit({ limit: 1 })).tree_size
    expect(given.out).toBe(`${file}: entries ${size - 2}, ${size - 1}, under the checkpoint of ${size} entries\n`)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    const key = await asStranger(['audit', 'key'])
    expect(key).toMatchObject({ code: 0, err: '' })
    const verifier = parseVerifierKey(key.out.trimEnd())
    if (verifier === undefined) throw new Error(`no key: ${key.out}`)
    const text = readFileSync(file, 'utf8')
    expect(text.trimEnd().split('\n').length).toBeGreaterThan(5)
    expect(verifyReceipt(JSON.parse(text), verifier)).toMatchObject({ ok: true, grant, indexes: [size - 2, size - 1] })
    // To standard output it is the same.
    const printed = await asOperator(['audit', 'receipt', grant])
    expect(printed).toEqual({ code: 0, out: text, err: '' })
    const again = join(folder, 'again.json')
    const told = await asOperator(['audit', 'receipt', grant, '--output', again, '--json'])
    expect(JSON.parse(told.out)).toEqual({ file: again, grant, entries: [size - 2, size - 1], left_out: 0 })
  })

  test('leaves what is there as it is, and nothing half written', async () => {
    const { folder, grant, asOperator } = await setUp()
    const [file, link, target] = [join(folder, 'receipt.json'), join(folder, 'link'), join(folder, 'target')]
    writeFileSync(file, 'mine')
    symlinkSync(target, link)
    for (const path of [file, link]) {
      const refused = await asOperator(['audit', 'receipt', grant, '--output', path])
      expect(refused).toEqual({ code: 1, out: '', err: `stint: ${path} exists already and is left as it is: choose another name\n` })
    }
    expect([readFileSync(file, 'utf8'), existsSync(target)]).toEqual(['mine', false])
    const nowhere = await asOperator(['audit', 'receipt', grant, '--output', join(folder, 'no', 'receipt.json')])
    expect(nowhere).toMatchObject({ code: 1, err: expect.stringContaining('its folder does not exist') })
    expect(readdirSync(folder).sort()).toEqual(['bot.key', 'link', 'receipt.json'])
  })

  test('says what is wrong with what it was given', async () => {
    const { folder, grant, asOperator, asStranger } = await setUp()
    const unknown = `grant_${'0'.repeat(26)}`
    expect(await asOperator(['audit', 'receipt', unknown])).toMatchObject({ code: 1, err: `stint: There is no grant ${unknown}.\n` })
    expect(await asOperator(['audit', 'receipt', 'bot'])).toMatchObject({ code: 1, err: expect.stringContaining("it is a token's jti") })
    expect(await asOperator(['audit', 'receipt'])).toMatchObject({ code: 2, err: expect.stringContaining('the id of the grant is missing') })
    expect(await asOperator(['audit', 'receipt', grant, '--json'])).toMatchObject({ code: 2, err: expect.stringContaining('give --output FILE') })
    expect(await asOperator(['audit', 'receipt', grant, '--output='])).toMatchObject({ code: 2, err: expect.stringContaining('--output is empty') })
    expect(await asStranger(['audit', 'receipt', grant])).toMatchObject({ code: 1, err: expect.stringContaining('this needs an operator') })
    expect(readdirSync(folder)).toEqual(['bot.key'])
  })

  test('shows nothing that a terminal could obey', async () => {
    const { admin, grant, asOperator } = await setUp()
    await admin.revokeGrants({ grant, reason: 'odd \u202e text' })
    const { out } = await asOperator(['audit', 'receipt', grant])
    expect(out).not.toMatch(/\u202e/)
    expect(JSON.parse(out).entries[1].body).toContain('odd \u202e text')
  })
})

describe('stint audit checkpoint', () => {
  test('prints or keeps the newest checkpoint, which the key has signed, and needs no credential', async () => {
    const { folder, asStranger } = await setUp()
    const key = JSON.parse((await asStranger(['audit', 'key', '--json'])).out).key as string
    const verifier = parseVerifierKey(key)
    if (verifier === undefined) throw new Error(`no key: ${key}`)
    const printed = await asStranger(['audit', 'checkpoint'])
    expect(printed).toMatchObject({ code: 0, err: '' })
    const checkpoint = openCheckpoint(printed.out, verifier)
    if (typeof checkpoint === 'string') throw new Error(checkpoint)
    expect(checkpoint.origin).toBe('stint.test/log')
    const file = join(folder, 'kept.checkpoint')
    expect(await asStranger(['audit', 'checkpoint', '--output', file])).toEqual({ code: 0, out: `${file}: the checkpoint of ${checkpoint.size} entries\n`, err: '' })
    expect(readFileSync(file, 'utf8')).toBe(printed.out)
    const again = await asStranger(['audit', 'checkpoint', '--output', file])
    expect(again).toMatchObject({ code: 1, err: expect.stringContaining('exists already and is left as it is') })
    const json = JSON.parse((await asStranger(['audit', 'checkpoint', '--json'])).out)
    expect(json).toEqual({ size: checkpoint.size, checkpoint: printed.out })
  })

  test.each([['<html>\n\n</html>\n'], [''], ['stint.test/log\n5\nAAAA\n\n\u2014 a b\n'], ['\u001b[2J\n']])('neither prints nor keeps what is none: %j', async (answer) => {
    const url = await startOther(answer)
    const file = join(createFolder(), 'kept.checkpoint')
    for (const [args, what] of [[['checkpoint'], 'that is no checkpoint'], [['checkpoint', '--output', file], 'that is no checkpoint'], [['key'], 'that is no key of a log']] as const) {
      const refused = await runRecorded(['audit', ...args], { env: { STINT_URL: url } })
      expect(refused).toMatchObject({ code: 1, out: '', err: expect.stringContaining(what) })
      expect(refused.err).not.toContain('\u001b')
    }
    expect(existsSync(file)).toBe(false)
  })
})
