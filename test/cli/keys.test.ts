import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { createRawRootKey } from '../../src/crypto/root-key.ts'
import { startRealBroker, type RealBrokerOptions } from '../client/real-broker.ts'
import { runRecorded, type Surroundings } from './recorder.ts'

async function setUp(options: RealBrokerOptions = {}) {
  const { url, operator, admin, broker } = await startRealBroker(options)
  const run = (args: readonly string[], more: Surroundings = {}, token = operator) => runRecorded(['keys', ...args], { ...more, env: { STINT_URL: url, STINT_OPERATOR_TOKEN: token } })
  return { admin, run, broker, kids: async () => (await admin.listSigningKeys()).keys.map(({ kid, status }) => `${status} ${kid}`) }
}

const time = '\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}Z'
const kid = '[\\w-]{43}'

describe('stint keys', () => {
  test('lists the keys, for people and for programs', async () => {
    const { admin, run } = await setUp()
    const listed = await run(['list'])
    expect(listed).toMatchObject({ code: 0, err: expect.stringMatching(new RegExp(`^The next key to sign tokens is due at ${time}\\.\\nThe next key to seal is due at ${time}\\.\\n$`)) as string })
    expect(listed.out).toMatch(
      new RegExp(`^KEY +STATUS +SIGNS FROM +VERIFIES UNTIL\\n${kid} +signing +${time} +-\\n\\nVERSION +STATUS +SEALS FROM +WRAPPED BY\\n1 +sealing +${time} +raw:[0-9a-f]{16}\\n$`),
    )
    const both = { ...(await admin.listSigningKeys()), sealing: await admin.listSealingKeys() }
    expect(JSON.parse((await run(['list', '--json'])).out)).toEqual(both)
    expect(both.sealing).toMatchObject({ keys: [{ version: 1, status: 'sealing' }], remaining: 0 })
  })

  test('lists what a role may see', async () => {
    const { run, admin } = await setUp()
    const { credential } = await admin.createOperator({ name: 'ada', role: 'approver' })
    const listed = await run(['list'], {}, credential)
    expect([listed.code, listed.out.includes('signing'), listed.out.includes('WRAPPED BY')]).toEqual([0, true, false])
  })

  test('rotates without asking, and says when which key begins and ends', async () => {
    const { run, kids } = await setUp()
    const rotated = await run(['rotate', '--reason', 'a colleague left'])
    expect(rotated).toMatchObject({ code: 0, err: '' })
    expect(rotated.out).toMatch(
      new RegExp(`^${kid} is published, and signs from ${time}\\.\\n${kid} verifies what it signed, until ${time} at the latest\\.\\nNothing happens to live tokens\\. Audit entry \\d+\\.\\n$`),
    )
    expect((await kids()).map((line) => line.split(' ')[0])).toEqual(['next', 'signing'])
    const again = await run(['rotate'])
    expect(again).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^stint: A rotation is under way: .* or rotate at once with `stint keys rotate --now`\.\n/) as string })
  })

  test('rotates at once after a yes, and says what becomes of live tokens', async () => {
    const { run, kids } = await setUp()
    const before = await kids()
    const question = 'This ends every live token of every agent, at once. Go on? [y/N] '
    for (const answer of ['', 'n', 'no', 'yep', 'Y es']) {
      expect(await run(['rotate', '--now'], { answer })).toEqual({ code: 1, out: '', err: `${question}stint: nothing was changed.\n` })
    }
    const alone = await run(['rotate', '--now'])
    expect(alone).toMatchObject({ code: 2, out: '', err: expect.stringContaining('Give --yes if that is what you want.') as string })
    expect(await kids()).toEqual(before)

    const rotated = await run(['rotate', '--now'], { answer: ' Yes ' })
    expect(rotated).toMatchObject({ code: 0, err: question })
    expect(rotated.out).toMatch(new RegExp(`^${kid} signs from now on, and no other key is accepted\\.\\n0 live tokens have ended with ${kid}\\.\\n`))
    expect(rotated.out).toMatch(new RegExp(`keys until ${time}: until then it may accept those tokens,\\n`))
    const json = await run(['rotate', '--now', '--yes', '--json'])
    expect([json.code, json.err]).toEqual([0, ''])
    expect(JSON.parse(json.out)).toMatchObject({ kid: (await kids())[0]?.replace('signing ', ''), ended_tokens: { count: 0, more: false, effect: 'introspection' } })
  })

  test('moves the sealing keys to the root key, and says what of the previous one', async () => {
    const [root, previous, other] = [1, 2, 3].map(() => createRawRootKey(randomBytes(32)))
    const { run, broker } = await setUp({ ...(root && { rootKey: root }), ...(previous && { previousRootKey: previous }) })
    expect(await run(['rewrap'])).toEqual({
      code: 0,
      err: '',
      out: `Nothing was to be moved to the root key ${root?.name}.\n${previous?.name} wraps nothing any more: take root_key.previous out of the configuration.\n`,
    })
    const write = (name: string | undefined) => broker.broker.database.write(({ db }) => db.updateTable('sealing_key').set({ root: name ?? null }).execute())
    await write(previous?.name)
    const moved = await run(['rewrap'])
    expect(moved).toMatchObject({ code: 0, err: '' })
    expect(moved.out).toMatch(new RegExp(`^The sealing key of version 1 is wrapped by ${root?.name} now\\. Audit entry \\d+\\.\\n${previous?.name} wraps nothing any more`))
    await write(other?.name)
    expect(await run(['rewrap'])).toMatchObject({ code: 1, out: expect.stringContaining(`Version 1 is wrapped by ${other?.name}, which this process was not given: restart it`) as string })
    expect(JSON.parse((await run(['rewrap', '--json'])).out)).toEqual({ root: root?.name, previous: previous?.name, moved: [], elsewhere: [{ version: 1, root: other?.name }], previous_is_needed: false })
  })

  test.each([[['rewrap', 'x']], [['rewrap', '--yes']], [['rotate', '--yes']], [['rotate', 'x']], [['list', 'x']], [['rotate', '--nwo']], [[]], [['rotat']]])('%j is wrong usage', async (args) => {
    const { code, out } = await runRecorded(['keys', ...args], { env: { STINT_OPERATOR_TOKEN: 'stint_op_x' } })
    expect([code, out]).toEqual([2, ''])
  })
})
