import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { advanceCheckpoint } from '../../../src/broker/checkpoints.ts'
import { insertCosignature, type StoredCheckpoint } from '../../../src/storage/checkpoints.ts'
import { listen } from '../../hostile/wire.ts'
import { note } from '../../storage/changes.ts'
import { tamper } from '../../storage/tamper.ts'

const folder = mkdtempSync(join(tmpdir(), 'stint-interop-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const program = join(folder, 'interop')

/** The Go project's caches where it keeps them, or here where nobody may write there. */
function chooseCaches(): Record<string, string> {
  try {
    accessSync(homedir(), constants.W_OK)
    return {}
  } catch {
    return { GOCACHE: join(folder, 'build'), GOMODCACHE: join(folder, 'modules') }
  }
}

/** Builds the program, which takes a minute where Go has never built anything; why it could not be built, where it could not. */
async function build(): Promise<string | undefined> {
  // As the machine has it, with no other toolchain and no other versions than go.sum names.
  const settings = { GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly -modcacherw', GOWORK: 'off', CGO_ENABLED: '0' }
  const child = spawn('go', ['build', '-o', program, '.'], {
    cwd: fileURLToPath(new URL('.', import.meta.url)),
    env: { ...process.env, ...chooseCaches(), ...settings },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const [err, [code]] = await Promise.all([child.stderr.toArray(), once(child, 'close')])
  return code === 0 ? undefined : Buffer.concat(err).toString()
}

const hasGo = spawnSync('go', ['version']).error === undefined
if (!hasGo) console.warn("The log is not tried with Go's packages for transparency logs: there is no Go here")

interface Follower {
  readonly url: string
  readonly key: string
  readonly credential: string
  readonly kept: string
}

async function follow({ url, key, credential, kept }: Follower) {
  const child = spawn(program, [url, key], { env: { STINT_CREDENTIAL: credential }, stdio: ['pipe', 'pipe', 'pipe'] })
  child.stdin.end(kept)
  const [out, err, [code]] = await Promise.all([child.stdout.toArray(), child.stderr.toArray(), once(child, 'close')])
  return { code: code as number | null, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }
}

/** A broker that listens, with some hundred entries under checkpoints of several sizes. */
async function startLog(entries: number) {
  const { broker, port } = await listen()
  const { ledger, checkpointKey } = broker.broker
  const checkpoints: StoredCheckpoint[] = []
  for (let i = 0; i < entries; i++) {
    await ledger.append({ events: [note(`größer als ${i}`)] })
    if (i % 97 === 0 || i === entries - 1) checkpoints.push(await advanceCheckpoint(broker.broker))
  }
  const credential = await broker.createOperator('auditor')
  const follower = { url: `http://127.0.0.1:${port}`, key: checkpointKey.verifierKey, credential }
  return { broker, checkpoints, follower, newest: await advanceCheckpoint(broker.broker) }
}

describe.skipIf(!hasGo)(`Go's packages for transparency logs${hasGo ? '' : ' (skipped: there is no Go here)'}`, () => {
  let missing: string | undefined
  beforeAll(async () => {
    missing = await build()
    // Where Go is, CI is to notice when this does not run.
    if (missing !== undefined && process.env['CI'] !== undefined) throw new Error(`Go could not build the program: ${missing}`)
  }, 600_000)
  // As where its module cannot be had.
  beforeEach(({ skip }) => skip(missing !== undefined, `Go could not build the program: ${missing}`))

  test('accept checkpoints, entries, and how the log has grown', { timeout: 60_000 }, async () => {
    const { broker, checkpoints, follower, newest } = await startLog(600)
    // A line of a witness is none of a follower's business who does not know it.
    const line = '\u2014 witness.example AAAAAQAAAAAAAAAB\n'
    await broker.broker.ledger.transact({ apply: async (tx, { timeMs }) => (await insertCosignature(tx, newest.size, 'w', line, timeMs), { result: 0, unrecorded: 'housekeeping' }) })
    expect(newest.size).toBeGreaterThan(600)
    for (const { size, note: kept } of checkpoints) {
      const { code, out, err } = await follow({ ...follower, kept })
      expect([code, err]).toEqual([0, ''])
      // Three tiles of leaves and one above them.
      expect(JSON.parse(out)).toEqual({ origin: 'stint.test/log', size: newest.size, kept: size, entries: newest.size, tiles: 4, signatures: 1, unverified_signatures: 1 })
    }
  })

  test('refuse what somebody has changed', { timeout: 60_000 }, async () => {
    const { broker, checkpoints, follower, newest } = await startLog(300)
    const kept = checkpoints[1]?.note ?? ''
    const run = (over: Partial<Follower> = {}) => follow({ ...follower, kept, ...over })
    expect((await run()).code).toBe(0)
    expect(await run({ kept: kept.replace(/\n\d+\n/, '\n7\n') })).toMatchObject({ code: 1, err: expect.stringContaining('the kept checkpoint: invalid signature') })
    expect(await run({ credential: 'none' })).toMatchObject({ code: 1, err: expect.stringContaining('401') })

    // A fork: signed by the same key, but of a tree that the log does not go on from.
    const forked = broker.broker.checkpointKey.sign({ size: newest.size - 1, root: Buffer.alloc(32, 9) })
    expect(await run({ kept: forked })).toMatchObject({ code: 1, err: expect.stringContaining('consistency') })

    const { database } = broker
    await tamper(database, `update audit_event set body = replace(body, 'größer', 'kleiner') where idx = 20`)
    expect(await run()).toMatchObject({ code: 1, err: expect.stringContaining('entry 20') })
    await tamper(database, `update audit_event set leaf_hash = x'${'ab'.repeat(32)}' where idx = 290`)
    expect(await run()).toMatchObject({ code: 1, err: expect.stringContaining('downloaded inconsistent tile') })
  })
})
