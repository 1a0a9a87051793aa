import { randomBytes } from 'node:crypto'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { createKmsRootKey } from '../../src/crypto/kms-root-key.ts'
import { createRawRootKey, type RootKey } from '../../src/crypto/root-key.ts'
import { importKey } from '../../src/crypto/seal.ts'
import { BrokerError } from '../../src/kernel/errors.ts'
import { describeAws, rootCredentials, useAws, type Aws, type AwsFault } from '../aws/moto.ts'
import { startBroker } from '../broker.ts'
import { describeEngines } from '../harness.ts'
import { listen } from '../listen.ts'
import { lend, openLent } from '../broker/sealed.ts'

const trustDomain = 'stint.test'
const region = 'eu-west-1'
const sealingKey = importKey(randomBytes(32))

beforeEach(() => {
  vi.stubEnv('AWS_ACCESS_KEY_ID', rootCredentials.AccessKeyId)
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', rootCredentials.SecretAccessKey)
  vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true')
  vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', '/dev/null')
  vi.stubEnv('AWS_CONFIG_FILE', '/dev/null')
})

/** A key of the emulator, as a root key. */
async function makeRoot(aws: Aws, more: { readonly timeoutMs?: number } = {}): Promise<RootKey> {
  const { KMSClient, CreateKeyCommand } = await import('@aws-sdk/client-kms')
  const { KeyMetadata } = await new KMSClient({ region, endpoint: aws.url }).send(new CreateKeyCommand({}))
  return createKmsRootKey({ key: KeyMetadata?.Arn ?? '', endpoint: aws.url, trustDomain, ...more })
}

async function refusalOf(working: Promise<unknown>): Promise<string> {
  try {
    await working
  } catch (error) {
    if (error instanceof BrokerError) return `${error.code}: ${error.publicMessage}`
    throw error
  }
  return 'done'
}

/** AWS's refusal, by the JSON protocol. */
const refusal = (code: string, status = 400): AwsFault => ({ status, headers: { 'content-type': 'application/x-amz-json-1.1' }, body: JSON.stringify({ __type: code, message: 'no' }) })

