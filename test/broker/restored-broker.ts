import { utimesSync } from 'node:fs'
import { join } from 'node:path'
import { originOf } from '../../src/audit/checkpoint.ts'
import type { Anchor, KeepingAnchor } from '../../src/connectors/anchors/anchor.ts'
import { createFileAnchor } from '../../src/connectors/anchors/file.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { startBroker, trustDomain, type BrokerOptions, type TestBroker } from '../broker.ts'
import { createTestFolder, type TestDatabase } from '../harness.ts'
import { copyDatabase } from '../restored.ts'

/** Lets the jobs run that sign a checkpoint, and then those that keep it. */
export async function runJobs(broker: TestBroker): Promise<void> {
  for (let i = 0; i < 2; i++) {
    broker.clock.advance(1_000)
    await broker.scheduler.tick()
  }
}

export function createAnchorFile(file = join(createTestFolder(), 'checkpoints')): { readonly file: string; readonly anchor: KeepingAnchor } {
  return { file, anchor: createFileAnchor({ file, origin: originOf(trustDomain) }) }
}

/** Another broker on that database, once the first one is closed. */
export async function reopen(engine: Engine, broker: TestBroker, database: TestDatabase, options: BrokerOptions): Promise<TestBroker> {
  return startBroker(engine, { ...options, beside: { ...broker, database } })
}

/**
 * A broker whose database is an older one than its anchors have seen. `before` is in the backup, `lost` came after it; what
 * they return is returned. The anchor's file was last written when the test's clock says so.
 */
export async function restore<B, L>(
  engine: Engine,
  anchors: readonly Anchor[],
  before: (broker: TestBroker) => Promise<B>,
  lost: (broker: TestBroker, before: B) => Promise<L>,
  options: BrokerOptions & { readonly file?: string } = {},
) {
  const { file, ...others } = options
  const first = await startBroker(engine, { ...others, anchors })
  const kept = await before(first)
  await runJobs(first)
  await first.close()
  const backup = await copyDatabase(first.database)
  const second = await reopen(engine, first, first.database, { ...others, anchors })
  const gone = await lost(second, kept)
  await runJobs(second)
  const lostEvents = await second.events()
  await second.close()
  if (file !== undefined) utimesSync(file, first.clock.nowMs() / 1000, first.clock.nowMs() / 1000)
  first.clock.advance(1_000)
  const broker = await reopen(engine, first, backup, { ...others, anchors })
  return { broker, kept, gone, lostEvents, backup }
}
