import { decodeJwt } from 'jose'
import { afterEach, describe, expect, onTestFinished, test } from 'vitest'
import { awsStsConnector } from '../../src/connectors/aws-sts.ts'
import { ConnectorError, type Minted, type MintRequest, type OpenTool, type ToolContext } from '../../src/connectors/connector.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { parseTool, type Tool } from '../../src/policy/catalog.ts'
import { describeAws, queryError, rootCredentials, useAws, type Aws, type AwsFault } from '../aws/moto.ts'
import { createToolContext } from './tool-context.ts'

const role = 'arn:aws:iam::123456789012:role/agents/stint-reports'
const grant = 'grant_01kb2m4c0de0000000000000a1'
const usual = 'credentials: { from: "sealed:aws-root" }'

interface Site {
  readonly open: OpenTool
  readonly tool: Tool
  mint(request?: Partial<MintRequest>): Promise<Minted>
}

function toolOf(url: string, config: string): Tool {
  const parsed = parseTool(
    'tools/reports.yaml',
    `tool: reports
connector: aws-sts
sensitivity: medium
ttl: { default: 15m, max: 2h }
target: { name: prefix, required: true, pattern: ".*" }
actions:
  s3.read:
    statements:
      - { actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/{target}/*"] }
      - { actions: ["s3:ListBucket"], resources: ["arn:aws:s3:::reports"], conditions: { StringLike: { "s3:prefix": ["{target}/*"] } } }
  s3.write: { statements: [{ actions: ["s3:PutObject"], resources: ["arn:aws:s3:::reports/{target}/*"] }] }
config: { role: "${role}", region: eu-west-1, endpoint: "${url}", private_network: true, ${config} }
`,
  )
  if (!('tool' in parsed)) throw new Error(JSON.stringify(parsed.problems))
  return parsed.tool
}

