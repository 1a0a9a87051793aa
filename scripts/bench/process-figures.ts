import { readFileSync } from 'node:fs'

/** The kernel counts processor time in hundredths of a second for programs, whatever it counts in itself. */
const ticksPerSecond = 100

/** User and system time that a process has taken with all its threads, in microseconds; `undefined` where there is no /proc. */
export function readCpuUs(pid: number): number | undefined {
  const text = readProc(pid, 'stat')
  // Behind the name, which may hold anything: the fields from the third on (proc(5)).
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ')
  const [user, system] = [fields?.[11], fields?.[12]]
  if (user === undefined || system === undefined) return undefined
  return ((Number(user) + Number(system)) / ticksPerSecond) * 1_000_000
}

/** Resident memory in bytes; `undefined` where there is no /proc. */
export function readResidentBytes(pid: number): number | undefined {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readProc(pid, 'status') ?? '') ?? []
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024
}

/** How much of all cores' time was used since the machine started, and how much there was, in microseconds; `undefined` where there is no /proc. */
export function readMachineUs(): { readonly usedUs: number; readonly totalUs: number } | undefined {
  const [, figures = ''] = /^cpu +(.*)$/m.exec(readProc('.', 'stat') ?? '') ?? []
  // user nice system idle iowait irq softirq steal; the last two are counted in the first two already (proc(5)).
  const ticks = figures.split(' ').slice(0, 8).map(Number)
  const totalUs = (ticks.reduce((sum, value) => sum + value, 0) / ticksPerSecond) * 1_000_000
  if (totalUs === 0) return undefined
  return { usedUs: totalUs - (((ticks[3] ?? 0) + (ticks[4] ?? 0)) / ticksPerSecond) * 1_000_000, totalUs }
}

function readProc(pid: number | '.', file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return undefined
  }
}
