import { describe, expect, onTestFinished, test } from 'vitest'
import { putSecret } from '../../src/broker/secrets.ts'
import { createSealedVersions } from '../../src/broker/sealed-versions.ts'
import { openAws } from '../../src/connectors/aws-client.ts'
import { createSecretsCalls } from '../../src/connectors/aws-secrets-client.ts'
import { createAwsSecretStore } from '../../src/connectors/aws-secrets-store.ts'
import { ConnectorError, type RotatableSecret } from '../../src/connectors/connector.ts'
import { rotateSecret } from '../../src/connectors/rotated-secret.ts'
import { createSealedStore } from '../../src/connectors/sealed-secret.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { describeAws, rootCredentials, startAws, useAws, type Aws, type AwsFault } from '../aws/moto.ts'
import { awsRegion, createAwsSecret, secretsError, type TestSecret } from '../aws/secrets.ts'
import { startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { createRotatingSystem, type RotatingSystem } from './rotating-system.ts'
import { createToolContext } from './tool-context.ts'

const [first, second] = ['0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a01', '0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a02']
const signal = () => AbortSignal.timeout(15_000)
const steps = ['create', 'set', 'test', 'finish'] as const
type Step = (typeof steps)[number]

/** A secret in a store, with the system behind it. */
interface Site {
  readonly system: RotatingSystem
  readonly secret: RotatableSecret
  /** The same as another process has it. */
  readonly beside: RotatableSecret
  /** What is in force. */
  current(): Promise<string>
  /** Somebody puts another value in force, which the system accepts. */
  change(value: string): Promise<unknown>
  /** What is left of rotations in the store beside what is in force: values with their stage. */
  left(): Promise<readonly string[]>
}

type Prepare = () => Promise<Site>

const failure = (asking: Promise<unknown>): Promise<ConnectorError> =>
  asking.then(() => expect.unreachable('it was done'), (error: unknown) => (error instanceof ConnectorError ? error : expect.unreachable(String(error))))

function take(secret: RotatableSecret, step: Step, rotation: string): Promise<unknown> {
  return secret[step](rotation, signal())
}

async function rotate(secret: RotatableSecret, rotation: string): Promise<void> {
  for (const step of steps) await take(secret, step, rotation)
}

/** What holds of the steps wherever a secret is kept. */
function describeRotation(prepare: Prepare, { isAtomic }: { readonly isAtomic: boolean }): void {
  test('brings a new value into force, which the system accepts, and keeps the one before', async () => {
    const { secret, system, current, left } = await prepare()
    const before = (await secret.look(signal())).current
    await secret.create(first, signal())
    expect([await current(), system.accepted]).toEqual(['one', new Set(['one'])])
    await secret.set(first, signal())
    expect([await current(), system.accepted]).toEqual(['one', new Set(['one', 'one+1'])])
    expect(await secret.test(first, signal())).toEqual({ ok: true })
    const { version, replaced } = await secret.finish(first, signal())
    expect([await current(), replaced, await left()]).toEqual(['one+1', before?.version, ['previous one']])
    expect((await secret.look(signal())).current?.version).toBe(version)
    expect(system.asked).toEqual(['create', 'set', 'test'])
    await secret.retire?.(replaced ?? '', { cutOff: false }, signal())
    expect([await current(), await left(), system.accepted]).toEqual(['one+1', [], new Set(['one+1'])])
  })

  test('does the same once however often each step is repeated, by whom ever', async () => {
    const { secret, beside, current, system, left } = await prepare()
    const results: unknown[] = []
    for (const step of steps) for (const one of [secret, beside, secret]) results.push(await take(one, step, first))
    expect([await current(), await left()]).toEqual(['one+1', ['previous one']])
    expect(new Set(results.slice(-3).map((result) => JSON.stringify(result))).size).toBe(1)
    expect(system.asked.filter((what) => what === 'create')).toHaveLength(1)
    // Of a process that comes late with what is over nothing is done.
    const asked = system.asked.length
    await secret.create(first, signal())
    await secret.set(first, signal())
    expect([await secret.test(first, signal()), system.asked.length, await current()]).toEqual([{ ok: true }, asked, 'one+1'])
    const { replaced = '' } = await secret.finish(first, signal())
    for (const one of [secret, beside]) await one.retire?.(replaced, { cutOff: true }, signal())
    expect([await left(), system.asked.filter((what) => what.startsWith('retire'))]).toEqual([[], expect.arrayContaining(['retire one'])])
    for (const one of [secret, beside]) await one.abandon(first, signal())
    expect([await current(), await left()]).toEqual(['one+1', []])
  })

  test('is the same for two processes at once', async () => {
    const { secret, beside, current, left, system } = await prepare()
    for (const step of steps) await Promise.all([secret, beside, secret, beside].map((one) => take(one, step, first)))
    expect([(await current()).startsWith('one+'), await left()]).toEqual([true, ['previous one']])
    // What was made in vain is ended where it was made.
    const [made, ended] = ['create', 'abandon '].map((what) => system.asked.filter((asked) => asked.startsWith(what)))
    if (isAtomic) expect(ended).toHaveLength((made?.length ?? 0) - 1)
    expect(ended).not.toContain(`abandon ${await current()}`)
  })

  test('takes turns: the second rotation begins with the value of the first', async () => {
    const { secret, current, left, system } = await prepare()
    await rotate(secret, first)
    await rotate(secret, second)
    expect([await current(), await left()]).toEqual(['one+1+2', ['previous one+1']])
    expect(system.accepted.has('one+1+2')).toBe(true)
  })

  test('leaves in force what is where the new value does not work, and has the system refuse that', async () => {
    const { secret, current, left, system } = await prepare()
    await secret.create(first, signal())
    await secret.set(first, signal())
    system.verdict = { ok: false, why: 'Login failed.' }
    expect(await secret.test(first, signal())).toEqual({ ok: false, why: 'Login failed.' })
    for (let i = 0; i < 2; i++) await secret.abandon(first, signal())
    expect([await current(), await left(), system.accepted]).toEqual(['one', [], new Set(['one'])])
    expect((await failure(secret.finish(first, signal()))).outcome).toBe('nothing_done')
    delete system.verdict
    await rotate(secret, second)
    expect(await current()).toBe('one+2')
  })

  test('keeps a value that is given up until the system has been told', async () => {
    const { secret, current, left, system } = await prepare()
    await secret.create(first, signal())
    await secret.set(first, signal())
    system.broken = 'abandon'
    expect((await failure(secret.abandon(first, signal()))).publicMessage).toBe('The system does not answer.')
    expect([await current(), await left()]).toEqual(['one', [expect.stringMatching(/^pending.* one\+1$/)]])
    delete system.broken
    for (let i = 0; i < 2; i++) await secret.abandon(first, signal())
    expect([await current(), await left(), system.accepted]).toEqual(['one', [], new Set(['one'])])
  })

  test('retires nothing while the system cannot be told', async () => {
    const { secret, left, system } = await prepare()
    await rotate(secret, first)
    const { replaced = '' } = await secret.finish(first, signal())
    system.broken = 'retire'
    await failure(secret.retire?.(replaced, { cutOff: false }, signal()) ?? Promise.resolve())
    expect(await left()).toEqual(['previous one'])
    delete system.broken
    await secret.retire?.(replaced, { cutOff: false }, signal())
    expect([await left(), system.accepted]).toEqual([[], new Set(['one+1'])])
  })

  test.each(['create', 'set', 'test'] as const)('goes on where the system failed in %s', async (step) => {
    const { secret, current, left, system } = await prepare()
    for (const one of steps) {
      if (one === step) {
        system.broken = step
        expect((await failure(take(secret, one, first))).outcome).toBe('unknown')
        delete system.broken
      }
      await take(secret, one, first)
    }
    expect([await current(), await left(), system.accepted.has(await current())]).toEqual([expect.stringMatching(/^one\+\d$/), ['previous one'], true])
  })

  test.each([
    ['the one that is in force', 'one', /in force already/],
    ['an empty one', '', /empty/],
    ['one that is too large', 'x'.repeat(65_537), /larger than 65536 bytes/],
  ])('takes no new value that is %s', async (_, next, sentence) => {
    const { secret, current, left, system } = await prepare()
    system.next = next
    const { outcome, publicMessage } = await failure(secret.create(first, signal()))
    expect([outcome, publicMessage, await current(), await left()]).toEqual(['nothing_done', expect.stringMatching(sentence), 'one', []])
    expect(system.asked).toEqual(next === 'one' ? ['create'] : ['create', `abandon ${next}`])
  })

  test.each(steps.slice(1))('gives way to a value that is put in force by hand before %s', async (step) => {
    const { secret, current, left, system, change } = await prepare()
    for (const one of steps.slice(0, steps.indexOf(step))) await take(secret, one, first)
    await change('by hand')
    const asked = system.asked.length
    await secret.set(first, signal())
    expect(await secret.test(first, signal())).toEqual({ ok: false, why: expect.stringContaining('put in force by hand meanwhile') })
    const { outcome, publicMessage } = await failure(secret.finish(first, signal()))
    expect([outcome, publicMessage]).toEqual(['nothing_done', expect.stringMatching(/meanwhile/)])
    await secret.abandon(first, signal())
    // The system is not told of what was overtaken: it may be what was put by hand.
    expect([await current(), await left(), system.asked.length]).toEqual(['by hand', expect.not.arrayContaining([expect.stringContaining('pending')]), asked])
    await rotate(secret, second)
    expect(await current()).toMatch(/^by hand\+/)
  })
}

describeEngines('The rotation of a sealed secret', (engine) => {
  describeRotation(async () => {
    const broker = await startBroker(engine)
    const admin = { actor: { kind: 'operator', id: 'test' } } as const
    const change = (value: string) => putSecret(broker.broker, admin, 'api', new Secret(value))
    await change('one')
    const versions = createSealedVersions(broker.broker)
    const other = engine === 'postgres' ? createSealedVersions((await startBroker(engine, { beside: broker })).broker) : versions
    const system = createRotatingSystem('one')
    const open = (from: typeof versions) => rotateSecret({ everySeconds: 3_600, store: createSealedStore('api', from), rotator: system.rotator })
    return {
      system,
      secret: open(versions),
      beside: open(other),
      current: async () => (await versions.find('api')).current?.value.reveal() ?? '',
      async change(value) {
        system.accepted.add(value)
        await change(value)
      },
      async left() {
        const { pending, previous } = await versions.find('api')
        return [pending && `pending ${pending.value.reveal()}`, previous && `previous ${previous.value.reveal()}`].filter((one) => one !== undefined)
      },
    }
  }, { isAtomic: true })

  test('waits for the rotation of another tool of the same secret', async () => {
    const broker = await startBroker(engine)
    await putSecret(broker.broker, { actor: { kind: 'operator', id: 'test' } }, 'api', new Secret('one'))
    const system = createRotatingSystem('one')
    const open = () => rotateSecret({ everySeconds: 3_600, store: createSealedStore('api', createSealedVersions(broker.broker)), rotator: system.rotator })
    const [one, two] = [open(), open()]
    await one.create(first, signal())
    expect((await two.look(signal())).foreign).toMatch(/^Another rotation of the sealed secret api is under way since 2026-01-15T12:00:00\.000Z/)
    expect((await failure(two.create(second, signal()))).publicMessage).toMatch(/^Another rotation/)
    expect(system.asked).toEqual(['create', 'create', 'abandon one+2'])
    system.broken = 'abandon'
    expect(await failure(two.create(second, signal()))).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringMatching(/^Another rotation.* The system does not answer\. What was made may be good there for ever/) })
    delete system.broken
    await one.set(first, signal())
    await one.finish(first, signal())
    expect((await two.look(signal())).foreign).toBeUndefined()
  })
})

