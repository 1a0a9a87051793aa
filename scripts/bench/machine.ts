import { cpus, release, totalmem, type } from 'node:os'
import { existsSync, readFileSync, statSync } from 'node:fs'

/** What was measured on. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  /** The file system and the device under the databases, as far as the system tells. */
  readonly disk: string
  readonly node: string
  readonly kernel: string
  /** The load of the machine before the run, by others: above 0.5 the figures are lower than they could be. */
  readonly loadBefore?: number
}

export function describeMachine(folder: string, loadBefore: number | undefined): Machine {
  const all = cpus()
  return {
    cpu: all[0]?.model.trim() ?? 'unknown',
    cores: all.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    disk: describeDisk(folder),
    node: process.version,
    kernel: `${type()} ${release()}`,
    ...(loadBefore !== undefined && { loadBefore }),
  }
}

/** The mount that holds a folder is the one of the same device number. */
function describeDisk(folder: string): string {
  if (!existsSync('/proc/mounts')) return 'unknown'
  const { dev } = statSync(folder)
  for (const line of readFileSync('/proc/mounts', 'utf8').split('\n').toReversed()) {
    const [device = '', mount = '', kind = ''] = line.split(' ')
    if (statSync(mount === '' ? '/nowhere' : mount, { throwIfNoEntry: false })?.dev === dev) return `${kind} on ${device}`
  }
  return 'unknown'
}
