import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { getRequestListener } from '@hono/node-server'
import { describe, expect, test } from 'vitest'
import { formatVerifierKey } from '../../src/audit/note.ts'
import { csvHeader, formatCsvLine } from '../../src/audit/csv.ts'
import { leafHash } from '../../src/audit/encode.ts'
import { appendLeaf, rootOf, type Frontier } from '../../src/audit/merkle.ts'
import { verifyFile } from '../../src/cli/verify-file.ts'
import { createLogKey, generateLog, writeGeneratedLog } from '../audit/generated-log.ts'
import { base, bodiesOf, iso, issued, key as madeKey, minting, minute, root, seal, type Event } from '../audit/made-log.ts'
import { getToken, startBroker } from '../broker.ts'
import { listen } from '../listen.ts'
import { createFolder, runRecorded } from './recorder.ts'

const verify = (args: readonly string[], env = {}) => runRecorded(['audit', 'verify', ...args], { env })

/** A log of 120 entries as an export, the key, and what else the test makes of it. */
function setUp(entries = 120) {
  const folder = createFolder()
  const file = join(folder, 'log.jsonl')
  const key = writeGeneratedLog(file, entries)
  const bodies = (readFileSync(file, 'utf8').split('{"policy_set"')[0] ?? '').trimEnd().split('\n')
  const write = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  const keep = (texts: readonly string[]): string => {
    const frontier = texts.reduce((before: Frontier, text, i) => appendLeaf(before, i, leafHash(Buffer.from(text))), [])
    return write(`${texts.length}.checkpoint`, key.sign({ size: texts.length, root: rootOf(frontier) }))
  }
  return { folder, file, key, bodies, write, keep, size: bodies.length }
}

