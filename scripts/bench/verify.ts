import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root, type Children } from './children.ts'
import { exchange } from './exchange.ts'
import { readCpuUs, readResidentBytes } from './process-figures.ts'
import type { Subject } from './subject.ts'

/** How fast `stint audit verify` goes over an export. */
export interface VerifierFigures {
  readonly entries: number
  readonly exportSeconds: number
  /** Of the whole run, with the start of the program. */
  readonly seconds: number
  readonly entriesPerSecond: number
  /** By the processor time of all threads; absent where the system does not tell, like the next. */
  readonly entriesPerCoreSecond?: number
  readonly residentBytesMax?: number
}

const program = join(root, 'scripts/stint.mjs')
/** How often the process is looked at: so much of its time may be missed. */
const lookEveryMs = 20

/** Exports the whole log of a broker and verifies the file, by the commands that an auditor runs. Throws where it does not hold. */
export async function measureVerifier(children: Children, folder: string, { servers, log }: Subject): Promise<VerifierFigures> {
  if (log === undefined) throw new Error('there is no log to verify')
  const [file, keyFile, logFile] = [join(folder, 'export.jsonl'), join(folder, 'log.key'), join(folder, 'verify.log')]
  for (const server of servers) server.resume()
  const exportBeganMs = performance.now()
  try {
    writeFileSync(keyFile, (await exchange(`${log.url}/log/key`)).text)
    const env = { STINT_URL: log.url, STINT_OPERATOR_TOKEN: log.credential }
    await children.run({ script: program, args: ['audit', 'export', '--output', file], env, logFile })
  } finally {
    for (const server of servers) server.pause()
  }
  const beganMs = performance.now()
  let cpuUs: number | undefined
  let residentBytesMax: number | undefined
  let timer: NodeJS.Timeout | undefined
  const follow = (pid: number): void => {
    timer = setInterval(() => {
      cpuUs = readCpuUs(pid) ?? cpuUs
      const bytes = readResidentBytes(pid)
      if (bytes !== undefined) residentBytesMax = Math.max(residentBytesMax ?? 0, bytes)
    }, lookEveryMs)
  }
  const start = { script: program, args: ['audit', 'verify', file, '--key', keyFile, '--json'], logFile }
  const verdict = await children.run(start, follow).finally(() => clearInterval(timer))
  const seconds = (performance.now() - beganMs) / 1000
  const [, entries = '0'] = /"entries": ?(\d+)/.exec(verdict) ?? []
  const count = Number(entries)
  assert.ok(count > 0, `the verdict does not tell how many entries it is about: ${verdict.slice(0, 500)}`)
  rmSync(file)
  return {
    entries: count,
    exportSeconds: (beganMs - exportBeganMs) / 1000,
    seconds,
    entriesPerSecond: count / seconds,
    ...(cpuUs !== undefined && cpuUs > 0 && { entriesPerCoreSecond: count / (cpuUs / 1_000_000) }),
    ...(residentBytesMax !== undefined && { residentBytesMax }),
  }
}
