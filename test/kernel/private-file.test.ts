import { execFileSync } from 'node:child_process'
import { chmodSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readPrivateFile } from '../../src/kernel/private-file.ts'
import { createTestFolder } from '../harness.ts'

describe('readPrivateFile', () => {
  it.each([0o600, 0o400, 0o700])('reads a file of mode %o', (mode) => {
    const path = join(createTestFolder(), 'secret')
    writeFileSync(path, 'ä secret', { mode: 0o600 })
    chmodSync(path, mode)
    expect(readPrivateFile(path, 'the file').toString()).toBe('ä secret')
  })

  it.each([0o640, 0o604, 0o620, 0o602, 0o601, 0o610, 0o666])('refuses a file of mode %o, also behind a link', (mode) => {
    const folder = createTestFolder()
    const path = join(folder, 'secret')
    writeFileSync(path, 'hunter2', { mode: 0o600 })
    chmodSync(path, mode)
    symlinkSync(path, join(folder, 'link'))
    for (const name of [path, join(folder, 'link')]) {
      expect(() => readPrivateFile(name, 'the file')).toThrow(`run chmod 600 ${name}`)
    }
  })

  it('refuses what is no regular file, without waiting for it', () => {
    const folder = createTestFolder()
    execFileSync('mkfifo', ['-m', '600', join(folder, 'pipe')])
    for (const name of [folder, join(folder, 'pipe'), '/dev/zero']) {
      expect(() => readPrivateFile(name, 'the file')).toThrow('not a regular file')
    }
  })

  it('reads no more than it should', () => {
    const path = join(createTestFolder(), 'secret')
    writeFileSync(path, 'x'.repeat(64 * 1024 + 1), { mode: 0o600 })
    expect(() => readPrivateFile(path, 'the file')).toThrow('too large')
    // Its size is said to be 0.
    expect(readPrivateFile('/proc/self/environ', 'the file').length).toBeGreaterThan(0)
  })

  it('says what to do about a file that is not there', () => {
    expect(() => readPrivateFile(join(createTestFolder(), 'none'), 'the file')).toThrow('create it, with mode 0600')
  })
})
