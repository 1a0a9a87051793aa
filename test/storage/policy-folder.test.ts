import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { BrokerError } from '../../src/kernel/errors.ts'
import type { PolicyProblem } from '../../src/policy/problem.ts'
import { readPolicyFolder } from '../../src/storage/policy-folder.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'stint-policies-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function put(path: string, content: string | Uint8Array = ''): Promise<void> {
  await mkdir(dirname(join(folder, path)), { recursive: true })
  await writeFile(join(folder, path), content)
}

async function problems(): Promise<string[]> {
  try {
    await readPolicyFolder(folder)
    return []
  } catch (error) {
    if (!(error instanceof BrokerError) || error.code !== 'policy_invalid') throw error
    // Of readPolicyFolder's making.
    const found = (error.extra?.['problems'] ?? []) as PolicyProblem[]
    return found.map(({ file, message }) => `${file} ${message}`)
  }
}

test('reads rules at any depth, tools and tests, in the order of their paths, and leaves notes aside', async () => {
  for (const path of ['z.cedar', 'a/b/c.cedar', 'tools/x.yaml', 'tests/y.yaml', 'A.cedar']) await put(path, `of ${path} ü\r\n`)
  for (const path of ['README.md', 'a/README.md', '.gitignore', '.git/config', 'a/.x.cedar']) await put(path, 'note')
  expect([...(await readPolicyFolder(folder))]).toEqual(
    ['A.cedar', 'a/b/c.cedar', 'tests/y.yaml', 'tools/x.yaml', 'z.cedar'].map((path) => [path, `of ${path} ü\r\n`]),
  )
})

test.each([
  ['tools/x.yml', 'would not be read: rename it to "tools/x.yaml"'],
  ['tests/x.YAML', 'would not be read: rename it to "tests/x.yaml"'],
  ['x.cedar.txt', 'would not be read: rename it to "x.cedar", or remove it'],
  ['x.CEDAR', 'would not be read: rename it to "x.cedar", or remove it'],
  ['x.cedar~', 'would not be read: rules are *.cedar, tools tools/*.yaml, tests tests/*.yaml, notes README.md'],
  ['x.yaml', 'would not be read: move it to tools/ or tests/ as "x.yaml"'],
  ['tools/deep/x.yaml', 'would not be read: move it to tools/ or tests/ as "x.yaml"'],
  ['notes.txt', 'would not be read: rules are *.cedar, tools tools/*.yaml, tests tests/*.yaml, notes README.md'],
])('a file that would silently not count is refused: %s', async (path, message) => {
  await put(path)
  await put('fine.cedar')
  expect(await problems()).toEqual([`${path} ${message}`])
})

test('symbolic links are refused: to files, to folders, out of the folder, to nothing', async () => {
  await put('real.cedar')
  await put('folder/x.cedar')
  await symlink('real.cedar', join(folder, 'file.cedar'))
  await symlink('folder', join(folder, 'link'))
  await symlink('/etc/hostname', join(folder, 'out.cedar'))
  await symlink('/nowhere', join(folder, 'nowhere.cedar'))
  expect(await problems()).toEqual(
    ['file.cedar', 'link', 'nowhere.cedar', 'out.cedar'].map((path) => `${path} is a symbolic link: put the file itself here`),
  )
})

test('a pipe is refused, not waited for', async () => {
  execFileSync('mkfifo', [join(folder, 'x.cedar')])
  expect(await problems()).toEqual(['x.cedar is not a regular file'])
})

test('sizes are bounded by what is read', async () => {
  await put('most.cedar', ' '.repeat(1_048_576))
  expect(await problems()).toEqual([])
  await put('more.cedar', ' '.repeat(1_048_577))
  expect(await problems()).toEqual(['more.cedar is larger than 1048576 bytes: split it'])
})

test('what is not UTF-8 is refused', async () => {
  await put('latin.cedar', Uint8Array.of(0x2f, 0x2f, 0xfc))
  await put('overlong.cedar', Uint8Array.of(0xc0, 0xaf))
  expect(await problems()).toEqual(['latin.cedar is not valid UTF-8 text', 'overlong.cedar is not valid UTF-8 text'])
})

test('a folder that does not exist, or is none, is an error of the configuration', async () => {
  await put('file')
  await expect(readPolicyFolder(join(folder, 'nope'))).rejects.toMatchObject({ code: 'config_invalid', publicMessage: expect.stringContaining('There is no policy folder') })
  await expect(readPolicyFolder(join(folder, 'file'))).rejects.toMatchObject({ code: 'config_invalid', publicMessage: expect.stringContaining('is not a folder') })
})
