import { CreateUserCommand, CreateAccessKeyCommand, GetAccessKeyLastUsedCommand, IAMClient, ListAccessKeysCommand } from '@aws-sdk/client-iam'
import { expect, onTestFinished, test } from 'vitest'
import { openRotator } from '../../../src/connectors/rotators/open-rotator.ts'
import type { Rotator } from '../../../src/connectors/rotators/rotator.ts'
import { Secret } from '../../../src/kernel/secret.ts'
import { rotatorSchema } from '../../../src/policy/kinds/rotators.ts'
import { describeAws, queryError, rootCredentials, useAws, type Aws } from '../../aws/moto.ts'
import { failure, newName, within } from '../postgres-tool.ts'
import { createToolContext } from '../tool-context.ts'

const run = '0b0e2f6a-6d7c-4c53-9e50-4d6f3a5c9c11'

describeAws('the access key of an IAM user', () => {
  const start = useAws()

  interface User {
    readonly aws: Aws
    readonly name: string
    readonly rotator: Rotator
    readonly current: Secret
    /** The ids of its keys, each with its status. */
    keys(): Promise<readonly (readonly [string | undefined, string | undefined])[]>
    addKey(): Promise<string>
  }

  async function createUser(): Promise<User> {
    const aws = await start()
    aws.mend()
    aws.forget()
    const admin = new IAMClient({ region: 'us-east-1', endpoint: aws.url, credentials: { accessKeyId: rootCredentials.AccessKeyId, secretAccessKey: rootCredentials.SecretAccessKey } })
    const name = `stint-${newName()}`
    await admin.send(new CreateUserCommand({ UserName: name }))
    const made = await admin.send(new CreateAccessKeyCommand({ UserName: name }))
    const rotator = openRotator(rotatorSchema.parse({ aws_access_key: { endpoint: aws.url, private_network: true } }), { tool: { name: 'reports' }, context: createToolContext() })
    onTestFinished(() => rotator.close())
    return {
      aws, name, rotator,
      // As the AWS CLI prints it.
      current: new Secret(JSON.stringify({ AccessKey: { ...made.AccessKey, CreateDate: made.AccessKey?.CreateDate?.toISOString() } })),
      keys: async () => ((await admin.send(new ListAccessKeysCommand({ UserName: name }))).AccessKeyMetadata ?? []).map(({ AccessKeyId, Status }) => [AccessKeyId, Status] as const),
      addKey: async () => (await admin.send(new CreateAccessKeyCommand({ UserName: name }))).AccessKey?.AccessKeyId ?? '',
    }
  }

  function read(value: Secret): { readonly AccessKeyId: string; readonly SecretAccessKey: string } {
    const { AccessKey, ...plain } = JSON.parse(value.reveal()) as Record<string, never>
    return AccessKey ?? (plain as never)
  }

  test('a new key is made by the old one, tried out, and the old one is deleted', async () => {
    const { aws, rotator, current, keys } = await createUser()
    expect(await rotator.check?.(current, within())).toEqual([{ ok: true, sentence: `The access key ${read(current).AccessKeyId} can see the keys of its user, and there is room for the next one.` }])
    const next = await rotator.create(run, current, within())
    expect(Object.keys(read(next))).toEqual(['AccessKeyId', 'SecretAccessKey'])
    expect(await keys()).toEqual([[read(current).AccessKeyId, 'Active'], [read(next).AccessKeyId, 'Active']])
    await rotator.set(run, next, current, within())
    aws.forget()
    expect(await rotator.test(next, within())).toEqual({ ok: true })
    expect(aws.requests.map(({ action, headers }) => [action, headers.authorization?.includes(read(next).AccessKeyId)])).toEqual([['GetCallerIdentity', true]])
    aws.forget()
    for (let i = 0; i < 2; i++) await rotator.retire?.(current, next, { cutOff: false }, within())
    expect(await keys()).toEqual([[read(next).AccessKeyId, 'Active']])
    expect(aws.requests.slice(0, 2).map(({ action, parameters, headers }) => [action, parameters['Status'], headers.authorization?.includes(read(next).AccessKeyId)])).toEqual([
      ['UpdateAccessKey', 'Inactive', true],
      ['DeleteAccessKey', undefined, true],
    ])
    // And again, from the form that Stint wrote itself.
    const third = await rotator.create(run, next, within())
    await rotator.retire?.(next, third, { cutOff: true }, within())
    expect(await keys()).toEqual([[read(third).AccessKeyId, 'Active']])
  })

  test('what a crash behind CreateAccessKey has left there is deleted by the next try', async () => {
    const { aws, rotator, current, keys } = await createUser()
    const lost = await rotator.create(run, current, within())
    const next = await rotator.create(run, current, within())
    expect(read(next).AccessKeyId).not.toBe(read(lost).AccessKeyId)
    expect(await keys()).toEqual([[read(current).AccessKeyId, 'Active'], [read(next).AccessKeyId, 'Active']])
    aws.fail('CreateAccessKey', { cut: 'after' }, 1)
    const error = await failure(rotator.create(run, current, within()))
    expect(error).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('There may be one that nobody holds: the next try deletes it.') })
    expect(aws.calls('CreateAccessKey')).toHaveLength(3 + 1)
    await rotator.create(run, current, within())
    expect(await keys()).toHaveLength(2)
  })

  test('a key that somebody uses is not deleted for it, and an admin is told which one it is', async () => {
    const { aws, rotator, current, keys, addKey } = await createUser()
    const other = await addKey()
    const used = new IAMClient({ region: 'us-east-1', endpoint: aws.url, credentials: { accessKeyId: other, secretAccessKey: 'x'.repeat(40) } })
    await used.send(new GetAccessKeyLastUsedCommand({ AccessKeyId: other }))
    expect(await failure(rotator.create(run, current, within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining(`aws iam delete-access-key --access-key-id ${other}`) })
    expect(await rotator.check?.(current, within())).toEqual([{ ok: false, sentence: expect.stringContaining(other) }])
    expect(await keys()).toHaveLength(2)
    expect(aws.calls('DeleteAccessKey')).toEqual([])
  })

  test('a key that AWS does not know yet is tried again, and one that it never knows is not called wrong', async () => {
    const { aws, rotator, current } = await createUser()
    const next = await rotator.create(run, current, within())
    aws.fail('GetCallerIdentity', { status: 403, body: queryError('InvalidClientTokenId', 'The security token included in the request is invalid.') }, 1)
    expect(await rotator.test(next, within())).toEqual({ ok: true })
    aws.fail('GetCallerIdentity', { status: 403, body: queryError('InvalidClientTokenId', 'The security token included in the request is invalid.') })
    expect(await failure(rotator.test(next, within(1_000)))).toMatchObject({ outcome: 'nothing_done', retryAfterSeconds: 10, publicMessage: expect.stringContaining('yet, or not any more') })
    aws.mend()
    aws.fail('GetCallerIdentity', { status: 403, body: queryError('SignatureDoesNotMatch', 'no') })
    expect(await rotator.test(next, within())).toEqual({ ok: false, why: expect.stringContaining(read(next).AccessKeyId) })
    aws.mend()
    aws.fail('GetCallerIdentity', { cut: 'before' })
    expect(await failure(rotator.test(next, within()))).toMatchObject({ outcome: 'nothing_done' })
  })

  test('refusals name the right that is missing, and nobody is told a secret', async () => {
    const { aws, rotator, current, keys } = await createUser()
    const denied = (right: string) => ({ status: 403, body: queryError('AccessDenied', `User: arn:aws:iam::123456789012:user/x is not authorized to perform: ${right} on resource: y`) })
    aws.fail('ListAccessKeys', denied('iam:ListAccessKeys'), 1)
    const errors = [await failure(rotator.create(run, current, within()))]
    aws.fail('CreateAccessKey', denied('iam:CreateAccessKey'), 1)
    errors.push(await failure(rotator.create(run, current, within())))
    const next = await rotator.create(run, current, within())
    aws.fail('UpdateAccessKey', denied('iam:UpdateAccessKey'), 1)
    errors.push(await failure(rotator.retire?.(current, next, { cutOff: false }, within()) ?? Promise.resolve()))
    expect(errors.map(({ outcome, adminMessage }) => [outcome, /right (\S+) is missing/.exec(adminMessage)?.[1]])).toEqual([
      ['nothing_done', 'iam:ListAccessKeys'],
      ['nothing_done', 'iam:CreateAccessKey'],
      ['nothing_done', 'iam:UpdateAccessKey'],
    ])
    aws.fail('CreateAccessKey', { status: 409, body: queryError('LimitExceeded', 'Cannot exceed quota') }, 1)
    expect(await failure(rotator.create(run, current, within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('no room') })
    aws.fail('CreateAccessKey', { change: (body) => body.replace(/<SecretAccessKey>.*?<\/SecretAccessKey>/, '') }, 1)
    errors.push(await failure(rotator.create(run, current, within())))
    expect(errors.at(-1)).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('something else than an active one') })
    const secrets = [current, next].map((value) => read(value).SecretAccessKey)
    for (const error of errors) for (const secret of secrets) expect(`${error.stack}${JSON.stringify(error)}${String(error.cause)}`).not.toContain(secret)
    expect((await keys()).map(([id]) => id)).toContain(read(current).AccessKeyId)
  })

  test('a new key that is given up is deleted, or it is said that it could not be', async () => {
    const { rotator, current, keys, aws } = await createUser()
    const next = await rotator.create(run, current, within())
    aws.fail('DeleteAccessKey', { cut: 'before' }, 1)
    await failure(rotator.abandon?.(next, current, { kept: true }, within()) ?? Promise.resolve())
    for (let i = 0; i < 2; i++) await rotator.abandon?.(next, current, { kept: true }, within())
    expect(await keys()).toEqual([[read(current).AccessKeyId, 'Active']])
  })

  test('the key in force is never deleted, nor one of another user left alive', async () => {
    const { rotator, current, keys } = await createUser()
    await rotator.retire?.(current, current, { cutOff: true }, within())
    expect(await keys()).toHaveLength(1)
    const other = await createUser()
    await rotator.retire?.(current, other.current, { cutOff: true }, within())
    expect([await keys(), await other.keys()]).toEqual([[], [[read(other.current).AccessKeyId, 'Active']]])
  })

  test.for(['text', '{"AccessKeyId":"AKIAIOSFODNN7EXAMPLE"}', '{"AccessKeyId":"AKIAIOSFODNN7EXAMPLE","SecretAccessKey":"hidden-word-0123456789","SessionToken":"hidden-word-0123456789"}'])('%s is no value that can be replaced', async (text) => {
    const rotator = openRotator(rotatorSchema.parse({ aws_access_key: {} }), { tool: { name: 'reports' }, context: createToolContext() })
    const error = await failure(rotator.create(run, new Secret(text), within()))
    expect(error).toMatchObject({ outcome: 'nothing_done', adminMessage: expect.stringMatching(/the value of the tool reports|The value of the tool reports is a session/) })
    expect(error.adminMessage).not.toContain('hidden-word')
  })
})
