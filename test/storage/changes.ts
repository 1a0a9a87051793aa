import type { AuditEvent } from '../../src/audit/event.ts'
import { formatTime } from '../../src/kernel/clock.ts'
import { systemRandom } from '../../src/kernel/ids.ts'
import type { Database } from '../../src/storage/engine.ts'
import type { RowsChange } from '../../src/storage/change.ts'
import { createLedger, type Ledger, type LedgerOptions } from '../../src/storage/ledger.ts'
import { createTestClock, createTestLog, type TestClock } from '../harness.ts'

/** When the tests' clock starts. */
export const startMs = Date.UTC(2026, 0, 15, 12)

/** A ledger under a clock of the test's own, with the lines that it logs. */
export function openLedger(
  database: Database,
  options: Partial<LedgerOptions> = {},
): { ledger: Ledger; clock: TestClock; lines: string[] } {
  const { log, lines } = createTestLog()
  const clock = createTestClock(startMs)
  return { ledger: createLedger({ database, clock, random: systemRandom, log, ...options }), clock, lines }
}

/** An event that needs nothing else. */
export function note(detail = 'a note', workload = 'triage-bot'): AuditEvent {
  return { type: 'grant.refused', actor: { kind: 'workload', id: workload }, workload, code: 'invalid_scope', detail, proof_kid: 'k1' }
}

/** A token for `triage-bot` on `github`, unless said otherwise: the row and its event. */
export function grantChange(id: string, over: { workload?: string; task?: string; expiresAtMs?: number } = {}): RowsChange {
  const { workload = 'triage-bot', task, expiresAtMs = startMs + 600_000 } = over
  const expires = formatTime(expiresAtMs)
  return {
    grant: {
      id,
      workload,
      tool: 'github',
      actions: '["issues.read"]',
      target: null,
      task: task ?? null,
      audience: 'https://api.github.test',
      expires_at: expires,
    },
    events: [
      {
        type: 'grant.issued',
        actor: { kind: 'workload', id: workload },
        workload,
        tool: 'github',
        actions: ['issues.read'],
        ...(task !== undefined && { task }),
        ttl_seconds: 600,
        proof_kid: 'k1',
        grant: id,
        audience: 'https://api.github.test',
        expires_at: expires,
        ends: 'introspection',
        token_kid: 't1',
        decision: {
          verdict: 'allow',
          reasons: ['triage-reads-issues'],
          errors: [],
          policy_set: 'a'.repeat(64),
          cedar_version: '4.13.0',
          input: { principal: workload },
        },
      },
    ],
  }
}

/** The same database, with a count of its write transactions. */
export function countWrites(database: Database): { database: Database; writes: () => number } {
  let writes = 0
  const counted: Database = {
    ...database,
    write: (body) => {
      writes += 1
      return database.write(body)
    },
  }
  return { database: counted, writes: () => writes }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
