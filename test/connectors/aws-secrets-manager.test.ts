import { randomBytes } from 'node:crypto'
import { afterEach, expect, onTestFinished, test } from 'vitest'
import { awsSecretsManagerConnector } from '../../src/connectors/aws-secrets-manager.ts'
import { ConnectorError, type Ended, type OpenTool, type ToolContext } from '../../src/connectors/connector.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { parseTool, type Tool } from '../../src/policy/catalog.ts'
import { describeAws, rootCredentials, useAws, type AwsFault } from '../aws/moto.ts'
import { awsRegion, createAwsSecret, secretsError, type TestSecret } from '../aws/secrets.ts'
import { createToolContext } from './tool-context.ts'

const grant = 'grant_01kb2m4c0de0000000000000a1'
const usual = 'credentials: { from: "sealed:aws-root" }'
const nowMs = Date.UTC(2026, 0, 15, 12)
const rotating = 'rotation: { every: 30d, rotator: { http: { generate: {}, set: { method: POST, url: "http://127.0.0.1:1/key", form: { key: "{pending}" } }, test: { method: GET, url: "http://127.0.0.1:1/", headers: { authorization: "Bearer {pending}" } } } } }'

function toolOf(url: string, secret: string, config: string): Tool {
  const parsed = parseTool(
    'tools/billing-api.yaml',
    `tool: billing-api
connector: aws-secrets-manager
sensitivity: high
ttl: { default: 10m, max: 1h }
actions: { use: {} }
config: { secret_id: "${secret}", region: ${awsRegion}, endpoint: "${url}", private_network: true, ${config} }
`,
  )
  if (!('tool' in parsed)) throw new Error(JSON.stringify(parsed.problems))
  return parsed.tool
}

const signal = () => AbortSignal.timeout(15_000)
const failure = (asking: Promise<unknown>): Promise<ConnectorError> =>
  asking.then(() => expect.unreachable('it was done'), (error: unknown) => (error instanceof ConnectorError ? error : expect.unreachable(String(error))))
const reveal = (values: Readonly<Record<string, string | number | Secret>>) => Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value instanceof Secret ? value.reveal() : value]))