async function prepareAws(aws: Aws): Promise<Site & { readonly aws: Aws; readonly kept: TestSecret }> {
  const kept = await createAwsSecret(aws, { value: 'one' })
  const access = openAws({ region: awsRegion, endpoint: aws.url, private_network: true }, ['secretsmanager'])
  onTestFinished(() => access.close())
  const key = { accessKeyId: rootCredentials.AccessKeyId, secretAccessKey: rootCredentials.SecretAccessKey }
  const system = createRotatingSystem('one')
  const open = () => {
    const calls = createSecretsCalls(kept.name, awsRegion, async () => access.settings('secretsmanager', key))
    return rotateSecret({ everySeconds: 3_600, store: createAwsSecretStore(kept.name, calls, createToolContext()), rotator: system.rotator })
  }
  return {
    aws,
    kept,
    system,
    secret: open(),
    beside: open(),
    current: kept.current,
    async change(value) {
      system.accepted.add(value)
      await kept.change(value)
    },
    async left() {
      const versions = Object.values(await kept.versions()).filter(([, ...labels]) => !labels.includes('AWSCURRENT'))
      const named = versions.map(([value, ...labels]) => `${labels.map((label) => label.replace(/^AWS/, '').toLowerCase()).join(' ')} ${value}`)
      const current = Object.values(await kept.versions()).filter(([, ...labels]) => labels.includes('AWSCURRENT'))
      // Nothing but its label is on the one in force.
      expect(current.map(([, ...labels]) => labels)).toEqual([['AWSCURRENT']])
      return named
    },
  }
}

