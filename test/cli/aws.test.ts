import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { awsCli, describeAws, rootCredentials, useAws } from '../aws/moto.ts'
import { policyFiles, startRealBroker, type RealBroker } from '../client/real-broker.ts'
import { runProgram, shellCommand, startProgram, type Ended } from '../program.ts'
import { createFolder, runRecorded, type Recording } from './recorder.ts'

vi.setConfig({ testTimeout: 60_000 })

const account = '123456789012'

interface AwsSite extends RealBroker {
  readonly aws: string
  readonly folder: string
  readonly env: Readonly<Record<string, string>>
  asBot(args: readonly string[]): Promise<Recording>
  grants(): Promise<readonly { readonly grant: string; readonly state: string }[]>
}

describeAws('AWS programs', () => {
  const start = useAws()

  async function startSite(): Promise<AwsSite> {
    const aws = await start()
    const reports = `tool: reports
connector: aws-sts
sensitivity: low
ttl: { default: 30m, max: 1h }
target: { name: prefix, required: true, pattern: "[a-z0-9-]+" }
actions:
  s3.read: { statements: [{ actions: ["s3:GetObject"], resources: ["arn:aws:s3:::reports/{target}/*"] }] }
config:
  role: arn:aws:iam::${account}:role/stint-reports
  region: eu-west-1
  credentials: { from: "env:AWS_ROOT" }
  endpoint: ${aws.url}
  private_network: true
`
    const rule = '@id("support-lends")\npermit (principal in Team::"support", action == Action::"reports:s3.read", resource in Tool::"reports");\n'
    const broker = await startRealBroker({ policies: new Map(Object.entries({ ...policyFiles, 'tools/reports.yaml': reports, 'reports.cedar': rule })), env: { AWS_ROOT: JSON.stringify(rootCredentials) } })
    const folder = createFolder()
    const keyFile = join(folder, 'bot.key')
    const made = await runRecorded(['key', 'create', keyFile])
    const owner = ['--team', 'support', '--contact', 'oncall:support', '--purpose', 'Reads reports', '--environment', 'test']
    const registered = await runRecorded(['workload', 'register', 'bot', ...owner, '--stage', 'pilot', '--review-at', '30d', '--jwks', '-'], { input: made.out, env: { STINT_URL: broker.url, STINT_OPERATOR_TOKEN: broker.operator } })
    if (registered.code !== 0) throw new Error(registered.err)
    const env = { STINT_URL: broker.url, STINT_WORKLOAD: 'bot', STINT_KEY_FILE: keyFile }
    return {
      ...broker,
      aws: aws.url,
      folder,
      env,
      asBot: (args) => runRecorded(args, { env }),
      grants: async () => (await broker.admin.listGrants({ tool: 'reports' })).grants,
    }
  }

  /** The AWS CLI as it is, with nothing of this machine's own configuration. */
  async function runAws({ folder, env, aws }: AwsSite, args: readonly string[], more: Readonly<Record<string, string>> = {}): Promise<Ended> {
    const child = spawn(awsCli, ['--endpoint-url', aws, '--output', 'json', ...args], {
      cwd: folder,
      env: { PATH: process.env['PATH'], HOME: folder, AWS_CONFIG_FILE: join(folder, 'config'), AWS_EC2_METADATA_DISABLED: 'true', ...env, ...more },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const [out, err, [code, signal]] = await Promise.all([child.stdout.toArray(), child.stderr.toArray(), once(child, 'close')])
    return { code, signal, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }
  }

  test('take the output of credential-process by its form, and nothing else stands in it', async () => {
    const { asBot, grants, admin } = await startSite()
    const { code, out, err } = await asBot(['aws', 'credential-process', 'reports', 's3.read', '--target', '2026', '--task', 'nightly', '--reason', 'a report', '--ttl', '20m'])
    expect([code, err]).toEqual([0, ''])
    const printed = JSON.parse(out)
    expect(printed).toEqual({ Version: 1, AccessKeyId: expect.stringMatching(/^ASIA/), SecretAccessKey: expect.any(String), SessionToken: expect.any(String), Expiration: expect.stringMatching(/^20.*Z$/) })
    expect(Math.abs(Date.parse(printed.Expiration) - Date.now() - 1_200_000)).toBeLessThan(20_000)
    const [lent] = await grants()
    expect(await admin.listGrants({ tool: 'reports' })).toMatchObject({ grants: [{ state: 'active', task: 'nightly', target: '2026' }] })
    expect(lent).toMatchObject({ state: 'active' })
  })

  test('get a credential by a profile: the AWS CLI', async () => {
    const site = await startSite()
    writeFileSync(join(site.folder, 'config'), `[profile reports]\nregion = eu-west-1\ncredential_process = ${shellCommand} aws credential-process reports s3.read --target 2026\n`)
    const ran = await runAws(site, ['sts', 'get-caller-identity', '--profile', 'reports'])
    expect(ran).toMatchObject({ code: 0, err: '' })
    const [lent] = await site.grants()
    expect(JSON.parse(ran.out)).toMatchObject({ Account: account, Arn: `arn:aws:sts::${account}:assumed-role/stint-reports/${lent?.grant}` })
  })

  test('are told by the AWS CLI why there is none', async () => {
    const site = await startSite()
    writeFileSync(join(site.folder, 'config'), `[profile reports]\nregion = eu-west-1\ncredential_process = ${shellCommand} aws credential-process reports s3.read --target "*"\n`)
    const ran = await runAws(site, ['sts', 'get-caller-identity', '--profile', 'reports'])
    expect(ran.code).not.toBe(0)
    expect(ran.err).toMatch(/takes no wildcards in a target/)
    expect(await site.grants()).toEqual([])
  })

  test('get a credential by their environment, and it is given back: the AWS CLI and an SDK', async () => {
    const site = await startSite()
    const surroundings = { cwd: site.folder, env: { ...site.env, HOME: site.folder, AWS_EC2_METADATA_DISABLED: 'true' } }
    const lend = ['grant', 'reports', 's3.read', '--target', '2026', '--']
    // Each of these would win over what is lent, in one program or another.
    writeFileSync(join(site.folder, 'config'), '[profile other]\nregion = eu-west-1\n')
    writeFileSync(join(site.folder, 'credentials'), '[other]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n')
    const others = { AWS_CONFIG_FILE: join(site.folder, 'config'), AWS_SHARED_CREDENTIALS_FILE: join(site.folder, 'credentials'), AWS_PROFILE: 'other', AWS_DEFAULT_PROFILE: 'other', AWS_SECURITY_TOKEN: 'of-another', AWS_CREDENTIAL_EXPIRATION: '2020-01-01T00:00:00Z' }
    Object.assign(surroundings.env, others)
    const cli = await runProgram([...lend, awsCli, '--endpoint-url', site.aws, '--output', 'json', 'sts', 'get-caller-identity'], surroundings)
    const [first] = await site.grants()
    expect(JSON.parse(cli.out)).toMatchObject({ Arn: `arn:aws:sts::${account}:assumed-role/stint-reports/${first?.grant}` })
    const script = `const { STSClient, GetCallerIdentityCommand } = await import(${JSON.stringify(import.meta.resolve('@aws-sdk/client-sts'))})
      console.log((await new STSClient({ endpoint: ${JSON.stringify(site.aws)} }).send(new GetCallerIdentityCommand({}))).Arn, process.env.STINT_GRANT)`
    const sdk = await startProgram([...lend, process.execPath, '--input-type=module', '-e', script], surroundings).ended
    const [arn, grant] = sdk.out.trim().split(' ')
    expect(arn).toBe(`arn:aws:sts::${account}:assumed-role/stint-reports/${grant}`)
    // Nothing but their own time ends such sessions without a kill switch, and that is said.
    expect(sdk.err).toMatch(/was given back/)
    expect((await site.grants()).map(({ state }) => state)).toEqual(['ending', 'ending'])
  })

  test('are not given what is none of theirs', async () => {
    const { asBot, admin } = await startSite()
    const other = await asBot(['aws', 'credential-process', 'tickets', 'read'])
    expect(other).toMatchObject({ code: 1, out: '' })
    expect(other.err).toMatch(/the tool tickets lends no AWS credential: name one of the kind aws-sts\. It was given back\./)
    expect((await admin.listAudit({})).entries.slice(0, 2).map(({ type }) => type)).toEqual(['grant.revoked', 'grant.issued'])
    expect(await asBot(['aws', 'credential-process', 'reports'])).toMatchObject({ code: 2, out: '', err: expect.stringMatching(/name at least one action of reports: stint aws credential-process reports ACTION/) })
    expect(await asBot(['aws', 'credential-process', '--help'])).toMatchObject({ code: 0, out: expect.stringMatching(/credential_process = /) })
  })
})
