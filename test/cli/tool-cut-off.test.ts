import { afterEach, expect, test, vi } from 'vitest'
import { createRole, readDocuments, rules, unusedDocument, writeTool } from '../broker/cloud.ts'
import { startRealBroker } from '../client/real-broker.ts'
import { describeAws, queryError, rootCredentials, useAws } from '../aws/moto.ts'
import { runRecorded, type Surroundings } from './recorder.ts'

// The emulator shares the machine with everything else that is tested.
vi.setConfig({ testTimeout: 120_000 })

describeAws('stint tool cut-off', () => {
  const start = useAws()
  afterEach(async () => (await start()).mend())

  async function setUp() {
    const aws = await start()
    const site = await createRole(aws, 1)
    const policies = new Map([['rules.cedar', rules], ['tools/reports.yaml', writeTool('reports', site.role, site.policies, aws.url)]])
    const { url, operator, broker } = await startRealBroker({ policies, env: { AWS_ROOT: JSON.stringify(rootCredentials) } })
    const run = (args: readonly string[], more: Surroundings = {}) => runRecorded(['tool', 'cut-off', ...args], { ...more, env: { STINT_URL: url, STINT_OPERATOR_TOKEN: operator } })
    const cutOffs = async () => (await broker.events()).filter(({ type }) => type === 'tool.cut_off').length
    return { aws, site, run, cutOffs }
  }

  const why = ['--reason', 'the build runner was broken into']
  const extent = 'This ends 0 grants that live and that nobody has revoked (of reports), and every session of the role that somebody opened without Stint, whatever it is doing.'

  test('says beforehand what it ends, asks, and does nothing without a yes', async () => {
    const { run, site, cutOffs } = await setUp()
    expect(await run(['reports', ...why, '--dry-run'])).toEqual({ code: 0, out: `${extent}\nNothing was changed.\n`, err: '' })
    expect(JSON.parse((await run(['reports', ...why, '--dry-run', '--json'])).out)).toMatchObject({ tools: ['reports'], bystanders: 0 })
    for (const answer of ['', 'n', 'yep']) expect(await run(['reports', ...why], { answer })).toEqual({ code: 1, out: '', err: `${extent} Go on? [y/N] stint: nothing was changed.\n` })
    expect(await run(['reports', ...why])).toMatchObject({ code: 2, out: '', err: expect.stringContaining('Give --yes if that is what you want.') as string })
    expect([await cutOffs(), await readDocuments(site)]).toEqual([0, [unusedDocument]])
  })

  test('cuts off after a yes, and says what became of it', async () => {
    const { run, site, cutOffs } = await setUp()
    const done = await run(['reports', ...why], { answer: 'y' })
    expect(done).toMatchObject({ code: 0, err: `${extent} Go on? [y/N] ` })
    expect(done.out).toMatch(
      /^Every session of the role that was opened before \S+Z is denied, and all grants of reports are revoked\.\n0 grants lived that nobody had revoked\. The tool has confirmed it, and carries it out within its own delay\.\nNothing is lent there until then\. Audit entry \d+\.\n$/,
    )
    expect((await readDocuments(site))[0]).toContain('aws:TokenIssueTime')
    const again = await run(['reports', ...why, '--yes', '--json'])
    expect(JSON.parse(again.out)).toMatchObject({ tool: 'reports', confirmed: true, audit_index: expect.any(Number) as number })
    expect(await cutOffs()).toBe(2)
  })

  test('claims no more than the tool has confirmed', async () => {
    const { aws, run } = await setUp()
    aws.fail('CreatePolicyVersion', { status: 403, body: queryError('AccessDenied', 'no') })
    const done = await run(['reports', ...why, '--yes'])
    expect([done.code, done.out]).toEqual([1, expect.stringMatching(/The tool has not confirmed it yet, and is asked again by the broker itself: .*iam:CreatePolicyVersion/)])
  })

  test.each<[string, readonly string[], RegExp]>([
    ['a reason', ['reports'], /why\? Give --reason TEXT/],
    ['the name of a tool', why, /the tool's name/],
    ['either a look or a yes', ['reports', ...why, '--yes', '--dry-run'], /--yes goes without --dry-run/],
  ])('wants %s', async (_, args, message) => {
    expect(await runRecorded(['tool', 'cut-off', ...args], { env: {} })).toMatchObject({ code: 2, out: '', err: expect.stringMatching(message) as string })
  })
})