describe('stint audit verify', () => {
  test('says what an export proves, and what not', async () => {
    const { file, key, size } = setUp()
    const { code, out, err } = await verify([file, '--key', key.text])
    expect([code, err]).toEqual([0, ''])
    const lines = out.split('\n')
    expect(lines.slice(0, 3)).toEqual(['file: ok', `  ${file} has ${size} entries, 0 to ${size - 1}.`, `  Complete: they are the ${size} entries of the tree that was signed, each as it was, none missing and none added.`])
    expect(lines[3]).toMatch(/^ {2}The first 12\d entries of the log fit together: \d+ grants, each with its decision, its policy set, its workload and key in good order; \d+ ends by revocation, each of a grant that was there\.$/)
    expect(lines[4]).toContain('Tail not proven')
    expect(lines.slice(5)).toEqual([''])
  })

  test('holds it against a checkpoint that was kept, and says the same to programs', async () => {
    const { file, key, bodies, write, keep, size } = setUp()
    const keyFile = write('log.key', `${key.text}\n`)
    const held = await verify([file, '--key', keyFile, '--checkpoint', keep(bodies.slice(0, 50))])
    expect(held).toMatchObject({ code: 0, out: expect.stringContaining('Tail proven up to 50 entries: they are those of the checkpoint that you kept') })
    expect(held.out).not.toContain('not proven')
    const { code, out } = await verify([file, '--key', keyFile, '--checkpoint', keep(bodies.slice(0, 50)), '--json'])
    expect(code).toBe(0)
    expect(JSON.parse(out)).toEqual({
      ok: true,
      file: {
        ok: true,
        path: file,
        form: 'jsonl',
        entries: size,
        first: 0,
        last: size - 1,
        checkpoint: { origin: 'stint.test/log', size, root: expect.stringMatching(/^[A-Za-z0-9+/]{43}=$/) },
        proof: 'complete',
        proven_size: size,
        unproven_entries: 0,
        tail_proven_to: 50,
        kept: { size: 50, status: 'proven' },
        life: {
          entries: size,
          grants_issued: expect.any(Number),
          grants_revoked: expect.any(Number),
          outside_grants: { issued: 0, failed: 0, ended: 0, open: 0, overdue: 0, stuck: 0, written_off: 0 },
          restored_at: [],
        },
        policy_sets: 1,
        problems: [],
        problems_more: 0,
      },
    })
    const contradicted = await verify([file, '--key', keyFile, '--checkpoint', keep([...bodies.slice(0, 49), 'x'])])
    expect(contradicted).toMatchObject({ code: 1, out: expect.stringContaining('file: NOT OK\n  1 thing is wrong with') })
    expect(contradicted.out).toContain('The first 50 entries are not those of the checkpoint that was kept')
    const larger = await verify([file, '--key', keyFile, '--checkpoint', keep([...bodies, 'x'])])
    expect(larger).toMatchObject({ code: 1, out: expect.stringContaining(`it states ${size + 1} entries, and the log had ${size} by this file`) })
  })

  test('says what became of grants in outside tools', async () => {
    const { write } = setUp()
    const told = async (...events: Event[]) => {
      const file = write('outside.jsonl', seal(bodiesOf([...base, ...events])).map((line) => `${line}\n`).join(''))
      const { code, out } = await verify([file, '--key', madeKey.text])
      const { file: json } = JSON.parse((await verify([file, '--key', madeKey.text, '--json'])).out) as { file: { life: object } }
      return { code, line: out.split('\n').find((line) => line.includes('outside tools')), life: json.life }
    }
    expect(await told(issued())).toMatchObject({ code: 0, line: undefined, life: { grants_issued: 1 } })
    const of = (grant: string, ...types: string[]): Event[] => [
      minting({ grant }),
      ...types.map((type) => ({ type, actor: root, workload: 'bot', grant, tool: 'tickets', ...members[type] })),
    ]
    const members: Record<string, object> = {
      'grant.ended': { cause: 'undone', effect: 'immediate' },
      'grant.failed': { detail: 'd' },
      'grant.stuck': { tries: 10, detail: 'd' },
      'grant.written_off': { reason: 'r' },
    }
    expect(await told(...of('grant_1', 'grant.ended'))).toEqual({
      code: 0,
      line: '  1 grant was to live in outside tools: 1 ended there.',
      life: expect.objectContaining({ grants_issued: 1, outside_grants: { issued: 1, failed: 0, ended: 1, open: 0, overdue: 0, stuck: 0, written_off: 0 } }),
    })
    const all = [
      ...of('grant_1', 'grant.ended'),
      ...of('grant_2', 'grant.ended'),
      ...of('grant_3', 'grant.failed'),
      ...of('grant_4'),
      ...of('grant_5', 'grant.activated'),
      ...of('grant_6', 'grant.stuck'),
      ...of('grant_7', 'grant.stuck', 'grant.written_off'),
    ]
    expect(await told(...all)).toEqual({
      code: 0,
      line: '  7 grants were to live in outside tools: 2 ended there; 1 came to nothing; 2 were not over by the last entry; 1 stuck, which the tool refused to end; 1 written off, whether or not anything lives.',
      life: expect.objectContaining({ outside_grants: { issued: 7, failed: 1, ended: 2, open: 2, overdue: 0, stuck: 1, written_off: 1 } }),
    })
    const late = { ...issued({ expires_at: iso(20 * minute) }, {}, 10 * minute) }
    expect((await told(...all, late)).line).toContain('2 were not over by the last entry, 2 of them past their time; 1 stuck')
  })

  test('names the entry that was changed', async () => {
    const { key, bodies, write, file, size } = setUp()
    const [, proof = ''] = /(\{"policy_set".*)$/s.exec(readFileSync(file, 'utf8')) ?? []
    const changed = bodies.with(70, (bodies[70] ?? '').replace(/"workload":"[a-z0-9-]+"}$/, '"workload":"support-agent-1"}'))
    const copy = write('changed.jsonl', `${changed.join('\n')}\n${proof}`)
    const { code, out } = await verify([copy, '--key', key.text])
    expect(code).toBe(1)
    expect(out).toContain('  line 71, entry 70: has another actor than its workload\n')
    expect(out).toContain('  line 71, entry 70: is not the entry that was signed: its hash is another\n')
    expect(out).toContain('  Nothing is proven by a file that something is wrong with.\n')
    const { problems, proof: proven } = (JSON.parse((await verify([copy, '--key', key.text, '--json'])).out) as { file: { problems: unknown[]; proof: string } }).file
    expect(problems).toEqual([
      { line: 71, index: 70, what: 'is not the entry that was signed: its hash is another' },
      { line: 71, index: 70, what: 'has another actor than its workload' },
    ])
    expect(proven).toBe('nothing')
    const unlisted = write('unlisted.jsonl', readFileSync(copy, 'utf8').replace(/^\{"leaves":.*\n/gm, ''))
    expect((await verify([unlisted, '--key', key.text])).out).toContain(`  The entries are not those that were signed: one or more of the entries 0 to ${size - 1}`)
  })

  test('does not call good what proves nothing', async () => {
    const { key, bodies, write, keep, file } = setUp()
    const bare = write('bare.jsonl', bodies.map((body) => `${body}\n`).join(''))
    expect(await verify([bare, '--key', key.text])).toMatchObject({ code: 1, out: expect.stringContaining('Nothing is proven: the file does not end with a checkpoint.') })
    expect(await verify([bare, '--key', key.text, '--checkpoint', keep(bodies)])).toMatchObject({ code: 0 })
    const csv = write('log.csv', csvHeader + bodies.map(formatCsvLine).join(''))
    expect(await verify([csv, '--key', key.text])).toMatchObject({ code: 1, out: expect.stringContaining('Nothing is proven: CSV has no checkpoint in it.') })
    expect(await verify([csv, '--key', key.text, '--checkpoint', keep(bodies.slice(0, 100))])).toMatchObject({ code: 0, out: expect.stringContaining('entries are not covered by that, and not proven.') })
    // Entries that somebody has put between the last one and the proof, and a file that ends in the middle.
    const [, proof = ''] = /(\{"policy_set".*)$/s.exec(readFileSync(file, 'utf8')) ?? []
    const forged = (bodies.at(-1) ?? '').replace(`"index":${bodies.length - 1}`, `"index":${bodies.length}`)
    expect((await verify([write('more.jsonl', `${[...bodies, forged].join('\n')}\n${proof}`), '--key', key.text])).code).toBe(1)
    truncateSync(file, 50_000)
    expect(await verify([file, '--key', key.text])).toMatchObject({ code: 1, out: expect.stringContaining('is no entry: it is not one object of canonical JSON') })
    expect((await verify([write('empty.jsonl', ''), '--key', key.text])).code).toBe(1)
    expect((await verify([write('other.jsonl', 'hello\n'), '--key', key.text])).code).toBe(1)
  })

  test('takes nobody else’s word for the key', async () => {
    const { file, key, write, folder } = setUp()
    const none = await verify([file])
    expect([none.code, none.out]).toEqual([2, ''])
    expect(none.err).toContain('--key is needed, the public key of the log, from elsewhere than the file: stint audit key prints it')
    const other = createLogKey()
    expect(await verify([file, '--key', other.text])).toMatchObject({ code: 1, out: expect.stringContaining('is a checkpoint that is not signed by the key that you gave') })
    const witness = formatVerifierKey('stint.test/log', Buffer.alloc(32, 1), 'cosignature')
    for (const wrong of [witness, `${key.text}x`, write('notes.txt', 'hello'), write('two.key', `${key.text}\n${key.text}\n`)]) {
      expect(await verify([file, '--key', wrong]), wrong).toMatchObject({ code: 2, out: '', err: expect.stringContaining('is no public key of a log') })
    }
    expect(await verify([file, '--key', join(folder, 'nowhere')])).toMatchObject({ code: 1, out: '', err: `stint: there is no ${join(folder, 'nowhere')}\n` })
  })

  test('refuses what it cannot honour', async () => {
    const { file, key, folder, keep, bodies } = setUp()
    const kept = keep(bodies)
    for (const args of [[], [file, file], ['--live'], ['--live', '--decisions', '--checkpoint', kept], [file, '--save', 'x'], [file, '--url', 'http://x'], [file, '--checkpoint'], [file, '--nonsense']]) {
      expect(await verify([...args, '--key', key.text]), args.join(' ')).toMatchObject({ code: 2, out: '' })
    }
    expect(await verify([folder, '--key', key.text])).toMatchObject({ code: 1, out: '', err: `stint: ${folder} is no file\n` })
    expect(await verify([`${file}x`, '--key', key.text])).toMatchObject({ code: 1, err: `stint: there is no ${file}x\n` })
    expect(await verify([file, '--key', key.text, '--checkpoint', `${kept}x`])).toMatchObject({ code: 1, err: `stint: there is no ${kept}x\n` })
    expect((await verify(['--help'])).out).toContain('Usage: stint audit verify FILE --key KEY')
  })

  test('prints what stands in a file so that it cannot steer a terminal', async () => {
    const { key, write } = setUp()
    const [first = ''] = generateLog(100)
    const evil = first.replace('"type":"log.opened"', '"type":"\u009b2Jx"')
    const { out } = await verify([write('evil.jsonl', `${evil}\n`), '--key', key.text])
    expect(out).toContain('is of type \ufffd2Jx')
    expect(out).not.toMatch(/[\u0080-\u009f\u001b]/)
  })
})

describe('A file in many pieces', () => {
  test('comes to the same by several workers, and each line keeps its number', async () => {
    const { file, key, bodies, write, keep } = setUp(2_000)
    const io = { err: () => undefined, errColumns: undefined }
    const kept = readFileSync(keep(bodies.slice(0, 1_234)), 'utf8')
    const expected = await verifyFile(file, { verifier: key.verifier, kept, workersMax: 1 }, io)
    expect(expected).toMatchObject({ proof: 'complete', kept: { status: 'proven' }, problems: [] })
    expect(await verifyFile(file, { verifier: key.verifier, kept, workersMax: 3, pieceBytes: 100_000 }, io)).toEqual(expected)
    const [, proof = ''] = /(\{"policy_set".*)$/s.exec(readFileSync(file, 'utf8')) ?? []
    const changed = write('changed.jsonl', `${bodies.with(1_500, (bodies[1_500] ?? '').replace('"v":1', '"v":2')).toSpliced(1_700, 1).join('\n')}\n${proof}`)
    const found = await verifyFile(changed, { verifier: key.verifier, workersMax: 3, pieceBytes: 100_000 }, io)
    expect(found.problems).toContainEqual({ line: 1_501, index: 1_500, what: 'is of the format v=2, which this program does not know' })
    expect(found.problems).toContainEqual({ index: 1_700, what: 'is missing' })
    expect(found).toEqual(await verifyFile(changed, { verifier: key.verifier, workersMax: 1 }, io))
  })

  test('shows on a terminal how far it is', async () => {
    const { file, key } = setUp(300)
    const { err } = await runRecorded(['audit', 'verify', file, '--key', key.text], { errColumns: 80 })
    expect(err).toMatch(/^\r\d+ lines, \d+\/s\u001b\[K\r\u001b\[K$/)
  })
})

describe('With a broker that listens', () => {
  test('what it gives verifies: an export, its decisions, a receipt, and its live log', async () => {
    const broker = await startBroker('sqlite')
    const url = await listen(getRequestListener(broker.app.fetch))
    const folder = createFolder()
    const at = (name: string): string => join(folder, name)
    const env = { STINT_URL: url, STINT_OPERATOR_TOKEN: broker.adminCredential }
    const run = (...args: string[]) => runRecorded(['audit', ...args], { env })
    writeFileSync(at('log.key'), (await run('key')).out)
    expect((await run('checkpoint', '--output', at('first.checkpoint'))).code).toBe(0)
    const agent = await broker.register('triage-bot')
    const { access_token: token } = await getToken(broker, agent, { scope: 'tickets:read tickets:comment' })
    const grant = (JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { jti: string }).jti
    expect((await run('export', '--output', at('log.jsonl'))).code).toBe(0)
    expect((await run('export', '--workload', 'triage-bot', '--output', at('part.jsonl'))).code).toBe(0)
    expect((await run('receipt', grant, '--output', at('receipt.json'))).code).toBe(0)

    const whole = await verify([at('log.jsonl'), '--key', at('log.key'), '--checkpoint', at('first.checkpoint'), '--decisions'])
    expect(whole).toMatchObject({ code: 0, err: '' })
    expect(whole.out).toMatch(/^file: ok\n(?: {2}.*\n)+decisions: ok\n/)
    expect(whole.out).toContain('Tail proven up to')
    expect(await verify([at('part.jsonl'), '--key', at('log.key')])).toMatchObject({ code: 0, out: expect.stringContaining('Inclusion: each of them is in the tree') })
    expect(await verify([at('receipt.json'), '--key', at('log.key')])).toMatchObject({ code: 0, out: expect.stringMatching(/^receipt: ok\n/) })
    expect(await verify([at('receipt.json'), '--key', at('log.key'), '--checkpoint', at('first.checkpoint')])).toMatchObject({ code: 2 })
    writeFileSync(at('forged.json'), readFileSync(at('receipt.json'), 'utf8').replaceAll('triage-bot', 'triage-bit'))
    expect(await verify([at('forged.json'), '--key', at('log.key')])).toMatchObject({ code: 1, out: expect.stringMatching(/^receipt: NOT OK\n/) })
    writeFileSync(at('torn.json'), readFileSync(at('receipt.json'), 'utf8').slice(0, 500))
    expect(await verify([at('torn.json'), '--key', at('log.key')])).toMatchObject({ code: 1, err: expect.stringContaining('begins as a receipt, and is no JSON') })

    const live = await verify([at('log.jsonl'), '--live', '--key', at('log.key'), '--checkpoint', at('first.checkpoint'), '--json'], env)
    expect(live.code).toBe(0)
    expect(JSON.parse(live.out)).toMatchObject({ ok: true, file: { ok: true, kept: { status: 'proven' } }, live: { ok: true, verdict: 'consistent' } })
  })
})
