import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, inject, onTestFinished, test, vi } from 'vitest'
import type { Engine } from '../../src/storage/engine.ts'
import { createTestFolder } from '../harness.ts'
import { startPostgres } from './postgres.ts'
import { beginTrial } from './trial.ts'

vi.setConfig({ testTimeout: 300_000 })

/** A small disk of one's own, mounted for the test; `undefined` where this user may not mount. */
function mountDisk(megabytes: number): string | undefined {
  const parent = createTestFolder()
  const folder = join(parent, 'disk')
  mkdirSync(folder)
  // PostgreSQL, run by root, has a user of its own.
  chmodSync(parent, 0o711)
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', folder]).status !== 0) return undefined
  onTestFinished(() => void spawnSync('umount', ['--lazy', folder]))
  return folder
}

/** Takes all the room that there is, and gives it back. */
function fillDisk(folder: string): () => void {
  const filler = join(folder, 'filler')
  const { bavail, bsize } = statfsSync(folder)
  const piece = Buffer.alloc(16 * 1024 * 1024)
  try {
    // To the refusal, not to a count of what is free: the broker takes some of it meanwhile.
    for (let i = 0; i <= Math.ceil((bavail * bsize) / piece.length); i++) writeFileSync(`${filler}-${i}`, piece)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error
  }
  return () => spawnSync('sh', ['-c', `rm -f '${filler}'-*`])
}

const engines: readonly (readonly [Engine, number])[] = [['sqlite', 64], ['postgres', 400]]

describe.each(engines)('A disk that is full (%s)', (engine, megabytes) => {
  test('for a while, under load, costs nobody more than that while', async ({ skip }) => {
    const { missing } = inject('postgres')
    if (engine === 'postgres' && missing !== undefined) skip(missing)
    const disk = mountDisk(megabytes) ?? skip('this user may not mount a disk')
    const server = engine === 'postgres' ? await startPostgres(disk) : undefined
    if (server !== undefined) onTestFinished(() => server.end())
    const trial = await beginTrial(engine, { folder: disk, ...(server && { server }), load: { mayFail: true } })
    const { load, book } = trial
    await load.resume()
    await trial.untilTokens(40)
    const makeRoom = fillDisk(disk)
    const { unavailable } = book.counts
    // Into what room the files have left of their own, some is written first.
    await vi.waitFor(() => expect(book.counts.unavailable).toBeGreaterThan(unavailable + 20), { timeout: 120_000, interval: 20 })
    makeRoom()
    // PostgreSQL goes down where it cannot write its own log, and is started by whoever made room.
    await server?.start()
    await trial.untilTokens(40)
    expect(trial.broker.hasEnded()).toBe(false)
    await load.pause()
    await trial.verify(0)
    await trial.broker.stop('SIGKILL')
    await trial.startAgain()
    expect(book.problems).toEqual([])
  })
})
