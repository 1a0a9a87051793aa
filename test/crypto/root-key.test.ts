import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, chown, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createRootKeyFile, readRootKey } from '../../src/crypto/root-key.ts'
import { BrokerError } from '../../src/kernel/errors.ts'

const key = randomBytes(32)
let folder = ''
let files = 0

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'stint-root-key-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function writeKey(content: string | Buffer, mode = 0o600): Promise<string> {
  const path = join(folder, `key-${files++}`)
  await writeFile(path, content)
  await chmod(path, mode)
  return path
}

async function refusalOf(reading: Promise<unknown>): Promise<string> {
  try {
    await reading
  } catch (error) {
    if (error instanceof BrokerError && error.code === 'config_invalid') return error.message
    throw error
  }
  return 'accepted'
}

const forms: [string, string | Buffer][] = [
  ['hex', key.toString('hex')],
  ['hex in upper case', key.toString('hex').toUpperCase()],
  ['base64', key.toString('base64')],
  ['base64 without padding', key.toString('base64').slice(0, -1)],
  ['base64url', key.toString('base64url')],
  ['a line', `${key.toString('base64url')}\n`],
  ['a line of Windows', `${key.toString('base64')}\r\n`],
]

describe('reads the root key', () => {
  test.each(forms)('from a file as %s', async (_name, content) => {
    expect(Buffer.from(await readRootKey({ file: await writeKey(content) }, {}))).toEqual(key)
  })

  test.each(forms)('from the environment as %s', async (_name, content) => {
    expect(Buffer.from(await readRootKey({ env: 'ROOT_KEY' }, { ROOT_KEY: String(content) }))).toEqual(key)
  })

  test('from a file as raw bytes', async () => {
    expect(Buffer.from(await readRootKey({ file: await writeKey(key) }, {}))).toEqual(key)
  })

  test('from a file that may only be read', async () => {
    expect(Buffer.from(await readRootKey({ file: await writeKey(key, 0o400) }, {}))).toEqual(key)
  })

  test('through a link, as Kubernetes mounts secrets', async () => {
    const link = join(folder, 'link')
    await symlink(await writeKey(key), link)
    expect(Buffer.from(await readRootKey({ file: link }, {}))).toEqual(key)
  })
})

describe('refuses the root key', () => {
  const contents: [string, string | Buffer, RegExp][] = [
    ['that is empty', '', /does not hold 32 random bytes .* openssl rand -base64 32/],
    ['of 31 bytes', randomBytes(31).toString('base64'), /does not hold 32 random bytes/],
    ['of 33 bytes', randomBytes(33).toString('base64'), /does not hold 32 random bytes/],
    ['in two lines', `${key.toString('hex')}\n${key.toString('hex')}`, /does not hold 32 random bytes/],
    ['with something after it', `${key.toString('hex')}${' '.repeat(64)}x`, /does not hold 32 random bytes/],
    ['with unused bits set', `${'A'.repeat(42)}B`, /does not hold 32 random bytes/],
    ['in a mix of alphabets', `-/${'A'.repeat(41)}`, /does not hold 32 random bytes/],
    ['that is all zeros', Buffer.alloc(32), /one byte 32 times/],
    ['that is all zeros in hex', '00'.repeat(32), /one byte 32 times/],
    ['that is a passphrase of 32 letters', 'correct horse battery staple 123', /does not hold 32 random bytes/],
    ['that is a passphrase and a line end', 'correct horse battery staple 12\n', /does not hold 32 random bytes/],
    ['that is 16 bytes in hex', randomBytes(16).toString('hex'), /does not hold 32 random bytes/],
  ]
  test.each(contents)('%s', async (_name, content, message) => {
    expect(await refusalOf(readRootKey({ file: await writeKey(content) }, {}))).toMatch(message)
  })

  test.each([0o644, 0o640, 0o604, 0o660, 0o602, 0o444])('in a file of mode %o, naming the chmod', async (mode) => {
    const path = await writeKey(key, mode)
    const found = mode.toString(8).padStart(4, '0')
    expect(await refusalOf(readRootKey({ file: path }, {}))).toContain(`has mode ${found}`)
    expect(await refusalOf(readRootKey({ file: path }, {}))).toContain(`chmod 600 ${path}`)
  })

  test('behind a link to a file that others can read', async () => {
    const link = join(folder, 'open-link')
    await symlink(await writeKey(key, 0o644), link)
    expect(await refusalOf(readRootKey({ file: link }, {}))).toMatch(/has mode 0644/)
  })

  test.skipIf(process.getuid?.() !== 0)('in a file of another user', async () => {
    const path = await writeKey(key)
    await chown(path, 12_345, 12_345)
    expect(await refusalOf(readRootKey({ file: path }, {}))).toMatch(/belongs to another user/)
  })

  test('in a folder', async () => {
    expect(await refusalOf(readRootKey({ file: folder }, {}))).toMatch(/is not a regular file/)
  })

  test('in a pipe, without waiting for a writer', async () => {
    const path = join(folder, 'pipe')
    execFileSync('mkfifo', ['-m', '600', path])
    expect(await refusalOf(readRootKey({ file: path }, {}))).toMatch(/is not a regular file/)
  })

  test('in a file that is not there', async () => {
    expect(await refusalOf(readRootKey({ file: join(folder, 'none') }, {}))).toMatch(/create it, with mode 0600/)
  })

  const variables: [string, Record<string, string>, RegExp][] = [
    ['absent', {}, /ROOT_KEY is not set/],
    ['empty', { ROOT_KEY: '' }, /ROOT_KEY is not set/],
    ['white space', { ROOT_KEY: ' \n' }, /ROOT_KEY is not set/],
    ['too short', { ROOT_KEY: 'c2hvcnQtc2VjcmV0' }, /ROOT_KEY does not hold 32 random bytes/],
    ['a passphrase of 32 letters', { ROOT_KEY: 'correct-horse-battery-staple-123' }, /does not hold 32 random bytes/],
  ]
  test.each(variables)('in a variable that is %s', async (_name, env, message) => {
    const refusal = await refusalOf(readRootKey({ env: 'ROOT_KEY' }, env))
    expect(refusal).toMatch(message)
    expect(refusal).not.toContain('c2hvcnQ')
  })
})

describe('makes a root key file', () => {
  test('that only its owner can read, whatever the umask, and that reads back', async () => {
    const path = join(folder, 'made')
    const before = process.umask(0)
    const made = await createRootKeyFile(path).finally(() => process.umask(before))
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    expect(made).toHaveLength(32)
    expect(Buffer.from(await readRootKey({ file: path }, {}))).toEqual(Buffer.from(made))
  })

  test('of the bytes that the random source gives', async () => {
    expect(Buffer.from(await createRootKeyFile(join(folder, 'given'), () => key))).toEqual(key)
  })

  test('and never replaces one, nor follows a link that dangles', async () => {
    const path = await writeKey('what was there')
    expect(await refusalOf(createRootKeyFile(path))).toMatch(/exists already and is not replaced/)
    expect(await readFile(path, 'utf8')).toBe('what was there')
    const link = join(folder, 'dangling')
    await symlink(join(folder, 'elsewhere'), link)
    expect(await refusalOf(createRootKeyFile(link))).toMatch(/exists already/)
  })

  test('not in a folder that is not there', async () => {
    expect(await refusalOf(createRootKeyFile(join(folder, 'none', 'key')))).toMatch(/cannot be made \(ENOENT\)/)
  })
})
