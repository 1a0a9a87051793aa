import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { signCheckpoint } from '../../../src/audit/checkpoint.ts'
import { AnchorFailure } from '../../../src/connectors/anchors/anchor.ts'
import { createFileAnchor } from '../../../src/connectors/anchors/file.ts'
import { createTestFolder } from '../../harness.ts'

const origin = 'stint.test/log'
const { privateKey } = generateKeyPairSync('ed25519')
const noteOf = (size: number) => signCheckpoint({ origin, size, root: Buffer.alloc(32, size) }, privateKey, Buffer.from('abcd'))

function setUp(content?: string) {
  const file = join(createTestFolder(), 'checkpoints')
  if (content !== undefined) writeFileSync(file, content, { mode: 0o600 })
  return { file, anchor: createFileAnchor({ file, origin }) }
}

describe('A file of checkpoints', () => {
  test('is made with mode 0600, and gives back the newest note to the letter', async () => {
    const { file, anchor } = setUp()
    expect(await anchor.last()).toBeUndefined()
    expect(existsSync(file)).toBe(false)
    await anchor.keep([noteOf(1), noteOf(2)])
    await anchor.keep([noteOf(3)])
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(await anchor.last()).toEqual({ note: noteOf(3), atMs: Math.ceil(statSync(file).mtimeMs) })
    // One after the other, with an empty line between: for people and for `tail -n 5`.
    expect(readFileSync(file, 'utf8')).toBe([noteOf(1), noteOf(2), noteOf(3)].join('\n'))
    expect(readFileSync(file, 'utf8').split('\n').slice(-6).join('\n')).toBe(noteOf(3))
  })

  test('finds the newest in a long file, by its end alone', async () => {
    const { anchor } = setUp()
    await anchor.keep(Array.from({ length: 1_000 }, (_, i) => noteOf(i)))
    expect((await anchor.last())?.note).toBe(noteOf(999))
  })

  test('whose last note was torn at any byte gives the one before, and loses none that was whole', async () => {
    const whole = noteOf(7).length
    for (let cut = 1; cut < whole; cut++) {
      const { file, anchor } = setUp()
      await anchor.keep([noteOf(5), noteOf(6)])
      await anchor.keep([noteOf(7)])
      truncateSync(file, statSync(file).size - cut)
      expect((await anchor.last())?.note, String(cut)).toBe(noteOf(6))
      await anchor.keep([noteOf(8)])
      expect((await anchor.last())?.note, String(cut)).toBe(noteOf(8))
      // And torn again, behind what was mended: the same holds.
      truncateSync(file, statSync(file).size - 1)
      expect((await anchor.last())?.note, String(cut)).toBe(noteOf(6))
      await anchor.keep([noteOf(9)])
      const text = readFileSync(file, 'utf8')
      for (const size of [5, 6, 9]) expect(text).toContain(noteOf(size))
    }
  })

  test('that was torn while its first note was written is as good as new', async () => {
    for (let length = 0; length < noteOf(1).length; length++) {
      const { anchor } = setUp(noteOf(1).slice(0, length))
      expect(await anchor.last(), String(length)).toBeUndefined()
      await anchor.keep([noteOf(2)])
      expect((await anchor.last())?.note, String(length)).toBe(noteOf(2))
    }
    // What a file system may leave of what was not on the disk yet.
    const { anchor } = setUp('\0'.repeat(200))
    expect(await anchor.last()).toBeUndefined()
  })

  test('whose newest note has zeros behind it, as a crash leaves them, gives that note, and goes on', async () => {
    for (const zeros of [1, 5_000, 60_000]) {
      for (const before of [[1], [1, 2]]) {
        const { file, anchor } = setUp(before.map(noteOf).join('\n') + '\0'.repeat(zeros))
        expect((await anchor.last())?.note).toBe(noteOf(before.length))
        await anchor.keep([noteOf(3)])
        expect((await anchor.last())?.note).toBe(noteOf(3))
        // Torn there, it is the one before the zeros again.
        truncateSync(file, statSync(file).size - 1)
        expect((await anchor.last())?.note).toBe(noteOf(before.length))
      }
    }
  })

  test('whose newest note is zeros in its middle gives the one before, and nothing made of what is left of it', async () => {
    for (let from = 1; from < noteOf(7).length; from++) {
      const torn = noteOf(7)
      const { anchor } = setUp(`${noteOf(6)}\n${torn.slice(0, from)}\0\0${torn.slice(from + 2)}`)
      expect((await anchor.last())?.note, String(from)).toBe(noteOf(6))
    }
  })

  test('finds the newest note also where all that was appended behind it at once, by the longest of names, is zeros', async () => {
    const long = `${'x'.repeat(255)}/log`
    const one = signCheckpoint({ origin: long, size: 1e15, root: Buffer.alloc(32, 1) }, privateKey, Buffer.from('abcd'))
    const { file } = setUp(`${one}\n${one}`)
    const anchor = createFileAnchor({ file, origin: long })
    appendFileSync(file, '\0'.repeat(anchor.pieceMax * (one.length + 10)))
    expect((await anchor.last())?.note).toBe(one)
  })

  test('gives what was appended last, be it smaller: so it is once a restored log was accepted', async () => {
    const { anchor } = setUp(`${noteOf(9)}\n${noteOf(4)}`)
    expect((await anchor.last())?.note).toBe(noteOf(4))
  })

  test('is opened anew each time, so that it may be moved away', async () => {
    const { file, anchor } = setUp()
    await anchor.keep([noteOf(1)])
    writeFileSync(file, '')
    expect(await anchor.last()).toBeUndefined()
    await anchor.keep([noteOf(2)])
    expect(readFileSync(file, 'utf8')).toBe(noteOf(2))
  })

  test('may hold the checkpoints of another log: that is for others to judge', async () => {
    const { anchor } = setUp(noteOf(3))
    expect((await anchor.last())?.note).toBe(noteOf(3))
    const other = createFileAnchor({ file: setUp(noteOf(4)).file, origin: 'other.test/log' })
    expect((await other.last())?.note).toBe(noteOf(4))
  })

  test.each([0o602, 0o620, 0o666])('with mode %o, which others can write, is refused', async (mode) => {
    const { file, anchor } = setUp(noteOf(1))
    chmodSync(file, mode)
    await expect(anchor.last()).rejects.toMatchObject({ code: 'config_invalid', message: expect.stringContaining('can be written by others: run chmod 600') })
    await expect(anchor.keep([noteOf(2)])).rejects.toMatchObject({ code: 'config_invalid' })
    expect(readFileSync(file, 'utf8')).toBe(noteOf(1))
  })

  test('may be read by others: it holds no secret', async () => {
    const { file, anchor } = setUp(noteOf(1))
    chmodSync(file, 0o644)
    expect((await anchor.last())?.note).toBe(noteOf(1))
  })

  test.each(['AAAAC3NzaC1lZDI1NTE5\n', 'root:x:0:0:root:/root:/bin/bash\n\nnobody:x\n', '{}', `stint.tes\n`, 'x'.repeat(100_000)])(
    'that holds something else (%#) is refused, and left as it is',
    async (content) => {
      const { file, anchor } = setUp(content)
      await expect(anchor.last()).rejects.toMatchObject({ code: 'config_invalid', message: expect.stringContaining('holds something else') })
      await expect(anchor.keep([noteOf(2)])).rejects.toMatchObject({ code: 'config_invalid' })
      expect(readFileSync(file, 'utf8')).toBe(content)
    },
  )

  test('that is a folder, or has no folder, is refused with what to do', async () => {
    const folder = createTestFolder()
    mkdirSync(join(folder, 'sub'))
    const open = (file: string) => createFileAnchor({ file, origin }).last()
    await expect(open(join(folder, 'sub'))).rejects.toMatchObject({ code: 'config_invalid', message: expect.stringContaining('(EISDIR)') })
    await expect(open(join(folder, 'none', 'file'))).rejects.toMatchObject({ code: 'config_invalid', message: expect.stringContaining(`there is no folder ${join(folder, 'none')}`) })
  })

  test('is not made through a link that leads nowhere', async () => {
    const folder = createTestFolder()
    symlinkSync(join(folder, 'elsewhere'), join(folder, 'link'))
    const anchor = createFileAnchor({ file: join(folder, 'link'), origin })
    await expect(anchor.keep([noteOf(1)])).rejects.toBeInstanceOf(AnchorFailure)
    expect(existsSync(join(folder, 'elsewhere'))).toBe(false)
  })

  test('takes what two processes append in turn', async () => {
    const { file, anchor } = setUp()
    const other = createFileAnchor({ file, origin })
    for (let size = 1; size <= 20; size++) await (size % 2 === 0 ? anchor : other).keep([noteOf(size)])
    expect((await anchor.last())?.note).toBe(noteOf(20))
    expect(readFileSync(file, 'utf8').match(/^—/gm)).toHaveLength(20)
  })
})
