import { execFileSync } from 'node:child_process'
import { appendFile, mkdir, mkdtemp, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { BrokerError } from '../../src/kernel/errors.ts'
import type { PolicyProblem } from '../../src/policy/problem.ts'
import { markPolicyFolder, readPolicyFolder } from '../../src/storage/policy-folder.ts'

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

test('a file of 10 MB is refused as too large, and so is a folder of many that are not', async () => {
  await put('huge.cedar', ' '.repeat(10_000_000))
  expect(await problems()).toEqual(['huge.cedar is larger than 1048576 bytes: split it'])
  await rm(join(folder, 'huge.cedar'))
  for (let i = 0; i < 18; i++) await put(`large${String(i).padStart(2, '0')}.cedar`, ' '.repeat(1_000_000))
  expect(await problems()).toEqual(['. the folder holds too many or too large files'])
})

test('links as Kubernetes mounts a ConfigMap are refused, with what to do instead', async () => {
  await put('..2026_01_01/rules.cedar')
  await put('..2026_01_01/tools/x.yaml')
  await symlink('..2026_01_01', join(folder, '..data'))
  await symlink('..data/rules.cedar', join(folder, 'rules.cedar'))
  await symlink('..data/tools', join(folder, 'tools'))
  const message = 'is a link into a mounted volume, such as a ConfigMap: copy the files into a folder of their own, or use `stint policy apply`'
  expect(await problems()).toEqual([`rules.cedar ${message}`, `tools ${message}`])
})

test('the folder itself may be a link, and what it leads to may change from one reading to the next', async () => {
  for (const version of ['one', 'two']) await put(`${version}/rules.cedar`, version)
  const current = join(folder, 'current')
  for (const version of ['one', 'two']) {
    await rm(current, { force: true })
    await symlink(version, current)
    expect([...(await readPolicyFolder(current))]).toEqual([['rules.cedar', version]])
  }
})

// There are so many files before the last one that it is not yet opened when it is changed, and long since listed.
async function changeAfterListing(change: () => Promise<void>): Promise<string[]> {
  for (let i = 0; i < 400; i++) await put(`a${String(i).padStart(3, '0')}.cedar`, '// a')
  const reading = problems()
  await setTimeout(20)
  await change()
  return reading
}

test('a file that becomes a link, after it was listed and before it is opened, is not followed', async () => {
  await put('z.cedar')
  const outside = await mkdtemp(join(tmpdir(), 'stint-outside-'))
  await writeFile(join(outside, 'secret'), 'secret')
  await symlink(join(outside, 'secret'), join(outside, 'link'))
  const found = await changeAfterListing(() => rename(join(outside, 'link'), join(folder, 'z.cedar')))
  expect(found).toEqual(['z.cedar is a symbolic link: put the file itself here'])
  await rm(outside, { recursive: true })
})

test('a folder that becomes a link, after it was listed and before it is entered, is not read', async () => {
  await put('z/rules.cedar')
  const outside = await mkdtemp(join(tmpdir(), 'stint-outside-'))
  await writeFile(join(outside, 'rules.cedar'), 'secret')
  const found = await changeAfterListing(async () => {
    await rename(join(folder, 'z'), join(outside, 'z'))
    await symlink(outside, join(folder, 'z'))
  })
  // What lies beside it there is a folder of the test's own making.
  expect(found).toEqual(['z/rules.cedar was moved while it was read: read the folder again once nothing moves in it', 'z/z/rules.cedar was moved while it was read: read the folder again once nothing moves in it'])
  await rm(outside, { recursive: true })
})

test('a file that grows after it was listed is refused by what is read of it', async () => {
  await put('z.cedar')
  const found = await changeAfterListing(() => appendFile(join(folder, 'z.cedar'), ' '.repeat(2_000_000)))
  expect(found).toEqual(['z.cedar is larger than 1048576 bytes: split it'])
})

test('a file that grows while it is read is never taken in half, and never read without end', async () => {
  const enough = new AbortController()
  const piece = '// grows\n'.repeat(100)
  const writer = (async () => {
    while (!enough.signal.aborted) await appendFile(join(folder, 'z.cedar'), piece)
  })()
  await put('z.cedar')
  const outcomes = new Set<string>()
  for (let i = 0; i < 30; i++) {
    const outcome = await readPolicyFolder(folder).then((files) => files.get('z.cedar') ?? '', (error: unknown) => (error instanceof BrokerError ? error : Promise.reject(error)))
    if (typeof outcome === 'string') expect(outcome).toBe(piece.repeat(outcome.length / piece.length))
    outcomes.add(typeof outcome === 'string' ? 'taken' : outcome.publicMessage.replace(/.*z\.cedar:1:1 /, ''))
  }
  enough.abort()
  await writer
  const known = ['taken', 'was written to while it was read: read the folder again once that is done', 'is larger than 1048576 bytes: split it']
  for (const outcome of outcomes) expect(known).toContain(outcome)
})

test('a file that goes after it was listed is told', async () => {
  await put('z.cedar')
  expect(await changeAfterListing(() => rm(join(folder, 'z.cedar')))).toEqual(['z.cedar cannot be read (ENOENT)'])
})

test('the mark of a folder changes with whatever changes in it, and with nothing else', async () => {
  await put('rules.cedar', 'x')
  await put('tools/a.yaml', 'x')
  const marks = [await markPolicyFolder(folder)]
  const changes: readonly (readonly [string, () => Promise<unknown>])[] = [
    ['an edit', () => put('rules.cedar', 'y')],
    ['a new file', () => put('more.cedar')],
    ['a new file within', () => put('tools/b.yaml')],
    ['another name', () => rename(join(folder, 'more.cedar'), join(folder, 'less.cedar'))],
    ['another file under its name', async () => {
      await put('.new', 'z')
      await utimes(join(folder, '.new'), 1, 1)
      await rename(join(folder, '.new'), join(folder, 'rules.cedar'))
    }],
    ['one file less', () => rm(join(folder, 'less.cedar'))],
    ['a link', () => symlink('rules.cedar', join(folder, 'link.cedar'))],
    ['no folder any more', () => rm(folder, { recursive: true })],
  ]
  for (const [what, change] of changes) {
    expect([what, await markPolicyFolder(folder)]).toEqual([what, marks.at(-1)])
    await change()
    marks.push(await markPolicyFolder(folder))
  }
  expect(new Set(marks).size).toBe(changes.length + 1)
  await mkdir(folder)
})
