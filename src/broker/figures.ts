import { roles } from '../identity/operator.ts'
import { grantStates, isOver } from '../grant/grant.ts'
import { workloadStatuses } from '../identity/workload.ts'
import type { Reading } from '../kernel/meter.ts'
import { countCredentials } from '../storage/credentials.ts'
import { countDenied } from '../storage/deny-lists.ts'
import { countWorkloads } from '../storage/figures.ts'
import { readHead } from '../storage/head.ts'
import { countActiveOperators } from '../storage/operators.ts'
import { listRotations } from '../storage/rotations.ts'
import type { Broker } from './broker.ts'
import { listKeyRotations } from './key-rotations.ts'
import { findMissed } from './rotation-life.ts'

const aheadMs = 14 * 86_400_000

/**
 * What an operator watches of the state of things. Each part is read for itself: one that the database does not answer is
 * left out, and the others are told.
 */
export async function readFigures(broker: Broker): Promise<Reading[]> {
  const { clock, ledger } = broker
  const parts = await Promise.allSettled([readState(broker), readWorkloads(broker), readCredentials(broker), readDenials(broker), readOperators(broker), readRotations(broker)])
  return [
    { name: 'log_halted', labels: {}, value: ledger.halted === undefined ? 0 : 1 },
    { name: 'log_writable', labels: {}, value: ledger.halted === undefined && !ledger.failing ? 1 : 0 },
    { name: 'clock_behind_seconds', labels: {}, value: (ledger.nowMs() - clock.nowMs()) / 1000 },
    { name: 'database_answers', labels: {}, value: parts.every(({ status }) => status === 'fulfilled') ? 1 : 0 },
    ...readAnchors(broker),
    ...parts.flatMap((part) => (part.status === 'fulfilled' ? part.value : [])),
  ]
}

type Source = Pick<Broker, 'database' | 'knowledge' | 'ledger' | 'tools'>

async function readState({ database, knowledge, ledger }: Source): Promise<Reading[]> {
  const { size, epoch } = await readHead(database.read)
  const { policySet, policyInForce } = await knowledge.refresh()
  return [
    { name: 'epoch', labels: {}, value: epoch },
    { name: 'log_entries', labels: {}, value: size },
    { name: 'policies', labels: {}, value: policySet?.policies.length ?? 0 },
    { name: 'tools', labels: {}, value: policySet?.catalog.size ?? 0 },
    ...(policyInForce === undefined
      ? []
      : [{ name: 'policy_set_age_seconds', labels: {}, value: (ledger.nowMs() - policyInForce.sinceMs) / 1000 } as const]),
  ]
}

async function readWorkloads({ database, ledger }: Source): Promise<Reading[]> {
  const counted = await countWorkloads(database.read, ledger.nowMs(), ledger.nowMs() + aheadMs)
  const of = (status: string) => counted.find((one) => one.status === status)
  return [
    ...workloadStatuses.map((status) => ({ name: 'workloads', labels: { status }, value: of(status)?.count ?? 0 }) as const),
    { name: 'reviews_due', labels: {}, value: of('active')?.due ?? 0 },
    { name: 'reviews_overdue', labels: {}, value: (of('active')?.overdue ?? 0) + (of('suspended')?.overdue ?? 0) },
  ]
}

const lateMs = 60_000

async function readCredentials({ database, ledger }: Source): Promise<Reading[]> {
  const counted = await countCredentials(database.read, ledger.nowMs() - lateMs)
  const open = grantStates.filter((state) => !isOver(state))
  return [
    ...open.map((state) => ({ name: 'credentials', labels: { state }, value: counted.find((one) => one.state === state)?.count ?? 0 }) as const),
    { name: 'credentials_overdue', labels: {}, value: counted.reduce((sum, { late }) => sum + late, 0) },
  ]
}

async function readDenials({ database, knowledge, ledger, tools }: Source): Promise<Reading[]> {
  const counted = await countDenied(database.read, ledger.nowMs())
  const { policySet } = await knowledge.refresh()
  return counted.flatMap(({ list, tool: name, denied }): Reading[] => {
    const tool = policySet?.catalog.get(name)
    const denying = tool && tools.isOutside(tool) ? tools.findDenying(tool) : undefined
    const labels = { tool: name }
    return [{ name: 'denials', labels, value: denied }, ...(denying?.list === list ? [{ name: 'denials_max', labels, value: denying.grantsMax } as const] : [])]
  })
}

/** Of several anchors of a kind, the one that is furthest behind. */
function readAnchors({ anchoring }: Pick<Broker, 'anchoring'>): Reading[] {
  const byKind = Map.groupBy(anchoring.listStates(), ({ kind }) => kind)
  return [...byKind].map(([kind, states]) => ({ name: 'anchor_behind_entries', labels: { kind }, value: Math.max(...states.map(({ behindEntries }) => behindEntries)) }))
}

async function readOperators({ database, ledger }: Source): Promise<Reading[]> {
  const counts = await countActiveOperators(database.read, ledger.nowMs(), ledger.nowMs() + aheadMs)
  return roles.flatMap((role): Reading[] => [
    { name: 'operators', labels: { role }, value: counts[role].active },
    { name: 'operators_expiring', labels: { role }, value: counts[role].expiring },
  ])
}

/** What has never run and is not due shows as well: an alarm needs a first value that is not yet the fault. */
async function readRotations(broker: Broker): Promise<Reading[]> {
  const nowMs = broker.ledger.nowMs()
  const secrets = (await listRotations(broker.database.read)).filter(({ tool }) => tool !== undefined)
  const keys = await listKeyRotations(broker)
  return [
    ...secrets.flatMap((row): Reading[] => [
      { name: 'rotations_overdue', labels: { rotation: row.name }, value: findMissed(row, nowMs) === undefined ? 0 : 1 },
      { name: 'rotations_failed', labels: { rotation: row.name }, value: row.failures > 0 ? 1 : 0 },
    ]),
    ...keys.map(({ name, overdue }) => ({ name: 'rotations_overdue', labels: { rotation: name }, value: overdue ? 1 : 0 }) as const),
  ]
}
