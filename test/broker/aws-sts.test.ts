import { createLocalJWKSet, jwtVerify, type JSONWebKeySet } from 'jose'
import { afterEach, expect, test } from 'vitest'
import { describeAws, queryError, rootCredentials, useAws, type Aws } from '../aws/moto.ts'
import { issuer, startBroker, type TestBroker } from '../broker.ts'
import { createTestClock, describeEngines } from '../harness.ts'
import { createRole, listDenied, rules } from './cloud.ts'
import { ask, call, lend, lifeOf, minuteMs, passTime } from './lending.ts'

const wish = { tool: 'reports', actions: ['s3.read'], target: '2026' }

/** A broker that lends sessions of a role, told by `config` how it proves who it is. */
async function startReports(engine: 'sqlite' | 'postgres', aws: Aws, config: (cloud: { readonly role: string; readonly policies: readonly string[] }) => string) {
  const cloud = await createRole(aws, 1)
  const file = `tool: reports
connector: aws-sts
sensitivity: medium
ttl: { default: 15m, max: 1h }
target: { name: prefix, required: true, pattern: ".*" }
actions:
  s3.read: { statements: [{ actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/{target}/*"] }] }
config: { role: "${cloud.role}", region: eu-west-1, endpoint: "${aws.url}", private_network: true, ${config(cloud)} }
`
  const policies = new Map(Object.entries({ 'tools/reports.yaml': file, 'rules.cedar': rules }))
  // What the emulator answers bears its own time.
  const broker = await startBroker(engine, { policies, env: { AWS_ROOT: JSON.stringify(rootCredentials) }, testClock: createTestClock(Date.now()) })
  aws.forget()
  return { ...cloud, broker, agent: await broker.register('bot') }
}

const byKey = () => 'credentials: { from: "env:AWS_ROOT" }'
const byKeyWithSwitch = ({ policies }: { readonly policies: readonly string[] }) => `${byKey()}, kill_switch: { policies: ${JSON.stringify(policies)} }`

async function keysOf(broker: TestBroker) {
  return createLocalJWKSet((await (await broker.send('GET', '/oauth2/jwks')).json()) as JSONWebKeySet)
}