describeAws('aws-sts', () => {
  const start = useAws()
  afterEach(async () => (await start()).mend())

  async function openSite(config = usual, context: Partial<ToolContext> = {}): Promise<Site & { readonly aws: Aws }> {
    const aws = await start()
    const tool = toolOf(aws.url, config)
    const open = awsStsConnector.open(tool, createToolContext({ readSecret: async () => new Secret(JSON.stringify(rootCredentials)), ...context }))
    onTestFinished(() => open.close())
    return {
      aws,
      open,
      tool,
      mint: async ({ actions = actionsOf(tool, 's3.read'), ...request } = {}) => {
        const nowMs = Date.now()
        return open.mint({ grant, workload: 'report-bot', owner: 'analytics', actions, target: '2026', nowMs, expiresAtMs: nowMs + 1_800_500, ...request }, AbortSignal.timeout(15_000))
      },
    }
  }

  const actionsOf = ({ actions }: Tool, ...verbs: readonly string[]) => verbs.map((verb) => actions.get(`reports:${verb}`)).filter((action) => action !== undefined)
  const failure = (minting: Promise<unknown>): Promise<ConnectorError> => minting.then(() => expect.unreachable('it was made'), (error: unknown) => (error instanceof ConnectorError ? error : expect.unreachable(String(error))))
  const last = (aws: Aws, action: string) => aws.calls(action).at(-1) ?? {}

  test('asks for exactly the policy of the request, under the source identity and the tags of its grant', async () => {
    const { aws, mint, tool } = await openSite(`${usual}, external_id: "stint:7"`)
    const minted = await mint({ actions: actionsOf(tool, 's3.write', 's3.read'), target: '2026/q1', task: 'TICKET-7#a' })
    expect(last(aws, 'AssumeRole')).toEqual({
      Action: 'AssumeRole',
      Version: '2011-06-15',
      RoleArn: role,
      RoleSessionName: grant,
      SourceIdentity: grant,
      DurationSeconds: '1800',
      ExternalId: 'stint:7',
      Policy:
        '{"Version":"2012-10-17","Statement":[' +
        '{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::reports/2026/q1/*"},' +
        '{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::reports","Condition":{"StringLike":{"s3:prefix":"2026/q1/*"}}},' +
        '{"Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::reports/2026/q1/*"},' +
        '{"Effect":"Deny","Action":"sts:Assume*","Resource":"*"}]}',
      'Tags.member.1.Key': 'stint:workload',
      'Tags.member.1.Value': 'report-bot',
      'Tags.member.2.Key': 'stint:owner',
      'Tags.member.2.Value': 'analytics',
      'Tags.member.3.Key': 'stint:task',
      // AWS takes no # in a tag.
      'Tags.member.3.Value': 'TICKET-7=23a',
    })
    expect(aws.requests.at(-1)?.headers['authorization']).toMatch(/Credential=AKIAIOSFODNN7EXAMPLE\/\d{8}\/eu-west-1\/sts\/aws4_request/)
    expect(minted.reference).toBe(`arn:aws:sts::123456789012:assumed-role/stint-reports/${grant}`)
  })

  test('gives it as AWS tools take it', async () => {
    const { mint } = await openSite()
    const { credential, environment, diesAtMs, handle } = await mint()
    expect(credential).toEqual({ AccessKeyId: expect.stringMatching(/^ASIA/), SecretAccessKey: expect.any(Secret), SessionToken: expect.any(Secret), Expiration: new Date(diesAtMs ?? 0).toISOString() })
    expect(environment).toEqual({
      AWS_ACCESS_KEY_ID: credential['AccessKeyId'],
      AWS_SECRET_ACCESS_KEY: credential['SecretAccessKey'],
      AWS_SESSION_TOKEN: credential['SessionToken'],
      AWS_REGION: 'eu-west-1',
      AWS_DEFAULT_REGION: 'eu-west-1',
    })
    expect(Math.abs((diesAtMs ?? 0) - Date.now() - 1_800_000)).toBeLessThan(10_000)
    expect(handle).toBeUndefined()
  })

  test('asks for no less than 900 seconds, and tells programs of the end of the grant', async () => {
    const { aws, mint } = await openSite()
    const expiresAtMs = Date.now() + 60_000
    const { credential, diesAtMs } = await mint({ expiresAtMs })
    expect(last(aws, 'AssumeRole')['DurationSeconds']).toBe('900')
    expect(credential['Expiration']).toBe(new Date(expiresAtMs).toISOString())
    expect(diesAtMs).toBeGreaterThan(expiresAtMs + 800_000)
  })

  test('reads the root credential anew for each session, also as aws iam create-access-key prints it', async () => {
    const printed = { AccessKey: { UserName: 'stint', Status: 'Active', CreateDate: '2026-01-15T12:00:00+00:00', AccessKeyId: 'AKIAI44QH8DHBEXAMPLE', SecretAccessKey: 'je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY' } }
    const texts = [JSON.stringify(rootCredentials), JSON.stringify(printed), JSON.stringify({ ...rootCredentials, SessionToken: 'a-session-token-of-its-own' })]
    const { aws, mint } = await openSite(usual, { readSecret: async () => new Secret(texts.shift() ?? '') })
    const used: (string | string[] | undefined)[] = []
    for (let i = 0; i < 3; i++) {
      await mint()
      const { headers } = aws.requests.at(-1) ?? expect.unreachable()
      used.push(/Credential=(\w+)/.exec(headers['authorization'] ?? '')?.[1], headers['x-amz-security-token'])
    }
    expect(used).toEqual(['AKIAIOSFODNN7EXAMPLE', undefined, 'AKIAI44QH8DHBEXAMPLE', undefined, 'AKIAIOSFODNN7EXAMPLE', 'a-session-token-of-its-own'])
  })

  test.each(['', 'AKIAIOSFODNN7EXAMPLE', '{"AccessKeyId":"AKIAIOSFODNN7EXAMPLE"}', JSON.stringify({ ...rootCredentials, Extra: 1 }), JSON.stringify({ ...rootCredentials, SecretAccessKey: 'wJalrXUtnFEMI with a space' })])('says what is wrong with a root credential, and nothing of it: %s', async (text) => {
    const { aws, mint } = await openSite(usual, { readSecret: async () => new Secret(text) })
    const before = aws.requests.length
    const error = await failure(mint())
    expect(error).toMatchObject({ outcome: 'nothing_done', adminMessage: expect.stringMatching(/not JSON with just AccessKeyId, SecretAccessKey/) })
    expect(`${error.stack}${error.publicMessage}`).not.toMatch(/wJalr|AKIAI/)
    expect(aws.requests).toHaveLength(before)
  })

  test('asks for nothing where the session policy would be too long', async () => {
    const { aws, mint, tool } = await openSite()
    const before = aws.requests.length
    const error = await failure(mint({ actions: actionsOf(tool, 's3.read', 's3.write'), target: 'x'.repeat(1_000) }))
    expect(error).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(/^The session policy for s3\.read, s3\.write would have \d{4} characters, and AWS takes 2048: ask for fewer actions/) })
    expect(aws.requests).toHaveLength(before)
  })

  test('proves who it is by a token of its own, and signs nothing with a key', async () => {
    const signed: object[] = []
    const { aws, mint, tool } = await openSite('web_identity: true', {
      readSecret: () => Promise.reject(new Error('there is no key')),
      signWebIdentity: async (identity) => {
        signed.push(identity)
        const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
        return new Secret(`${part({ alg: 'ES256' })}.${part({ sub: identity.subject, ...identity.claims })}.c2ln`)
      },
    })
    const minted = await mint({ task: 'ticket-7' })
    expect(signed).toEqual([
      {
        subject: 'tool:reports',
        audience: 'sts.amazonaws.com',
        seconds: 300,
        claims: {
          'https://aws.amazon.com/tags': { principal_tags: { 'stint:workload': ['report-bot'], 'stint:owner': ['analytics'], 'stint:task': ['ticket-7'] } },
          'https://aws.amazon.com/source_identity': grant,
        },
      },
    ])
    const { WebIdentityToken: token, ...sent } = last(aws, 'AssumeRoleWithWebIdentity')
    expect(sent).toEqual({ Action: 'AssumeRoleWithWebIdentity', Version: '2011-06-15', RoleArn: role, RoleSessionName: grant, DurationSeconds: '1800', Policy: expect.stringContaining('reports/2026/*') })
    expect(decodeJwt(String(token))).toMatchObject({ sub: 'tool:reports' })
    expect(aws.requests.at(-1)?.headers).not.toHaveProperty('authorization')
    expect(minted.reference).toContain(grant)
    expect(tool.config).not.toHaveProperty('credentials')
  })

  test('takes nothing from the AWS configuration of the machine', async ({ onTestFinished }) => {
    const env = { AWS_ACCESS_KEY_ID: 'AKIAFROMTHEMACHINE00', AWS_SECRET_ACCESS_KEY: 'not-this-one-please', AWS_ENDPOINT_URL: 'http://127.0.0.1:1', AWS_ENDPOINT_URL_STS: 'http://127.0.0.1:1', AWS_REGION: 'us-west-2', AWS_USE_FIPS_ENDPOINT: 'true', AWS_MAX_ATTEMPTS: '9', AWS_PROFILE: 'nobody', HTTPS_PROXY: 'http://127.0.0.1:1' }
    const before = { ...process.env }
    Object.assign(process.env, env)
    onTestFinished(() => void (process.env = before))
    const { aws, mint } = await openSite()
    await mint()
    expect(aws.requests.at(-1)?.headers['authorization']).toContain('Credential=AKIAIOSFODNN7EXAMPLE/')
    const web = await openSite('web_identity: true', { signWebIdentity: async () => new Secret('e30.e30.c2ln') })
    await web.mint().catch(() => undefined)
    expect(aws.requests.at(-1)?.headers).not.toHaveProperty('authorization')
  })

  const refused = (code: string, message = 'it says why', status = 400): AwsFault => ({ status, body: queryError(code, message) })
  const unauthorized = (right: string) => refused('AccessDenied', `User: arn:aws:iam::123456789012:user/stint is not authorized to perform: ${right} on resource: ${role}`, 403)

  test.each<[string, AwsFault, RegExp, Partial<ConnectorError>?]>([
    ['a role that does not trust it', unauthorized('sts:AssumeRole'), /^The role stint-reports does not trust Stint with sts:AssumeRole: an admin adds that for Stint's own user or role to the role's trust policy/],
    ['a role that does not trust it with tags', unauthorized('sts:TagSession'), /does not trust Stint with sts:TagSession/],
    ['a role that does not trust it with a source identity', unauthorized('sts:SetSourceIdentity'), /does not trust Stint with sts:SetSourceIdentity/],
    ['a policy that denies it', refused('AccessDenied', `User: x is not authorized to perform: sts:AssumeRole on resource: ${role} with an explicit deny in a service control policy`, 403), /^A policy denies Stint sts:AssumeRole on the role stint-reports/],
    ['a root credential that has expired', refused('ExpiredToken', 'The security token included in the request is expired', 403), /root credential has expired at AWS: an admin puts a fresh one/],
    ['a root credential that was deleted', refused('InvalidClientTokenId', 'The security token included in the request is invalid.', 403), /does not accept the tool's root credential \(InvalidClientTokenId\)/],
    ['a root credential that is wrong', refused('SignatureDoesNotMatch', "The Canonical String for this request should have been 'POST x-amz-security-token:SECRET'", 403), /does not accept the tool's root credential \(SignatureDoesNotMatch\)/],
    ['a clock that is wrong', refused('SignatureDoesNotMatch', 'Signature expired: 20260115T120000Z is now earlier than 20260115T121500Z', 403), /the clock of Stint's machine is wrong/],
    ['a packed policy that is too large', refused('PackedPolicyTooLarge', 'Packed size of session tags consumes 134% of allotted space.'), /session for s3\.read: its session policy and tags are too large once packed\. Ask for fewer actions/],
    ['a policy that AWS does not take', refused('MalformedPolicyDocument'), /does not take the session policy that the tool's catalog file makes\. An admin corrects/],
    ['a role whose sessions are shorter', refused('ValidationError', 'The requested DurationSeconds exceeds the MaxSessionDuration set for this role.'), /for 30m: sessions of the role stint-reports may not last as long.*MaxSessionDuration/],
    ['role chaining', refused('ValidationError', 'The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining'), /an hour is the longest/],
    ['anything else that is not valid', refused('ValidationError', 'SECRET'), /^AWS refuses a session for s3\.read \(ValidationError\)\.$/],
    ['a region that is not active', refused('RegionDisabled', 'STS is not activated', 403), /STS is not active in eu-west-1/],
    ['throttling', { ...refused('Throttling', 'Rate exceeded'), headers: { 'retry-after': '1' } }, /limits how often/, { retryAfterSeconds: 1 }],
  ])('explains %s', async (_, fault, message, more = {}) => {
    const { aws, mint } = await openSite()
    aws.fail('AssumeRole', fault)
    const error = await failure(mint())
    expect(error).toMatchObject({ outcome: 'nothing_done', adminMessage: expect.stringMatching(message), publicMessage: expect.stringMatching(/^[A-Z].+\.$/), ...more })
    const told = `${error.stack}${error.publicMessage}${error.adminMessage}${error.cause instanceof Error ? error.cause.stack : ''}`
    expect(told).not.toMatch(/SECRET|user\/stint|it says why/)
  })

  test.each<[string, AwsFault, RegExp]>([
    ['AWS fails', refused('InternalFailure', 'oops', 500), /does not answer as it should to a session for s3\.read \(500\)/],
    ['a gateway answers', { status: 502, body: '<html>Bad Gateway' }, /\(502\)/],
    ['nothing stands in the answer', { status: 503, body: '' }, /\(503\)/],
    ['the connection breaks beforehand', { cut: 'before' }, /broke before/],
    ['the connection breaks afterwards', { cut: 'after' }, /broke before/],
    ['the connection breaks within the answer', { cut: 'half' }, /broke before/],
    ['the answer is no XML', { status: 200, body: 'no XML at all <' }, /cannot be read \(200\)/],
    ['the answer is empty', { status: 200, body: '' }, /without the credentials/],
    ['there is no secret in the answer', { change: (body) => body.replace(/<SecretAccessKey>.*<\/SecretAccessKey>/, '') }, /without the credentials/],
    ['there is no expiry in the answer', { change: (body) => body.replace(/<Expiration>.*<\/Expiration>/, '') }, /without the credentials/],
    ['the expiry is no time', { change: (body) => body.replace(/<Expiration>.*<\/Expiration>/, '<Expiration>soon</Expiration>') }, /cannot be read|without the credentials/],
    ['the session has expired', { change: (body) => body.replace(/<Expiration>.*<\/Expiration>/, '<Expiration>2020-01-01T00:00:00Z</Expiration>') }, /has expired by Stint's clock/],
    ['the session lives for years', { change: (body) => body.replace(/<Expiration>.*<\/Expiration>/, '<Expiration>2099-01-01T00:00:00Z</Expiration>') }, /lives longer than was asked for/],
    ['the session is of another role', { change: (body) => body.replace('assumed-role/stint-reports/', 'assumed-role/admin/') }, /somebody else/],
    ['the session has another source identity', { change: (body) => body.replace(/<SourceIdentity>[^<]*/, '<SourceIdentity>alice') }, /somebody else/],
    ['the session has no source identity', { change: (body) => body.replace(/<SourceIdentity>.*<\/SourceIdentity>/, '') }, /no source identity/],
  ])('does not know what came of it where %s', async (_, fault, message) => {
    const { aws, mint } = await openSite()
    aws.fail('AssumeRole', fault)
    expect(await failure(mint())).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringMatching(message) })
  })

  test('does not take a session for dead by a clock of AWS that is behind', async () => {
    const { aws, mint } = await openSite()
    const dies = new Date(Math.floor(Date.now() / 1000) * 1000 + 300_000)
    aws.fail('AssumeRole', { change: (body) => body.replace(/<Expiration>.*<\/Expiration>/, `<Expiration>${dies.toISOString()}</Expiration>`) })
    expect(await mint()).toMatchObject({ diesAtMs: expect.toSatisfy((ms: number) => Math.abs(ms - Date.now() - 1_800_000) < 10_000), credential: { Expiration: dies.toISOString() } })
  })

  test('asks once, so that nothing hides what came of it, and ends when its time is over, whatever AWS says', async () => {
    const { aws, open, mint, tool } = await openSite()
    aws.fail('AssumeRole', refused('InternalFailure', 'oops', 500), 2)
    const before = aws.calls('AssumeRole').length
    expect(await failure(mint())).toMatchObject({ outcome: 'unknown' })
    expect(aws.calls('AssumeRole').slice(before)).toHaveLength(1)
    aws.mend()
    aws.fail('AssumeRole', { ...refused('Throttling'), headers: { 'retry-after': '60' } })
    const beganMs = Date.now()
    const request = { grant, workload: 'bot', owner: 'team', actions: actionsOf(tool, 's3.read'), target: 'x', nowMs: beganMs, expiresAtMs: beganMs + 900_000 }
    expect(await failure(open.mint(request, AbortSignal.timeout(700)))).toMatchObject({ outcome: 'nothing_done', retryAfterSeconds: 60 })
    aws.mend()
    aws.fail('AssumeRole', { delayMs: 5_000 }, 1)
    expect(await failure(open.mint(request, AbortSignal.timeout(700)))).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringMatching(/in time/) })
    expect(Date.now() - beganMs).toBeLessThan(4_000)
  })

  test('has done nothing where AWS cannot be reached, or the secret cannot be read', async () => {
    const tool = toolOf('http://127.0.0.1:1', usual)
    const read = async () => new Secret(JSON.stringify(rootCredentials))
    const nowMs = Date.now()
    const request = { grant, workload: 'bot', owner: 'team', actions: actionsOf(tool, 's3.read'), target: 'x', nowMs, expiresAtMs: nowMs + 900_000 }
    const open = awsStsConnector.open(tool, createToolContext({ readSecret: read }))
    expect(await failure(open.mint(request, AbortSignal.timeout(5_000)))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(/cannot be reached/) })
    const missing = new ConnectorError({ outcome: 'nothing_done', publicMessage: 'There is none.' })
    expect(await failure(awsStsConnector.open(tool, createToolContext({ readSecret: () => Promise.reject(missing) })).mint(request, AbortSignal.timeout(5_000)))).toBe(missing)
    await open.close()
  })

  describe('without a kill switch', () => {
    test('promises no more than expiry, and says until when a session lives', async () => {
      let nowMs = Date.now()
      const { open } = await openSite(usual, { nowMs: () => nowMs })
      expect(open).toMatchObject({ effect: 'expiry', undo: { livesSecondsMax: 7_500 } })
      expect([open.denying, open.disable]).toEqual([undefined, undefined])
      const diesAtMs = nowMs + 900_000
      const revoke = () => open.revoke({ grant, diesAtMs }, AbortSignal.timeout(5_000))
      expect(await revoke()).toEqual({ status: 'lives_until', untilMs: diesAtMs })
      nowMs = diesAtMs
      expect(await revoke()).toEqual({ status: 'ended' })
      expect(await open.revoke({ grant }, AbortSignal.timeout(5_000))).toEqual({ status: 'lives_until', untilMs: nowMs + 7_500_000 })
    })
  })

  describe('with a kill switch', () => {
    const config = `${usual}, kill_switch: { policies: ["arn:aws:iam::123456789012:policy/stint-deny-1"], propagation_seconds: 30 }`

    function openWithSwitch(parts: { readonly cutOffMs?: number } = {}) {
      const denied: string[][] = []
      const denyLists: ToolContext['denyLists'] = {
        ...createToolContext().denyLists,
        deny: async (...[, grants]) => {
          denied.push([...grants])
          return []
        },
        findCutOff: async () => parts.cutOffMs,
      }
      return openSite(config, { denyLists }).then((site) => ({ ...site, denied }))
    }

    test('promises what AWS can do, within its delay', async () => {
      const { open } = await openWithSwitch()
      expect(open).toMatchObject({ effect: 'propagating', undo: 'by_grant', delaySeconds: 30, denying: { list: role, secondsMax: 7_500 } })
    })

    test('denies a session by the id of its grant alone, and lets one die that is about to', async () => {
      const { open, denied } = await openWithSwitch()
      const signal = AbortSignal.timeout(5_000)
      expect(await open.revoke({ grant }, signal)).toEqual({ status: 'ended' })
      expect(await open.revoke({ grant: `${grant}b`, diesAtMs: Date.now() + 60_000 }, signal)).toEqual({ status: 'ended' })
      expect(denied).toEqual([[grant], [`${grant}b`]])
      const soonMs = Date.now() + 2_000
      expect(await open.revoke({ grant: 'c', diesAtMs: soonMs }, signal)).toEqual({ status: 'lives_until', untilMs: soonMs })
      expect(await open.revoke({ grant: 'd', diesAtMs: Date.now() - 1 }, signal)).toEqual({ status: 'ended' })
      expect(denied).toHaveLength(2)
      await open.disable?.([{ grant: 'e' }, { grant: 'f' }], signal)
      expect(denied.at(-1)).toEqual(['e', 'f'])
    })

    test('makes nothing while all sessions are cut off', async () => {
      const { aws, mint } = await openWithSwitch({ cutOffMs: Date.now() + 42_000 })
      const before = aws.requests.length
      expect(await failure(mint())).toMatchObject({ outcome: 'nothing_done', retryAfterSeconds: expect.toSatisfy((seconds: number) => seconds >= 40 && seconds <= 42), publicMessage: expect.stringMatching(/cut off/) })
      expect(aws.requests).toHaveLength(before)
      await (await openWithSwitch({ cutOffMs: Date.now() - 1 })).mint()
    })
  })

  describe('a check', () => {
    const sentences = async (open: OpenTool) => (await open.check(AbortSignal.timeout(15_000))).map(({ ok, sentence }) => `${ok ? '+' : '-'} ${sentence}`)

    test('says whose the root credential is, and that the role trusts it for as long as the tool lends', async () => {
      const { aws, open } = await openSite()
      const found = await sentences(open)
      expect(found).toEqual([
        expect.stringMatching(/^\+ AWS \(eu-west-1\) takes the root credential: it is arn:aws:sts::123456789012:user\/moto\.$/),
        expect.stringMatching(/^\+ arn:aws:iam::123456789012:role\/agents\/stint-reports trusts Stint with sessions, their source identity and their tags, for up to 2h\.$/),
        expect.stringMatching(/^\+ There is no kill switch/),
      ])
      // What it opens to see that is denied everything.
      expect(last(aws, 'AssumeRole')).toMatchObject({ RoleSessionName: 'stint-check-abcd1234', SourceIdentity: 'stint-check-abcd1234', DurationSeconds: '7200', Policy: '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}' })
    })

    test("says that the account's own credential is too powerful", async () => {
      const { aws, open } = await openSite()
      aws.fail('GetCallerIdentity', { change: (body) => body.replace(/<Arn>.*<\/Arn>/, '<Arn>arn:aws:iam::123456789012:root</Arn>') })
      expect(await sentences(open)).toContainEqual(expect.stringMatching(/^- The root credential is the account's own/))
    })

    test.each([
      ['GetCallerIdentity', refused('InvalidClientTokenId', 'x', 403), /^- AWS does not accept the tool's root credential/],
      ['AssumeRole', unauthorized('sts:TagSession'), /^- The role stint-reports does not trust Stint with sts:TagSession/],
      ['AssumeRole', unauthorized('sts:SetSourceIdentity'), /^- The role stint-reports does not trust Stint with sts:SetSourceIdentity/],
      ['AssumeRole', { cut: 'before' }, /^- The connection/],
      [
        'AssumeRole',
        refused('ValidationError', 'The requested DurationSeconds exceeds the MaxSessionDuration set for this role.'),
        /^- AWS refuses a session that is denied everything for 2h: .*MaxSessionDuration/,
      ],
    ] satisfies [string, AwsFault, RegExp][])('says what is wrong: %s %j', async (action, fault, sentence) => {
      const { aws, open } = await openSite()
      aws.fail(action, fault)
      expect(await sentences(open)).toContainEqual(expect.stringMatching(sentence))
    })
  })

  test.each<[string, AwsFault, RegExp, number?]>([
    ['a role that does not trust the issuer', refused('AccessDenied', 'Not authorized to perform sts:AssumeRoleWithWebIdentity', 403), /does not trust Stint with sts:AssumeRoleWithWebIdentity: an admin adds that for Stint's issuer to the role's trust policy\.$/],
    ['an issuer that AWS does not know', refused('InvalidIdentityToken', 'No OpenIDConnect provider found in your account for https://stint.test'), /OpenID Connect provider for Stint's issuer with the audience sts\.amazonaws\.com/],
    ['an issuer that AWS cannot reach', refused('IDPCommunicationError'), /could not fetch the keys of Stint's issuer/, 5],
    ['a token that has expired', refused('ExpiredTokenException', 'Token expired'), /the clock of Stint's machine is wrong/],
  ])('explains with a web identity %s', async (_, fault, message, retryAfterSeconds) => {
    const { aws, mint } = await openSite('web_identity: true', { signWebIdentity: async () => new Secret('e30.e30.c2ln') })
    aws.fail('AssumeRoleWithWebIdentity', fault)
    expect(await failure(mint())).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringMatching(message), retryAfterSeconds })
  })
})
