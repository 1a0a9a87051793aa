import { IAMClient } from '@aws-sdk/client-iam'
import { GenerateDataKeyCommand, KMSClient } from '@aws-sdk/client-kms'
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts'
import { afterEach, expect, test } from 'vitest'
import { askAws, locateAws, openAws, type AwsService } from '../../src/connectors/aws-client.ts'
import { explainAwsFailure, readAwsRefusal } from '../../src/connectors/aws-failure.ts'
import { ConnectorError } from '../../src/connectors/connector.ts'
import { describeAws, rootCredentials, useAws } from '../aws/moto.ts'

const key = { accessKeyId: rootCredentials.AccessKeyId, secretAccessKey: rootCredentials.SecretAccessKey }
const regions = ['eu-west-1', 'us-east-1', 'ap-southeast-7', 'il-central-1', 'cn-north-1', 'cn-northwest-1', 'us-gov-west-1', 'us-gov-east-1', 'eusc-de-east-1']

/** What the SDK itself would call. */
function locateBySdk(service: AwsService, region: string): { readonly endpoint: string; readonly region: string } {
  const parameters = { Region: region, UseFIPS: false, UseDualStack: false }
  const options = { region, credentials: key }
  const found =
    service === 'sts' ? new STSClient(options).config.endpointProvider({ ...parameters, UseGlobalEndpoint: false })
    : service === 'iam' ? new IAMClient(options).config.endpointProvider(parameters)
    : service === 'kms' ? new KMSClient(options).config.endpointProvider(parameters)
    : new SecretsManagerClient(options).config.endpointProvider(parameters)
  const [scheme] = (found.properties?.['authSchemes'] ?? []) as readonly { readonly signingRegion?: string }[]
  return { endpoint: found.url.origin, region: scheme?.signingRegion ?? region }
}

test.each((['sts', 'iam', 'kms', 'secretsmanager'] as const).flatMap((service) => regions.map((region) => [service, region] as const)))('finds %s of %s where the SDK does', (service, region) => {
  expect(locateAws(service, { region })).toEqual(locateBySdk(service, region))
})

test('calls an emulator in place of AWS, and signs for the region that the service has', () => {
  expect(locateAws('iam', { region: 'eu-west-1', endpoint: 'http://127.0.0.1:5000' })).toEqual({ endpoint: 'http://127.0.0.1:5000', region: 'us-east-1' })
})

describeAws('calls to AWS', () => {
  const start = useAws()
  afterEach(async () => (await start()).mend())
  const ask = async (access: ReturnType<typeof openAws>, signal = AbortSignal.timeout(10_000)) => {
    const client = new STSClient(access.settings('sts', key))
    return askAws(signal, (options) => client.send(new GetCallerIdentityCommand({}), options))
  }

  test('go out by the rules for all calls: to no other host, and not into a private network unless that is said', async () => {
    const { url } = await start()
    const place = { region: 'eu-west-1', endpoint: url, private_network: true }
    const open = openAws(place, ['sts'])
    expect((await ask(open)).Account).toBe('123456789012')
    await expect(ask(openAws({ ...place, private_network: false }, ['sts']))).rejects.toMatchObject({ name: 'ConnectorError', outcome: 'nothing_done', message: expect.stringMatching(/must be called by https/) })
    const other = { ...open.settings('kms', key), endpoint: 'https://kms.eu-west-1.amazonaws.com' }
    await expect(new KMSClient(other).send(new GenerateDataKeyCommand({ KeyId: 'x', KeySpec: 'AES_256' }))).rejects.toMatchObject({ outcome: 'nothing_done', message: expect.stringMatching(/not one that the tool's catalog file names/) })
    await open.close()
  })

  test('follow no redirect and take no answer that is too large', async () => {
    const aws = await start()
    const access = openAws({ region: 'eu-west-1', endpoint: aws.url, private_network: true }, ['sts'])
    aws.fail('GetCallerIdentity', { status: 302, headers: { location: 'http://127.0.0.1:1/' } })
    await expect(ask(access)).rejects.toMatchObject({ outcome: 'unknown', message: expect.stringMatching(/elsewhere/) })
    aws.mend()
    aws.fail('GetCallerIdentity', { status: 200, body: 'x'.repeat(2 * 1024 * 1024) })
    await expect(ask(access)).rejects.toMatchObject({ outcome: 'unknown', message: expect.stringMatching(/more than/) })
    await access.close()
  })

  test('are over when their time is, and leave nothing open that only reads', async () => {
    const aws = await start()
    const access = openAws({ region: 'eu-west-1', endpoint: aws.url, private_network: true }, ['sts'])
    aws.fail('GetCallerIdentity', { delayMs: 3_000 })
    const began = performance.now()
    const error = await ask(access, AbortSignal.timeout(200)).then(() => expect.unreachable(), (reason: unknown) => reason)
    expect(performance.now() - began).toBeLessThan(2_000)
    expect(readAwsRefusal(error)).toBeUndefined()
    const call = { what: 'something', right: 'x:Y' }
    expect(explainAwsFailure(error, call)).toMatchObject({ outcome: 'unknown', publicMessage: 'AWS did not answer in time to something.' })
    expect(explainAwsFailure(error, { ...call, reads: true })).toMatchObject({ outcome: 'nothing_done' })
    await expect(ask(access, AbortSignal.abort())).rejects.toMatchObject({ name: 'AbortError' })
    await access.close()
  })

  test('keep what the transport said of a failure, but for a call that only reads', () => {
    const lost = new ConnectorError({ outcome: 'unknown', publicMessage: 'It broke.', retryAfterSeconds: 3 })
    expect(explainAwsFailure(lost, { what: 'x', right: 'x:Y' })).toBe(lost)
    expect(explainAwsFailure(lost, { what: 'x', right: 'x:Y', reads: true })).toMatchObject({ outcome: 'nothing_done', publicMessage: 'It broke.', retryAfterSeconds: 3 })
  })
})
