import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { systemRandom } from '../../src/kernel/ids.ts'
import { createLog } from '../../src/kernel/log.ts'
import { createLedger } from '../../src/storage/ledger.ts'
import { migrate } from '../../src/storage/migrate.ts'
import { openSqlite } from '../../src/storage/sqlite.ts'

// A process of its own, for the limit on the size of its files would hit the whole test run. Prints what the ledger answered
// before the limit, under it and after it, whether it then knew that it fails, as soon as it had forgotten marks, and what
// it logged.
const [, , file = ''] = process.argv
const database = openSqlite({ file })
await migrate(database.maintenance, 'sqlite')
const lines: string[] = []
const log = createLog((line) => lines.push(line), 'warn', () => new Date().toISOString())
const ledger = createLedger({ database, clock: { nowMs: () => Date.now() }, random: systemRandom, log })

async function append(detail: string): Promise<string> {
  const actor = { kind: 'stranger' } as const
  const event = { type: 'grant.refused', actor, workload: 'w', code: 'c', detail, proof_kid: 'k' } as const
  return ledger.append({ events: [event] }).then(
    (outcome) => outcome.status,
    (error: unknown) => (error instanceof Error && 'code' in error ? String(error.code) : String(error)),
  )
}

async function findFailing(): Promise<boolean> {
  await ledger.forgetExpiredMarks(10).catch(() => undefined)
  return ledger.failing
}

function limitFileBytes(bytes: number | 'unlimited'): void {
  spawnSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`], { stdio: 'inherit' })
}

const before = await append('before')
const failing = [await findFailing()]
limitFileBytes(statSync(`${file}-wal`).size + 10_000)
const atLimit = [await append('x'.repeat(50_000)), await append('x'.repeat(50_000))]
// Not even into what a failed write has left of the WAL, as a short one still could.
limitFileBytes(0)
failing.push(await findFailing())
limitFileBytes('unlimited')
failing.push(await findFailing())
const after = [await append('after'), await append('after')]
await ledger.close()
await database.close()
process.stdout.write(JSON.stringify([before === 'recorded' ? 1 : 0, atLimit, after, failing, lines.join('')]))
