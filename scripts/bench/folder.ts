import { chmodSync, mkdirSync, mkdtempSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './children.ts'

// statfs(2): where a sync writes nothing to any disk.
const inMemory = new Map([
  [0x01021994, 'tmpfs'],
  [0x858458f6, 'ramfs'],
])

/** Makes the folder of one run, on a disk: among the temporary files, or in the checkout where these are kept in memory. Throws where both are. */
export function createBenchFolder(): string {
  const kept = join(root, '.stint')
  const parent = [tmpdir(), kept].find((folder) => {
    mkdirSync(folder, { recursive: true })
    return !inMemory.has(statfsSync(folder).type)
  })
  if (parent === undefined) throw new Error(`${tmpdir()} and ${root} are in memory, where a commit costs nothing: set TMPDIR to a folder on a disk`)
  const folder = mkdtempSync(join(parent, 'stint-bench-'))
  // PostgreSQL, which does not run as root, must be able to walk through.
  chmodSync(folder, 0o711)
  return folder
}
