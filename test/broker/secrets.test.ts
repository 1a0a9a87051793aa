import { chmodSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createSecretReader, putSecret, type SecretReaderOptions } from '../../src/broker/secrets.ts'
import { ConnectorError } from '../../src/connectors/connector.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { putCustody } from '../../src/storage/secrets.ts'
import { startBroker, type TestBroker } from '../broker.ts'
import { createTestFolder, describeEngines } from '../harness.ts'

const admin = { actor: { kind: 'operator', id: 'test' } } as const
const what = 'the key of the tool'

const readerOf = ({ broker }: TestBroker, options: Partial<SecretReaderOptions> = {}) => {
  const read = createSecretReader({ ...broker, env: {}, ...options })
  return async (source: string): Promise<string> => (await read(source, what)).reveal()
}

const failureOf = (promise: Promise<unknown>): Promise<ConnectorError> =>
  promise.then(
    () => expect.fail('it did not fail'),
    (error: unknown) => (error instanceof ConnectorError ? error : expect.fail(`no ConnectorError: ${String(error)}`)),
  )

function writeSecret(folder: string, name: string, mode = 0o600): string {
  const file = join(folder, name)
  writeFileSync(file, `of ${name}\n`)
  chmodSync(file, mode)
  return file
}

describeEngines('The root credential of a tool', (engine) => {
  test('comes from the environment, a file or the database, as it is now', async () => {
    const broker = await startBroker(engine)
    const file = writeSecret(createTestFolder(), 'key')
    const env: Record<string, string> = { CRM_KEY: ' first \n' }
    const read = readerOf(broker, { env })
    await putSecret(broker.broker, admin, 'crm', new Secret(' kept as it is\n'))
    expect([await read('env:CRM_KEY'), await read(`file:${file}`), await read('sealed:crm')]).toEqual(['first', 'of key', ' kept as it is\n'])
    env['CRM_KEY'] = 'second'
    writeFileSync(file, 'replaced')
    await putSecret(broker.broker, admin, 'crm', new Secret('fresh'))
    expect([await read('env:CRM_KEY'), await read(`file:${file}`), await read('sealed:crm')]).toEqual(['second', 'replaced', 'fresh'])
  })

  test('that cannot be read is nothing done, in words of who does what', async () => {
    const broker = await startBroker(engine)
    const folder = createTestFolder()
    const read = readerOf(broker, { env: { EMPTY: ' ' } })
    for (const [source, sentence] of [
      ['env:CRM_KEY', /the environment variable CRM_KEY is not set; it must hold the key of the tool/],
      ['env:EMPTY', /EMPTY is not set/],
      [`file:${folder}/none`, /there is no file .*none, which should hold the key of the tool/],
      [`file:${writeSecret(folder, 'open', 0o644)}`, /run chmod 600/],
      [`file:${folder}`, /is not a regular file/],
      ['sealed:crm', /there is no sealed secret crm, which must hold the key of the tool: an admin puts it, with stint secret put crm/],
    ] as const) {
      const failure = await failureOf(read(source))
      expect([source, failure.outcome, failure.adminMessage]).toEqual([source, 'nothing_done', expect.stringMatching(sentence)])
      expect(failure.adminMessage).toMatch(/^The tool's root credential cannot be used: /)
    }
  })

  test("is never the broker's own secret, by whatever name", async () => {
    const broker = await startBroker(engine)
    const folder = createTestFolder()
    const root = writeSecret(folder, 'root.key')
    symlinkSync(root, join(folder, 'innocent'))
    mkdirSync(join(folder, 'below'))
    const read = readerOf(broker, { env: { ROOT: 'of the root', OTHER: 'of a tool' }, own: [`file:${root}`, 'env:ROOT'] })
    for (const source of [`file:${root}`, `file:${folder}/innocent`, `file:${folder}/below/../root.key`, `file:/${root}`, 'env:ROOT', 'file:/proc/self/environ', `file:/proc/${process.pid}/environ`, 'file:/dev/fd/0']) {
      const { outcome, adminMessage } = await failureOf(read(source))
      expect([source, outcome, adminMessage]).toEqual([source, 'nothing_done', expect.stringContaining("is the broker's own")])
    }
    expect(await read('env:OTHER')).toBe('of a tool')
  })

  test("is never the broker's own secret where a link leads elsewhere since the start, nor in a folder of its own", async () => {
    const broker = await startBroker(engine)
    const folder = createTestFolder()
    for (const version of ['v1', 'v2', 'aws']) mkdirSync(join(folder, version))
    for (const version of ['v1', 'v2']) writeSecret(join(folder, version), 'root.key')
    writeSecret(join(folder, 'aws'), 'credentials')
    writeSecret(folder, 'aws-of-a-tool')
    // As a mounted secret is replaced.
    symlinkSync('v1', join(folder, 'data'))
    symlinkSync('data/root.key', join(folder, 'root.key'))
    const read = readerOf(broker, { own: [`file:${folder}/root.key`, `file:${folder}/aws`] })
    const own = async (path: string) => expect((await failureOf(read(`file:${folder}/${path}`))).adminMessage, path).toContain("is the broker's own")
    await own('v1/root.key')
    symlinkSync('v2', join(folder, 'next'))
    renameSync(join(folder, 'next'), join(folder, 'data'))
    for (const path of ['root.key', 'v1/../root.key', 'data/root.key', 'v2/root.key', 'aws/credentials', 'aws/none', 'aws']) await own(path)
    expect(await read(`file:${folder}/aws-of-a-tool`)).toBe('of aws-of-a-tool')
  })

  test('opens in its own row alone, and not while its tool needs reconnection', async () => {
    const broker = await startBroker(engine)
    const { ledger, database } = broker.broker
    await putSecret(broker.broker, admin, 'crm', new Secret('kept'))
    const read = readerOf(broker)
    await ledger.transact({
      async apply(tx) {
        await putCustody(tx, { name: 'crm', tool: 'crm', state: 'used_up', problem: 'lost' })
        return { result: undefined, unrecorded: 'housekeeping' }
      },
    })
    expect((await failureOf(read('sealed:crm'))).publicMessage).toMatch(/^The tool crm needs reconnection: .*stint secret put crm$/)
    // As who has the database, and not the key: the value of one row in the place of another.
    await putSecret(broker.broker, admin, 'other', new Secret('of another'))
    const row = await database.read.selectFrom('sealed_secret').select(['sealed', 'sealed_version']).where('name', '=', 'crm').executeTakeFirstOrThrow()
    await ledger.transact({
      async apply(tx) {
        await tx.updateTable('sealed_secret').set({ sealed: row.sealed }).where('name', '=', 'other').execute()
        return { result: undefined, unrecorded: 'housekeeping' }
      },
    })
    expect(await failureOf(read('sealed:other'))).toMatchObject({ outcome: 'nothing_done', adminMessage: expect.stringContaining('cannot be opened') })
  })

  test('that the database does not give is nothing done, too', async () => {
    const broker = await startBroker(engine)
    const read = readerOf(broker)
    await broker.close()
    expect(await failureOf(read('sealed:crm'))).toMatchObject({ outcome: 'nothing_done', adminMessage: expect.stringContaining('try again shortly') })
  })
})
