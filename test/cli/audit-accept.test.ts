import { setTimeout } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { createAgentClient } from '../../src/client/agent.ts'
import { generatePrivateJwk, importAgentKey, publicJwks } from '../../src/client/key.ts'
import { createHttpAnchor } from '../../src/connectors/anchors/http.ts'
import { startAnchorServer } from '../anchor-server.ts'
import { startRealBroker } from '../client/real-broker.ts'
import { runRecorded, type Surroundings } from './recorder.ts'

/** A broker that holds itself: its anchor, which was silent at the start, has more entries than there are. */
async function setUp() {
  const server = await startAnchorServer()
  server.answer(503)
  const { url, operator, admin, broker } = await startRealBroker({ anchors: [createHttpAnchor({ url: server.url })] })
  const key = await importAgentKey(await generatePrivateJwk('ES256'))
  const about = { environment: 'prod', stage: 'pilot', owner: { team: 'support', contact: 'oncall:support' }, purpose: 'Tries', review_at: new Date(Date.now() + 86_400_000).toISOString() } as const
  await admin.registerWorkload({ name: 'bot', tags: [], jwks: publicJwks(key), ...about })
  const run = (args: readonly string[], more: Surroundings = {}) =>
    runRecorded(['audit', 'accept-restored', ...args], { ...more, env: { STINT_URL: url, STINT_OPERATOR_TOKEN: operator } })
  return {
    server,
    url,
    admin,
    run,
    key,
    async hold() {
      server.answer(200, broker.broker.checkpointKey.sign({ size: 4711, root: Buffer.alloc(32, 1) }))
      await setTimeout(1_100)
      await broker.scheduler.tick()
      server.answer()
    },
  }
}

describe('stint audit accept-restored', () => {
  test('has nothing to do for a broker that is well', async () => {
    const { run, admin } = await setUp()
    expect(await run(['--reason', 'none'])).toEqual({ code: 1, out: '', err: 'stint: there is nothing to accept: the broker is not held.\n' })
    expect(await admin.listAnchors()).toMatchObject({ held: false, anchors: [{ kind: 'http', failure: expect.any(String) as string }] })
  })

  test('shows what is lost, asks for its size, and lets the broker go on; agents sign new assertions', async () => {
    const { server, url, run, hold, admin, key } = await setUp()
    await hold()
    const loss = /^The log of this broker has \d+ entries, and:\n {2}http \S+ has a checkpoint of 4711 entries, and this log has \d+: this looks like a restored backup\n/
    const alone = await run(['--reason', 'disk'])
    expect(alone).toMatchObject({ code: 2, out: '', err: expect.stringMatching(loss) as string })
    expect(alone.err).toContain('Give --size 4711 if that is what you want.')
    for (const answer of ['', 'y', 'yes', '471']) expect(await run(['--reason', 'disk'], { answer })).toMatchObject({ code: 1, out: '', err: expect.stringContaining('stint: nothing was changed.') as string })
    expect(await run(['--reason', 'disk', '--size', '12'])).toMatchObject({ code: 1, out: '', err: expect.stringContaining('has 4711 entries, not 12: nothing was changed.') as string })
    expect((await admin.listAnchors()).held).toBe(true)

    const accepted = await run(['--reason', 'disk'], { answer: ' 4711 ' })
    expect(accepted).toMatchObject({ code: 0, err: expect.stringContaining('Type 4711 to accept it: ') as string })
    expect(accepted.out).toMatch(/^The log goes on from \d+ entries\. Audit entry \d+\.\n[\w-]{43} signs tokens from now on, and every token that was alive has ended\.\n0 sessions and 0 open enrolment codes have ended\.\n/)
    expect(accepted.out).toContain('What came after the backup is lost.')
    expect(await admin.listAnchors()).toMatchObject({ held: false })
    const shown = await runRecorded(['audit', 'list', '--type', 'log.restored'], { env: { STINT_URL: url, STINT_OPERATOR_TOKEN: await createAuditor(admin) } })
    expect(shown.out).toContain(`without 4711 entries kept in http ${server.url}`)

    // As far ahead as a clock may be, an agent waits a second instead of five.
    const agent = createAgentClient({ url, workload: 'bot', key, clock: { nowMs: () => Date.now() + 4_500 } })
    const ask = () => agent.requestToken({ actions: ['tickets:read'] }).then(() => 'a token', (error: { code?: string }) => error.code)
    expect(await ask()).toBe('invalid_client')
    await expect.poll(ask, { timeout: 5_000, interval: 300 }).toBe('a token')
  }, 20_000)

  test('goes without asking where the size is given, and says it as JSON', async () => {
    const { run, hold } = await setUp()
    await hold()
    const { code, out } = await run(['--reason', 'disk', '--size', '4711', '--json'])
    expect(code).toBe(0)
    expect(JSON.parse(out)).toMatchObject({ abandoned: [{ size: 4711, root: Buffer.alloc(32, 1).toString('base64') }], audit_index: expect.any(Number) as number })
  })

  test.each([[[]], [['--reason', '']], [['--reason', 'a', 'b']], [['--reason', 'a', '--size', 'many']], [['--reason', 'a', '--yes']]])('%j is wrong usage', async (args) => {
    const { code, out } = await runRecorded(['audit', 'accept-restored', ...args], { env: { STINT_OPERATOR_TOKEN: 'stint_op_x' } })
    expect([code, out]).toEqual([2, ''])
  })
})

/** The credential of one who may look. */
async function createAuditor(admin: Awaited<ReturnType<typeof setUp>>['admin']): Promise<string> {
  return (await admin.createOperator({ name: 'looks', role: 'auditor' })).credential
}