describeAws('aws-secrets-manager', () => {
  const start = useAws()
  afterEach(async () => (await start()).mend())

  async function openSecret({ value, config = usual, id, context = {} }: { value?: string | Uint8Array | 'none'; config?: string; id?: (secret: TestSecret) => string; context?: Partial<ToolContext> } = {}) {
    const aws = await start()
    const secret = await createAwsSecret(aws, value === undefined ? {} : { value })
    const open: OpenTool = awsSecretsManagerConnector.open(
      toolOf(aws.url, id?.(secret) ?? secret.name, config),
      createToolContext({ nowMs: () => nowMs, readSecret: async () => new Secret(JSON.stringify(rootCredentials)), ...context }),
    )
    onTestFinished(() => open.close())
    const mint = () => open.mint({ grant, workload: 'bot', owner: 'support', actions: [], nowMs, expiresAtMs: nowMs + 600_000 }, signal())
    const lend = async () => {
      const minted = await mint()
      return { ...minted, credential: reveal(minted.credential), environment: reveal(minted.environment) }
    }
    const end = (reference?: string): Promise<Ended> => open.revoke({ grant, ...(reference !== undefined && { reference }) }, signal())
    const findings = () => open.check(signal())
    return { aws, secret, open, mint, lend, end, findings }
  }

  test('lends what is in force, and says by its reference which version that was', async () => {
    const { aws, secret, lend, open } = await openSecret()
    const before = aws.requests.length
    const lent = await lend()
    const [version = ''] = Object.keys(await secret.versions())
    expect(lent).toEqual({ credential: { value: 'first value', version }, environment: { BILLING_API: 'first value' }, reference: `${secret.arn}/${version}` })
    expect(aws.requests[before]).toMatchObject({ service: 'secretsmanager', action: 'GetSecretValue', parameters: { SecretId: secret.name, VersionStage: 'AWSCURRENT' } })
    expect([open.effect, open.undo, open.rotation]).toEqual(['expiry', 'by_grant', undefined])
    const next = await secret.change('second value')
    expect(await lend()).toMatchObject({ credential: { value: 'second value', version: next } })
  })

  test('takes the secret by its ARN, and by nothing but the key of the catalog', async () => {
    const keys = [{ ...rootCredentials }, { AccessKeyId: 'AKIAIOSFODNN7REPLACED', SecretAccessKey: `${rootCredentials.SecretAccessKey}2` }]
    const { aws, lend } = await openSecret({ id: ({ arn }) => arn, context: { readSecret: async () => new Secret(JSON.stringify(keys.shift())) } })
    await lend()
    await lend()
    const signed = aws.requests.slice(-2).map(({ headers }) => /Credential=([^/]+)\//.exec(headers.authorization ?? '')?.[1])
    expect(signed).toEqual([rootCredentials.AccessKeyId, 'AKIAIOSFODNN7REPLACED'])
  })

  test.each([
    ['one variable', '{"user":"a"}', `${usual}, env: API_KEY`, { API_KEY: '{"user":"a"}' }],
    ['members of an object', '{"user":"a","port":5432,"tls":true,"x":null}', `${usual}, env: { PGUSER: user, PGPORT: port, TLS: tls }`, { PGUSER: 'a', PGPORT: '5432', TLS: 'true' }],
    ['bytes as base64', Buffer.from([0, 255, 10]), usual, { BILLING_API: 'AP8K' }],
  ] as const)('hands a command %s', async (_, value, config, environment) => {
    const { lend } = await openSecret({ value, config })
    const lent = await lend()
    expect(lent.environment).toEqual(environment)
    expect(lent.credential['encoding']).toBe(typeof value === 'string' ? undefined : 'base64')
  })

  test('lends the largest value that there is as it is', async () => {
    const value = `${randomBytes(4).toString('hex')}"\\\n${'ä'.repeat(32_000)}`
    const { lend } = await openSecret({ value })
    expect((await lend()).credential['value']).toBe(value)
  })

  test.each([
    ['no object', 'plain', 'is no JSON object'],
    ['a list', '["a"]', 'is no JSON object'],
    ['another member', '{"username":"marked-7"}', 'has no member user that is text or a number'],
    ['a member that is no text', '{"user":{"name":"marked-7"}}', 'has no member user that is text or a number'],
    ['a member of its prototype', '{"__proto__":{"user":"marked-7"}}', 'has no member user'],
    ['bytes', Buffer.from('{"user":"marked-7"}'), 'is no JSON object'],
    ['a NUL', '{"user":"marked-7\\u0000"}', 'holds a NUL'],
  ] as const)('lends nothing that commands could not be handed: %s', async (_, value, sentence) => {
    const { mint, findings } = await openSecret({ value, config: `${usual}, env: { PGUSER: user }` })
    const refused = await failure(mint())
    expect([refused.outcome, refused.publicMessage]).toEqual(['nothing_done', expect.stringContaining(sentence)])
    const found = await findings()
    expect(found).toEqual([{ ok: false, sentence: expect.stringContaining(sentence) }])
    expect(JSON.stringify([refused.publicMessage, refused.adminMessage, found])).not.toContain('marked')
  })

  test('says of a value that was lent that it is good until it is replaced, and then that it has ended', async () => {
    const { aws, secret, lend, end } = await openSecret()
    const { reference = '' } = await lend()
    expect(await end(reference)).toEqual({ status: 'waits', why: expect.stringMatching(/is good until it is replaced: an admin changes it where it is used and in AWS, for Stint does not rotate it\.$/), nextAtMs: nowMs + 86_400_000 })
    await secret.change('second value')
    expect(await end(reference)).toMatchObject({ status: 'waits', why: expect.stringContaining('once it has not the label AWSPREVIOUS either') })
    await secret.change('third value')
    expect(await end(reference)).toEqual({ status: 'ended' })
    const asked = aws.requests.length
    // Of a mint whose answer was lost nobody holds anything.
    expect([await end(), aws.requests.length]).toEqual([{ status: 'ended' }, asked])
  })

  test('promises that a rotation replaces it, where there is one', async () => {
    const { lend, end, open } = await openSecret({ config: `${usual}, ${rotating}` })
    expect([open.effect, open.rotation?.everySeconds]).toEqual(['propagating', 30 * 86_400])
    const { reference = '' } = await lend()
    expect(await end(reference)).toMatchObject({ status: 'waits', why: expect.stringMatching(/replaced: its rotation does that\.$/) })
  })

  test('does not take a secret of the same name for one that is gone', async () => {
    const { aws, secret, lend, end } = await openSecret()
    const { reference = '' } = await lend()
    await secret.remove()
    expect(await end(reference)).toEqual({ status: 'ended' })
    const next = await createAwsSecret(aws, { name: secret.name })
    expect(next.arn).not.toBe(secret.arn)
    expect([await end(reference), (await lend()).reference]).toEqual([{ status: 'ended' }, expect.stringContaining(next.arn)])
  })

  test('waits with the end of a grant while the secret is only to be deleted', async () => {
    const { secret, lend, end, mint } = await openSecret()
    const { reference = '' } = await lend()
    await secret.remove(7)
    expect(await end(reference)).toMatchObject({ status: 'waits' })
    expect(await failure(mint())).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('is scheduled for deletion in AWS: an admin restores it there') })
  })

  test.each([
    ['there is none', async ({ remove }: TestSecret) => remove(), /There is no secret billing\/\S+ in AWS Secrets Manager, or it has no value in force/],
    ['it is to be deleted', async ({ remove }: TestSecret) => remove(7), /is scheduled for deletion/],
  ] as const)('says so where %s', async (_, spoil, sentence) => {
    const { secret, mint, findings } = await openSecret()
    await spoil(secret)
    expect(await failure(mint())).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(sentence) })
    expect(await findings()).toEqual([{ ok: false, sentence: expect.stringMatching(sentence) }])
  })

  test('says so where it has no value', async () => {
    const { mint } = await openSecret({ value: 'none' })
    expect(await failure(mint())).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('it has no value in force (AWSCURRENT)') })
  })

  const denied = 'User: arn:aws:iam::123456789012:user/stint is not authorized to perform: secretsmanager:GetSecretValue on resource: x because no identity-based policy allows it'
  test.each<[string, AwsFault, string, RegExp, number?]>([
    ['a right is missing', secretsError('AccessDeniedException', denied), 'nothing_done', /the right secretsmanager:GetSecretValue is missing/],
    ['the KMS key refuses', secretsError('AccessDeniedException', 'Access to KMS is not allowed'), 'nothing_done', /the right kms:Decrypt is missing/],
    ['the KMS key is disabled', secretsError('DecryptionFailure', 'Secrets Manager can\'t decrypt'), 'nothing_done', /cannot use the KMS key of the secret/],
    ['the key of Stint is wrong', secretsError('UnrecognizedClientException', 'The security token included in the request is invalid.'), 'nothing_done', /does not accept the tool's root credential/],
    ['the key of Stint has expired', secretsError('ExpiredTokenException', 'expired'), 'nothing_done', /has expired at AWS/],
    ['AWS is throttling', secretsError('ThrottlingException', 'Rate exceeded'), 'nothing_done', /limits how often it is called/, 5],
    ['AWS fails', secretsError('InternalServiceError', 'An error occurred on the server side.', 500), 'nothing_done', /does not answer as it should/],
    ['AWS answers with something else', { status: 200, headers: { 'content-type': 'text/html' }, body: '<html>marked-7' }, 'nothing_done', /cannot be read/],
    ['AWS answers with another shape', { change: () => '{"ARN":"marked-7","VersionId":"x","SecretString":"marked-7"}' }, 'nothing_done', /cannot be read/],
    ['an empty value', { change: (body) => JSON.stringify({ ...(JSON.parse(body) as object), SecretString: '' }) }, 'nothing_done', /is empty/],
    ['the connection breaks', { cut: 'before' }, 'nothing_done', /connection/],
    ['the answer is lost', { cut: 'after' }, 'nothing_done', /connection/],
    ['the answer ends early', { cut: 'half' }, 'nothing_done', /connection/],
  ])('says what is wrong where %s, and gives nothing', async (_, fault, outcome, sentence, retryAfterSeconds) => {
    const { aws, mint, findings } = await openSecret()
    aws.fail('GetSecretValue', fault)
    const refused = await failure(mint())
    expect([refused.outcome, refused.adminMessage, refused.retryAfterSeconds]).toEqual([outcome, expect.stringMatching(sentence), retryAfterSeconds])
    expect(JSON.stringify([refused.publicMessage, refused.adminMessage, String(refused.cause)])).not.toMatch(/marked|wJalr|no identity-based/)
    expect((await findings()).some(({ ok }) => !ok)).toBe(true)
  }, 20_000)

  test('does not wait longer than it may', async () => {
    const { aws, open } = await openSecret()
    aws.fail('GetSecretValue', { delayMs: 5_000 })
    const begun = performance.now()
    const refused = await failure(open.mint({ grant, workload: 'bot', owner: 'support', actions: [], nowMs, expiresAtMs: nowMs }, AbortSignal.timeout(300)))
    expect([refused.outcome, performance.now() - begun < 2_000]).toEqual(['nothing_done', true])
  })

  test('does not end a grant where AWS does not say that the value is gone', async () => {
    const { aws, lend, end } = await openSecret()
    const { reference = '' } = await lend()
    for (const fault of [secretsError('AccessDeniedException', denied), secretsError('InternalServiceError', 'x', 500), { cut: 'after' }, { change: () => '{}' }] satisfies AwsFault[]) {
      aws.fail('DescribeSecret', fault, 9)
      expect((await failure(end(reference))).outcome).toBe('nothing_done')
      aws.mend()
    }
  }, 20_000)

  test('works as a role that trusts the issuer, for this secret alone, and asks for a session no more often than needed', async () => {
    let time = Date.now()
    const role = 'arn:aws:iam::123456789012:role/stint-secrets'
    const { aws, lend, secret } = await openSecret({ config: `web_identity: true, role: "${role}"`, context: { nowMs: () => time, signWebIdentity: async ({ claims }) => new Secret(`a.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.token`) } })
    const before = aws.requests.length
    await lend()
    await lend()
    expect(aws.requests.slice(before).map(({ action }) => action)).toEqual(['AssumeRoleWithWebIdentity', 'GetSecretValue', 'GetSecretValue'])
    const { Policy: policy, RoleArn: asked, DurationSeconds: seconds } = aws.calls('AssumeRoleWithWebIdentity').at(-1) ?? {}
    expect([asked, seconds]).toEqual([role, '900'])
    expect(JSON.parse(String(policy))).toEqual({
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Action: ['kms:Decrypt', 'kms:GenerateDataKey'], Resource: '*' },
        {
          Effect: 'Allow',
          Action: ['secretsmanager:DescribeSecret', 'secretsmanager:GetSecretValue', 'secretsmanager:PutSecretValue', 'secretsmanager:UpdateSecretVersionStage'],
          Resource: `arn:aws:secretsmanager:eu-west-1:123456789012:secret:${secret.name}-??????`,
        },
        { Effect: 'Deny', Action: 'sts:Assume*', Resource: '*' },
      ],
    })
    time += 800_000
    await lend()
    expect(aws.calls('AssumeRoleWithWebIdentity').length).toBe(2)
    aws.fail('AssumeRoleWithWebIdentity', { cut: 'after' })
    time += 800_000
    expect((await failure(lend())).outcome).toBe('nothing_done')
  })

  test('finds nothing to object to, and says who replaces it', async () => {
    const { findings, secret } = await openSecret()
    expect(await findings()).toEqual([
      { ok: true, sentence: expect.stringMatching(new RegExp(`^AWS gives Stint the secret ${secret.arn}: version \\S+ is in force since 20`)) },
      { ok: true, sentence: 'Nobody replaces it by schedule: neither Stint nor AWS.' },
    ])
  })

  test('sees whether it may change the secret, and changes nothing by that', async () => {
    const { aws, findings, secret } = await openSecret({ config: `${usual}, ${rotating}` })
    const before = await secret.versions()
    expect((await findings()).slice(1)).toEqual([
      { ok: true, sentence: 'Stint replaces it every 30d.' },
      { ok: true, sentence: 'Stint may make versions of it and bring them into force.' },
      // What the rotator says of the system behind it, where nobody listens.
      { ok: false, sentence: expect.stringContaining('127.0.0.1:1') },
    ])
    expect(await secret.versions()).toEqual(before)
    for (const right of ['PutSecretValue', 'UpdateSecretVersionStage']) {
      aws.fail(right, secretsError('AccessDeniedException', `User: x is not authorized to perform: secretsmanager:${right} on resource: y`))
    }
    const missing = (await findings()).filter(({ ok }) => !ok).map(({ sentence }) => sentence)
    expect(missing.slice(0, 2)).toEqual([expect.stringContaining('the right secretsmanager:PutSecretValue is missing'), expect.stringContaining('the right secretsmanager:UpdateSecretVersionStage is missing')])
    aws.mend()
    aws.fail('DescribeSecret', secretsError('AccessDeniedException', 'no'))
    expect((await findings()).find(({ ok }) => !ok)).toEqual({ ok: false, sentence: expect.stringContaining('secretsmanager:DescribeSecret is missing') })
  })

  test('says who else replaces it', async () => {
    const { aws, findings, secret } = await openSecret({ config: `${usual}, ${rotating}` })
    const version = await secret.begin('of somebody else')
    expect(await findings()).toContainEqual({ ok: false, sentence: expect.stringContaining(`Somebody else has begun to rotate the secret ${secret.name}: version ${version} is AWSPENDING.`) })
    await secret.label('AWSPENDING', version)
    const nextMs = Date.UTC(2026, 5, 1)
    const amend = (more: object): AwsFault => ({ change: (body) => JSON.stringify({ ...(JSON.parse(body) as object), ...more }) })
    aws.fail('DescribeSecret', amend({ RotationEnabled: true, RotationLambdaARN: 'arn:aws:lambda:eu-west-1:1:function:f', NextRotationDate: nextMs / 1000 }))
    expect(await findings()).toContainEqual({ ok: false, sentence: `AWS itself rotates the secret ${secret.name} (arn:aws:lambda:eu-west-1:1:function:f, next at 2026-06-01T00:00:00.000Z): Stint leaves it to that. An admin switches one of the two off.` })
    aws.mend()
    aws.fail('DescribeSecret', amend({ PrimaryRegion: 'eu-central-1' }))
    expect(await findings()).toContainEqual({ ok: false, sentence: 'It is a replica, which cannot be changed: the catalog file must name the region eu-central-1.' })
  })

  test('does not replace what is binary', async () => {
    const { findings, open } = await openSecret({ value: Buffer.from([1, 2, 3]), config: `${usual}, ${rotating}` })
    expect(await findings()).toContainEqual({ ok: false, sentence: expect.stringContaining('Stint replaces text only') })
    expect(await failure(open.rotation?.create('0b9f5b0e-7a39-4d8e-9f0f-0d5a1c2f3a01', signal()) ?? Promise.resolve())).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('is binary') })
  })
})