describeAws('A root key of AWS KMS', () => {
  const aws = useAws()

  test('wraps and unwraps a sealing key, by its own ARN and with the encryption context that names what it is', async () => {
    const one = await aws()
    const root = await makeRoot(one)
    const before = one.requests.length
    const wrapped = await root.wrap(sealingKey, 7)
    expect((await root.unwrap(wrapped, 7))?.equals(sealingKey)).toBe(true)
    expect(root.name).toMatch(/^arn:aws:kms:eu-west-1:\d{12}:key\/[\w-]+$/)
    const asked = one.requests.slice(before)
    const EncryptionContext = { stint: 'sealing-key', trust_domain: trustDomain, version: '7' }
    expect(asked.map(({ service, action }) => `${service} ${action}`)).toEqual(['kms Encrypt', 'kms Decrypt'])
    expect(asked[0]?.parameters).toEqual({ KeyId: root.name, Plaintext: sealingKey.export().toString('base64'), EncryptionContext })
    expect(asked[1]?.parameters).toEqual({ KeyId: root.name, CiphertextBlob: Buffer.from(wrapped, 'base64url').toString('base64'), EncryptionContext })
    // In the region that the ARN names, whatever the process's own is.
    expect(asked[0]?.headers.authorization).toContain(`/${region}/kms/aws4_request`)
    expect(Buffer.from(wrapped, 'base64url').includes(sealingKey.export())).toBe(false)
  })

  test('opens nothing that it did not wrap as this version, for this broker', async () => {
    const one = await aws()
    const root = await makeRoot(one)
    const wrapped = await root.wrap(sealingKey, 1)
    expect(await root.unwrap(wrapped, 2)).toBeUndefined()
    expect(await createKmsRootKey({ key: root.name, endpoint: one.url, trustDomain: 'other.test' }).unwrap(wrapped, 1)).toBeUndefined()
    const bytes = Buffer.from(wrapped, 'base64url')
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1)
    expect(await root.unwrap(bytes.toString('base64url'), 1)).toBeUndefined()
    expect(await root.unwrap(await createRawRootKey(randomBytes(32)).wrap(sealingKey, 1), 1)).toBeUndefined()
  })

  test.each<[string, AwsFault]>([
    ['throttles', refusal('ThrottlingException')],
    ['has a key that is not ready', refusal('KeyUnavailableException', 500)],
    ['has an error of its own', refusal('KMSInternalException', 500)],
    ['breaks the connection', { cut: 'before' }],
    ['breaks the answer off', { cut: 'half' }],
    ['answers through something that is not AWS', { status: 502, body: '<html>' }],
  ])('that %s is one to ask again, and AWS is asked three times', async (_name, fault) => {
    const one = await aws()
    const root = await makeRoot(one)
    const wrapped = await root.wrap(sealingKey, 1)
    const before = one.calls('Decrypt').length
    one.fail('Decrypt', fault)
    expect(await refusalOf(root.unwrap(wrapped, 1))).toMatch(/^unavailable: AWS KMS cannot be asked for the root key arn:\S+ at the moment \(\w+\): nothing was changed; try again shortly\.$/)
    expect(one.calls('Decrypt').length - before).toBe(3)
    one.mend()
    // One that comes back in time is not noticed.
    one.fail('Decrypt', fault, 2)
    expect((await root.unwrap(wrapped, 1))?.equals(sealingKey)).toBe(true)
    one.mend()
  }, 60_000)

  test('that is slow is given up in time, and so is one that is not there', async () => {
    const one = await aws()
    const root = await makeRoot(one, { timeoutMs: 1_000 })
    const before = one.calls('Encrypt').length
    one.fail('Encrypt', { delayMs: 15_000 })
    const beganMs = performance.now()
    expect(await refusalOf(root.wrap(sealingKey, 1))).toMatch(/^unavailable: .*TimeoutError/)
    expect(performance.now() - beganMs).toBeLessThan(10_000)
    // Each try by itself: a connection that hangs does not take the time of the next one.
    expect(one.calls('Encrypt').length - before).toBeGreaterThan(1)
    one.mend()
    const gone = createKmsRootKey({ key: root.name, endpoint: 'http://127.0.0.1:9', trustDomain })
    expect(await refusalOf(gone.wrap(sealingKey, 1))).toMatch(/^unavailable: .*\(ECONNREFUSED\)/)
  })

  test.each<[string, AwsFault, RegExp]>([
    ['may not be used', refusal('AccessDeniedException'), /^config_invalid: AWS KMS refuses the root key arn:\S+: the credentials of this process may not use it: allow them kms:Encrypt and kms:Decrypt/],
    ['is disabled', refusal('DisabledException'), /^config_invalid: .* it is disabled: enable it again/],
    ['is to be deleted', refusal('KMSInvalidStateException'), /^config_invalid: .* as when it is to be deleted: cancel that/],
    ['is not there', refusal('NotFoundException'), /^config_invalid: .* there is no such key/],
    ['is asked with expired credentials', refusal('ExpiredTokenException'), /^config_invalid: .* have expired/],
    ['is asked with unknown credentials', refusal('UnrecognizedClientException'), /^config_invalid: .* does not know the credentials/],
    ['is another one in the answer', { change: (body) => body.replace(/:key\/[\w-]+/, ':key/another') }, /^config_invalid: AWS KMS answered for arn:\S+:key\/another where it was asked for arn:/],
  ])('that %s says what to do', async (_name, fault, message) => {
    const one = await aws()
    const root = await makeRoot(one)
    const wrapped = await root.wrap(sealingKey, 1)
    one.fail(/Encrypt|Decrypt/, fault)
    for (const working of [root.wrap(sealingKey, 1), root.unwrap(wrapped, 1)]) expect(await refusalOf(working)).toMatch(message)
    one.mend()
  })

  // The emulator lets keys be used that are disabled or to be deleted: what AWS says of those is in the table above.
  test('that KMS never had is refused as such', async () => {
    const one = await aws()
    const { name } = await makeRoot(one)
    const never = createKmsRootKey({ key: `${name.slice(0, -12)}000000000000`, endpoint: one.url, trustDomain })
    expect(await refusalOf(never.wrap(sealingKey, 1))).toMatch(/^config_invalid: .*there is no such key/)
  })

  test('without credentials says so, and asks nobody', async () => {
    const one = await aws()
    const root = await makeRoot(one)
    vi.stubEnv('AWS_ACCESS_KEY_ID', undefined)
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', undefined)
    const before = one.requests.length
    expect(await refusalOf(root.wrap(sealingKey, 1))).toMatch(/^config_invalid: .*this process has no AWS credentials/)
    expect(one.requests).toHaveLength(before)
  })

  test('takes no answer that is no key', async () => {
    const one = await aws()
    const root = await makeRoot(one)
    const wrapped = await root.wrap(sealingKey, 1)
    one.fail('Decrypt', { change: (body) => body.replace(/"Plaintext": ?"[^"]*"/, '"Plaintext": "c2hvcnQ="') }, 1)
    expect(await root.unwrap(wrapped, 1)).toBeUndefined()
    one.fail('Encrypt', { change: (body) => body.replace(/"CiphertextBlob": ?"[^"]*"/, '"CiphertextBlob": ""') }, 1)
    expect(await refusalOf(root.wrap(sealingKey, 1))).toMatch(/^config_invalid: AWS KMS gave no ciphertext/)
  })
})

describe('A root key of AWS KMS', () => {
  test('asks nobody until it is needed', async () => {
    let asked = 0
    const url = await listen((_request, response) => {
      asked++
      response.end()
    })
    expect(createKmsRootKey({ key: 'arn:aws:kms:eu-west-1:111122223333:key/a', endpoint: url, trustDomain }).name).toBe('arn:aws:kms:eu-west-1:111122223333:key/a')
    expect(asked).toBe(0)
  })
})

describeAws('A broker under a root key of AWS KMS', () => {
  const aws = useAws()

  describeEngines('with its own database', (engine) => {
    test('starts, moves there from a file and back, and makes nothing while KMS is silent', async () => {
      const one = await aws()
      const raw = createRawRootKey(randomBytes(32))
      const kms = await makeRoot(one)
      const first = await startBroker(engine, { rootKey: raw })
      const grant = await lend(first, await first.register('bot'), 'a handle')
      await first.close()

      const moving = await startBroker(engine, { beside: first, rootKey: kms, previousRootKey: raw })
      // Refused while KMS is: nothing moves, and the answer says whether to try again.
      one.fail('Encrypt', refusal('DisabledException'))
      const refused = await moving.sendAsAdmin('POST', '/v1/sealing-keys/rewrap')
      expect([refused.status, await refused.text()]).toEqual([500, expect.stringContaining('it is disabled: enable it again')])
      one.mend()
      one.fail('Decrypt', { cut: 'before' })
      const silent = await moving.sendAsAdmin('POST', '/v1/sealing-keys/rewrap')
      expect([silent.status, await silent.text()]).toEqual([503, expect.stringContaining('AWS KMS cannot be asked for the root key')])
      expect(await rootsOf(moving)).toEqual([raw.name])
      one.mend()
      expect(await (await moving.sendAsAdmin('POST', '/v1/sealing-keys/rewrap')).json()).toMatchObject({ root: kms.name, moved: [1], previous_is_needed: false })
      expect(await moving.lastEvent('key.rewrapped')).toMatchObject({ root: kms.name, versions: [1] })
      expect(await openLent(moving, grant)).toBe('a handle')
      await moving.close()

      const alone = await startBroker(engine, { beside: first, rootKey: kms })
      expect(await openLent(alone, grant)).toBe('a handle')
      // No request asks KMS.
      const asked = one.requests.length
      await alone.sendAsAdmin('PUT', '/v1/secrets/crm', { value: 'x' })
      expect(await openLent(alone, grant)).toBe('a handle')
      expect(one.requests).toHaveLength(asked)
      await alone.close()

      const back = await startBroker(engine, { beside: first, rootKey: raw, previousRootKey: kms })
      expect(await (await back.sendAsAdmin('POST', '/v1/sealing-keys/rewrap')).json()).toMatchObject({ moved: [1], previous_is_needed: false })
      expect([await rootsOf(back), await openLent(back, grant)]).toEqual([[raw.name], 'a handle'])
    }, 60_000)

    test('does not start while KMS is silent, and then does with what was there', async () => {
      const one = await aws()
      const kms = await makeRoot(one)
      const first = await startBroker(engine, { rootKey: kms })
      const grant = await lend(first, await first.register('bot'), 'a handle')
      const before = await first.events()
      await first.close()
      one.fail('Decrypt', refusal('KMSInternalException', 500))
      const database = await first.database.open()
      const starting = startBroker(engine, { beside: { ...first, database: { ...first.database, open: async () => database } }, rootKey: kms })
      expect(await refusalOf(starting)).toMatch(/^unavailable: AWS KMS cannot be asked/)
      await database.close()
      one.mend()
      const again = await startBroker(engine, { beside: first, rootKey: kms })
      expect([await again.events(), await openLent(again, grant)]).toEqual([before, 'a handle'])
    }, 60_000)
  })
})

async function rootsOf({ broker: { database } }: Awaited<ReturnType<typeof startBroker>>) {
  return (await database.read.selectFrom('sealing_key').select('root').execute()).map(({ root }) => root)
}