describeAws('sessions of AWS', () => {
  const start = useAws()
  afterEach(async () => (await start()).mend())

  describeEngines('lent by a broker', (engine) => {
    test('are asked for with no target that could widen them, and before anything is begun that is refused', async () => {
      const aws = await start()
      const { broker, agent } = await startReports(engine, aws, byKey)
      for (const target of ['*', '2026/*', '202?', '${aws:username}', '","Effect":"Allow', "a'b", '..', '2026/../payroll', 'arn:aws:s3:::payroll', '/']) {
        const { status, body } = await ask(broker, agent, { ...wish, target })
        expect([status, body], target).toMatchObject([400, { type: expect.stringContaining('invalid-target'), detail: expect.stringMatching(/^The tool reports takes /) }])
        expect(await broker.lastEvent('grant.refused')).toMatchObject({ workload: 'bot', code: 'invalid_target' })
      }
      expect(await ask(broker, agent, { ...wish, target: 'x'.repeat(2_048) })).toMatchObject({ status: 400, body: { detail: expect.stringMatching(/1 to 1024 characters/) } })
      expect(aws.requests).toEqual([])
      expect((await broker.events()).map(({ type }) => type)).not.toContain('grant.minting')
    })

    test('say until when they live where STS gives no shorter one', async () => {
      const { broker, agent } = await startReports(engine, await start(), byKey)
      const short = await lend(broker, agent, { ...wish, ttl_seconds: 60 })
      expect(short.ends).toMatchObject({ effect: 'expiry', tool_ends_at: expect.any(String), meaning: expect.stringMatching(/^It cannot be ended before it expires\. By itself the tool lets it live until 20/) })
      const { tool_ends_at: until = '' } = short.ends as { readonly tool_ends_at?: string }
      expect(Math.abs(Date.parse(until) - broker.clock.nowMs() - 15 * minuteMs)).toBeLessThan(60_000)
      expect(await broker.lastEvent('grant.activated')).toMatchObject({ grant: short.grant, dies_at: until, reference: expect.stringMatching(`/${short.grant}$`) })
      expect((await call(broker, agent, 'GET', `/v1/grants/${short.grant}`)).body).toMatchObject({ state: 'active', expires_at: short.expires_at, ends: short.ends })
      // Its end is that of its session, until when nothing can be done.
      await passTime(broker, minuteMs)
      expect((await call(broker, agent, 'GET', `/v1/grants/${short.grant}`)).body).toMatchObject({ state: 'ending', may_live_until: until })
      await passTime(broker, 15 * minuteMs)
      expect((await call(broker, agent, 'GET', `/v1/grants/${short.grant}`)).body).toMatchObject({ state: 'expired' })
    })

    test('are denied where the answer that brought them was lost', async () => {
      const aws = await start()
      const cloud = await startReports(engine, aws, byKeyWithSwitch)
      const { broker, agent } = cloud
      aws.fail('AssumeRole', { cut: 'after' })
      const { status, body } = await ask(broker, agent, wish)
      expect([status, body]).toMatchObject([502, { detail: expect.stringMatching(/if so, it is undone/) }])
      aws.mend()
      const { SourceIdentity: lost } = aws.calls('AssumeRole').at(-1) ?? {}
      await passTime(broker, 3 * minuteMs)
      expect(await listDenied(cloud, [String(lost)])).toEqual([lost])
      expect((await lifeOf(broker, String(lost))).at(-1)).toBe('grant.ended')
    })

    test('leave nothing behind where the role does not trust Stint', async () => {
      const aws = await start()
      const { broker, agent } = await startReports(engine, aws, byKey)
      aws.fail('AssumeRole', { status: 403, body: queryError('AccessDenied', 'User: x is not authorized to perform: sts:TagSession on resource: y') })
      const { status, body } = await ask(broker, agent, wish)
      expect([status, body]).toMatchObject([502, { detail: expect.stringMatching(/does not trust Stint with sts:TagSession/) }])
      expect(await broker.lastEvent('grant.failed')).toMatchObject({ detail: expect.stringMatching(/sts:TagSession/) })
    })
  })

  test('come without an AWS key, by a token that the keys of the issuer verify, and so do their denials', async () => {
    const aws = await start()
    const deny = 'arn:aws:iam::123456789012:role/stint-deny'
    const cloud = await startReports('sqlite', aws, ({ policies }) => `web_identity: true, kill_switch: { policies: ${JSON.stringify(policies)}, role: "${deny}" }`)
    const { broker, agent, role, policies } = cloud
    const { grant } = await lend(broker, agent, { ...wish, task: 'ticket-7' })
    const [asked = {}] = aws.calls('AssumeRoleWithWebIdentity')
    expect(asked).toMatchObject({ RoleArn: role, RoleSessionName: grant })
    const { payload, protectedHeader } = await jwtVerify(String(asked['WebIdentityToken']), await keysOf(broker), { issuer, audience: 'sts.amazonaws.com', subject: 'tool:reports', typ: 'JWT', currentDate: new Date(broker.clock.nowMs()) })
    expect(protectedHeader.alg).toBe('ES256')
    expect(payload).toMatchObject({
      'https://aws.amazon.com/source_identity': grant,
      'https://aws.amazon.com/tags': { principal_tags: { 'stint:workload': ['bot'], 'stint:owner': ['support'], 'stint:task': ['ticket-7'] } },
    })

    const ended = (await call(broker, agent, 'DELETE', `/v1/grants/${grant}`)).body
    expect(ended).toMatchObject({ outcome: 'revoked', effect: 'propagating', effective_by: expect.any(String) })
    expect((await call(broker, agent, 'GET', `/v1/grants/${grant}`)).body).toMatchObject({ state: 'revoked', effective_by: ended['effective_by'] })
    expect(await listDenied(cloud, [grant])).toEqual([grant])
    // Whatever else that role may do, the session that writes may write these policies alone.
    const written = aws.calls('AssumeRoleWithWebIdentity').at(-1) ?? {}
    expect(written).toMatchObject({ RoleArn: deny, DurationSeconds: '900', RoleSessionName: expect.stringMatching(/^stint-deny-[a-z0-9]{8}$/) })
    const { Statement } = JSON.parse(String(written['Policy'])) as { readonly Statement: readonly { readonly Effect: string; readonly Action: unknown; readonly Resource: unknown }[] }
    expect(Statement.filter(({ Effect }) => Effect === 'Allow')).toEqual([
      expect.objectContaining({ Action: expect.arrayContaining(['iam:CreatePolicyVersion']), Resource: policies[0] }),
      expect.objectContaining({ Action: ['iam:ListAttachedRolePolicies', 'iam:GetRole'], Resource: role }),
    ])
    for (const { service, headers } of aws.requests) if (service === 'sts') expect(headers).not.toHaveProperty('authorization')
  })

  test('are found sound by a check, with a key and without one', async () => {
    const aws = await start()
    for (const config of [byKeyWithSwitch, ({ policies }: { readonly policies: readonly string[] }) => `web_identity: true, kill_switch: { policies: ${JSON.stringify(policies)}, role: "arn:aws:iam::123456789012:role/stint-deny" }`]) {
      const { broker } = await startReports('sqlite', aws, config)
      const response = await broker.sendAsAdmin('POST', '/v1/tools/reports/check')
      const { ok, findings } = (await response.json()) as { readonly ok: boolean; readonly findings: readonly { readonly sentence: string }[] }
      expect([ok, findings.map(({ sentence }) => sentence).join('\n')]).toEqual([true, expect.stringMatching(/trusts Stint with sessions[\s\S]*The kill switch works/)])
    }
  })
})
