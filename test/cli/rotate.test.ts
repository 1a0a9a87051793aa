import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/kernel/clock.ts'
import { createVault, createVaultConnector, lost, runJobs, writePolicies } from '../broker/rotating.ts'
import { startRealBroker } from '../client/real-broker.ts'
import { runRecorded, type Surroundings } from './recorder.ts'

async function setUp() {
  const vault = createVault(systemClock.nowMs() - 60_000)
  const connectors = [createVaultConnector(() => vault, systemClock.nowMs)]
  const { url, operator, broker } = await startRealBroker({ policies: writePolicies(['billing'], ['mail']), connectors })
  const run = (args: readonly string[], more: Surroundings = {}) => runRecorded(args, { ...more, env: { STINT_URL: url, STINT_OPERATOR_TOKEN: operator } })
  await runJobs(broker)
  return { vault, broker, run }
}

const steps = 'making a new value …\nhaving the system behind it accept the new value …\ntrying the new value out …\nputting the new value in force …\n'

describe('stint rotate', () => {
  it('has a secret replaced, and tells of each step', async () => {
    const { vault, broker, run } = await setUp()
    const { code, out, err } = await run(['rotate', 'billing', '--reason', 'spring cleaning'])
    expect([code, err]).toEqual([0, steps])
    expect(out).toMatch(/^billing is replaced: version v2 is in force\. The one before is good until 20\S+Z, for whoever holds it by a grant\.\n$/)
    expect(vault.current?.version).toBe('v2')
    expect((await broker.events()).find(({ type }) => type === 'rotation.ordered')).toMatchObject({ reason: 'request', detail: 'spring cleaning' })
    const leaked = await run(['rotate', 'billing', '--leaked', '--json'])
    expect([leaked.code, JSON.parse(leaked.out)]).toMatchObject([0, { name: 'billing', last_outcome: 'finished', version: 'v3' }])
    expect([...vault.retired]).toContainEqual(['v2', true])
  })

  it('says that what was in force still is, where it fails', async () => {
    const { vault, run } = await setUp()
    vault.wrong = 'The new key was refused.\u001b[2J'
    const { code, out, err } = await run(['rotate', 'billing'])
    expect([code, out]).toEqual([1, ''])
    expect(err).toMatch(/^(?:.* …\n)*stint: billing is not replaced, and the value that was in force still is: The new key was refused\.\ufffd\[2J Where .*\nIt is tried again at 20\S+Z: stint rotations shows how it goes\.\n$/)
    expect(vault.current?.version).toBe('v1')
  })

  it('does not wait for somebody else, nor without end', async () => {
    const { vault, run } = await setUp()
    vault.foreign = 'A rotation of somebody else is under way.'
    const waits = await run(['rotate', 'billing'])
    expect([waits.code, waits.err]).toEqual([1, expect.stringMatching(/^stint: billing is not replaced yet: A rotation of somebody else is under way\.\nIt is tried again at /)])
    vault.foreign = undefined
    vault.onCall = (step) => {
      if (step === 'set') throw lost()
    }
    const late = await run(['rotate', 'billing', '--timeout', '1s'])
    expect([late.code, late.err]).toEqual([1, expect.stringContaining('it did not work, and is tried again: The vault did not answer.\nstint: billing takes longer than this command waits.\n')])
  })

  it('orders it without waiting, and the keys of the broker', async () => {
    const { run } = await setUp()
    expect(await run(['rotate', 'billing', '--no-wait'])).toEqual({ code: 0, err: '', out: expect.stringMatching(/^billing is being replaced: stint rotations shows how it goes\. Audit entry \d+\.\n$/) })
    expect((await run(['rotate', 'signing-keys'])).out).toMatch(/^signing-keys: a new key was made; stint keys list shows which one signs from when\. Audit entry \d+\.\n$/)
    expect((await run(['rotate', 'sealing-keys'])).out).toMatch(/^sealing-keys: a new key was made; what the one before/)
  })

  it.each([
    ['no name', ['rotate'], /the rotation's name is missing/, 2],
    ['a timeout that nothing waits for', ['rotate', 'billing', '--no-wait', '--timeout', '1s'], /--timeout goes without --no-wait/, 2],
    ['a time that is none', ['rotate', 'billing', '--timeout', 'soon'], /--timeout must be/, 2],
    ['what is not there', ['rotate', 'nothing'], /There is no rotation nothing: see stint rotations\./, 1],
    ['what Stint does not replace', ['rotate', 'mail'], /names no rotation in the catalog/, 1],
  ])('refuses %s', async (_, args, message, code) => {
    const { vault, run } = await setUp()
    const refused = await run(args)
    expect([refused.code, refused.out, refused.err]).toEqual([code, '', expect.stringMatching(message)])
    expect(vault.current?.version).toBe('v1')
  })
})

describe('stint rotations', () => {
  it('shows what lives long, and marks what is overdue, failed and done by hand', async () => {
    const { vault, broker, run } = await setUp()
    const { code, out, err } = await run(['rotations'])
    expect([code, err]).toEqual([0, ''])
    expect(out.split('\n').map((line) => line.replace(/\s{2,}/g, ' | ').replaceAll(/20\S+Z/g, 'TIME'))).toEqual([
      'NAME | EVERY | LAST | NEXT | STATUS',
      'signing-keys | 30d | TIME | TIME | idle',
      'sealing-keys | 90d | TIME | TIME | idle',
      'billing | 30d | - | TIME | idle',
      'sealed:billing (billing) | - | - | - | by hand',
      'sealed:mail (mail) | - | - | - | by hand',
      '',
    ])
    vault.wrong = 'The new key was refused.'
    await run(['rotate', 'billing'])
    await broker.broker.ledger.transact({
      async apply(tx) {
        await tx.updateTable('rotation').set({ next_at: '2026-01-01T00:00:00.000Z' }).execute()
        return { result: undefined, unrecorded: 'housekeeping' }
      },
    })
    const failed = await run(['rotations'])
    expect(failed.out).toMatch(/^billing .* OVERDUE, failed$/m)
    expect(failed.err).toMatch(/^billing: The new key was refused\. .*It is tried again at 20\S+Z\.\n$/)
    expect(JSON.parse((await run(['rotations', '--json'])).out).rotations).toContainEqual(expect.objectContaining({ name: 'billing', overdue: true, overdue_since: '2026-01-01T00:00:00.000Z' }))
  })
})