describeAws('The rotation of a secret of AWS Secrets Manager', () => {
  const start = useAws()
  // Of puts of one version at the same moment AWS takes one, and the emulator may take several.
  describeRotation(async () => prepareAws(await start()), { isAtomic: false })

  const faults: readonly (readonly [string, AwsFault])[] = [
    ['before AWS hears of it', { cut: 'before' }],
    ['after AWS has done it', { cut: 'after' }],
    ['by a refusal', secretsError('AccessDeniedException', 'denied')],
  ]
  const calls = ['DescribeSecret', 'GetSecretValue', 'PutSecretValue', 'UpdateSecretVersionStage']
  describe.each(faults)('whose calls fail %s', (_, fault) => {
    test.each(calls)('comes to the same, whichever call of %s it is', async (action) => {
      for (let skipped = 0; ; skipped++) {
        const aws = await start()
        aws.mend()
        const { secret, beside, system, current, left } = await prepareAws(aws)
        let failed = false
        let before = aws.calls(action).length
        for (const step of steps) {
          // One call goes wrong, as many others having gone well; the next process does the step again.
          const disarm = arm(aws, action, fault, skipped - (aws.calls(action).length - before))
          const outcome = await take(secret, step, first).then(() => 'done', (error: unknown) => (error instanceof ConnectorError ? error.outcome : expect.unreachable(String(error))))
          disarm()
          if (outcome === 'done') continue
          failed = true
          before = Number.NEGATIVE_INFINITY
          await take(beside, step, first)
        }
        expect([await left(), system.accepted.has(await current()), await current()]).toEqual([['previous one'], true, expect.stringMatching(/^one\+/)])
        const { replaced = '' } = await secret.finish(first, signal())
        await secret.retire?.(replaced, { cutOff: false }, signal())
        expect([await left(), system.accepted]).toEqual([[], new Set([await current()])])
        if (!failed) return
      }
    }, 60_000)
  })

  test('leaves alone what somebody else has begun, and says so', async () => {
    const { secret, kept, current, system } = await prepareAws(await start())
    const version = await kept.begin('of somebody else')
    expect((await secret.look(signal())).foreign).toContain(`Somebody else has begun to rotate the secret ${kept.name}: version ${version} is AWSPENDING.`)
    expect((await failure(secret.create(first, signal()))).publicMessage).toContain('Somebody else has begun')
    expect(system.asked).toEqual(['create', 'abandon one+1'])
    const versions = await kept.versions()
    expect(versions[version]).toEqual(['of somebody else', 'AWSPENDING'])
    await kept.label('AWSPENDING', version)
    expect((await secret.look(signal())).foreign).toBeUndefined()
    await rotate(secret, first)
    expect(await current()).toMatch(/^one\+/)
  })

  test('gives way to somebody who takes over in the middle', async () => {
    const { secret, kept, current, left } = await prepareAws(await start())
    await secret.create(first, signal())
    const version = await kept.begin('of somebody else')
    await secret.set(first, signal())
    expect(await secret.test(first, signal())).toMatchObject({ ok: false })
    await failure(secret.finish(first, signal()))
    await secret.abandon(first, signal())
    expect([await current(), await left(), (await kept.versions())[version]]).toEqual(['one', ['pending of somebody else'], ['of somebody else', 'AWSPENDING']])
  })

  test('does not overwrite an older version that was put in force again by hand', async () => {
    const { secret, kept, current, left } = await prepareAws(await start())
    await rotate(secret, first)
    const [old = ''] = Object.entries(await kept.versions()).find(([, [value]]) => value === 'one') ?? []
    await secret.create(second, signal())
    await secret.set(second, signal())
    await kept.label('AWSCURRENT', first, old)
    expect(await secret.test(second, signal())).toMatchObject({ ok: false, why: expect.stringContaining('by hand') })
    await failure(secret.finish(second, signal()))
    await secret.abandon(second, signal())
    expect([await current(), await left()]).toEqual(['one', ['previous one+1']])
    // What was replaced and is in force again is not retired: neither here nor in the system.
    await secret.retire?.(old, { cutOff: true }, signal())
    expect([await current(), (await secret.look(signal())).current?.version]).toEqual(['one', old])
  })

  test('asks AWS to take the label from the very version that it replaces', async () => {
    const { aws, secret, kept } = await prepareAws(await start())
    const [old = ''] = Object.keys(await kept.versions())
    const before = aws.requests.length
    await rotate(secret, first)
    const changes = aws.requests.slice(before).filter(({ action }) => /^(?:Put|Update)/.test(action)).map(({ action, parameters }) => ({ action, ...parameters }))
    expect(changes).toEqual([
      { action: 'PutSecretValue', SecretId: kept.name, ClientRequestToken: first, SecretString: 'one+1', VersionStages: ['AWSPENDING', `stint-from-${old}`] },
      { action: 'UpdateSecretVersionStage', SecretId: kept.name, VersionStage: 'AWSCURRENT', RemoveFromVersionId: old, MoveToVersionId: first },
      { action: 'UpdateSecretVersionStage', SecretId: kept.name, VersionStage: 'AWSPENDING', RemoveFromVersionId: first },
      { action: 'UpdateSecretVersionStage', SecretId: kept.name, VersionStage: `stint-from-${old}`, RemoveFromVersionId: first },
    ])
  })

  test('loses to a change by hand in the last moment', async () => {
    // Its own emulator, for what happens between two calls.
    const aws = await startAws()
    onTestFinished(() => aws.close())
    const { secret, kept, current, system } = await prepareAws(aws)
    for (const step of steps.slice(0, 3)) await take(secret, step, first)
    aws.onAnswer = async ({ action }) => {
      if (action !== 'DescribeSecret') return
      delete aws.onAnswer
      system.accepted.add('by hand')
      await kept.change('by hand')
    }
    expect((await failure(secret.finish(first, signal()))).publicMessage).toContain('put in force by hand meanwhile')
    expect(await current()).toBe('by hand')
  })

  test('says what is in the way where the secret is to be deleted, or gone', async () => {
    const { secret, kept } = await prepareAws(await start())
    await kept.remove(7)
    for (const asking of [() => secret.look(signal()), () => secret.create(first, signal()), () => secret.finish(first, signal())]) expect((await failure(asking())).publicMessage).toContain('is scheduled for deletion')
    await kept.remove()
    expect((await failure(secret.look(signal()))).publicMessage).toContain('There is no secret')
  })
})

/** Has one call of an action go wrong, after so many that go well. Returns what calls that off. */
function arm(aws: Aws, action: string, fault: AwsFault, skipped: number): () => void {
  if (!(skipped >= 0)) return () => undefined
  if (skipped === 0) aws.fail(action, fault, 1)
  else aws.fail(action, {}, skipped)
  if (skipped > 0) aws.fail(action, fault, 1)
  return () => aws.mend()
}
