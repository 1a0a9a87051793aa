import { vi } from 'vitest'
import type { Connector, RotatableSecret, SecretVersion } from '../../src/connectors/connector.ts'
import { ConnectorError } from '../../src/connectors/connector.ts'
import type { Engine } from '../../src/storage/engine.ts'
import { findRotation, type StoredRotation } from '../../src/storage/rotations.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { dayMs, startBroker, type BrokerOptions, type TestAgent, type TestBroker } from '../broker.ts'

/** The system behind a secret: what it keeps, what it was asked, and how it is to fail. */
export interface Vault {
  /** Each call, as `set 5f0c…`; the run's id as it was given. */
  readonly calls: string[]
  current: (SecretVersion & { readonly rotation?: string; readonly replaced?: string }) | undefined
  pending: { readonly version: string; readonly rotation: string } | undefined
  /** Versions that the system accepts. */
  readonly accepted: Set<string>
  /** Versions that opened nothing any more, with whether what they held open was cut. */
  readonly retired: Map<string, boolean>
  foreign: string | undefined
  /** What the test step finds wrong. */
  wrong: string | undefined
  /** Called at each step; may throw, or wait. */
  onCall: ((step: string) => Promise<void> | void) | undefined
  /** Called when a grant ends; may say that it waits, whatever is there. */
  onRevoke: (() => Promise<'waits' | undefined>) | undefined
  everySeconds: number
  /** The pending version is in force from then on. */
  promote(sinceMs: number): void
  /** What somebody puts in force by hand. */
  put(version: string, sinceMs: number): void
}

export function createVault(sinceMs: number): Vault {
  return {
    calls: [],
    current: { version: 'v1', sinceMs },
    pending: undefined,
    accepted: new Set(['v1']),
    retired: new Map(),
    foreign: undefined,
    wrong: undefined,
    onCall: undefined,
    onRevoke: undefined,
    everySeconds: 30 * 86_400,
    promote(sinceMs) {
      if (this.pending === undefined) return
      this.current = { ...this.pending, sinceMs, ...(this.current && { replaced: this.current.version }) }
      this.pending = undefined
    },
    put(version, sinceMs) {
      this.accepted.add(version)
      this.current = { version, sinceMs }
      this.pending = undefined
    },
  }
}

/** Refused; nothing was done. */
export const refused = (publicMessage = 'The vault refuses.') => new ConnectorError({ outcome: 'nothing_done', publicMessage })
/** The answer was lost. */
export const lost = () => new ConnectorError({ outcome: 'unknown', publicMessage: 'The vault did not answer.' })

/** Lends the current version of a vault, and rotates it by steps that may each be repeated. */
export function createVaultConnector(vaultOf: (tool: string) => Vault, nowMs: () => number): Connector {
  return {
    kind: 'sealed-secret',
    open(tool) {
      const vault = vaultOf(tool.name)
      let made = 1
      async function call(step: string, rotation?: string): Promise<void> {
        vault.calls.push(rotation === undefined ? step : `${step} ${rotation}`)
        await vault.onCall?.(step)
      }
      const rotation: RotatableSecret = {
        everySeconds: vault.everySeconds,
        async look() {
          await call('look')
          return { ...(vault.current && { current: vault.current }), ...(vault.foreign !== undefined && { foreign: vault.foreign }) }
        },
        async create(id) {
          await call('create', id)
          if (vault.pending?.rotation === id || vault.current?.rotation === id) return
          if (vault.pending !== undefined) throw refused('Another run is pending.')
          vault.pending = { rotation: id, version: `v${++made}` }
        },
        async set(id) {
          await call('set', id)
          if (vault.pending?.rotation === id) vault.accepted.add(vault.pending.version)
        },
        async test(id) {
          await call('test', id)
          return vault.wrong === undefined ? { ok: true } : { ok: false, why: vault.wrong }
        },
        async finish(id) {
          await call('finish', id)
          if (vault.current?.rotation !== id) {
            if (vault.pending?.rotation !== id) throw refused('Another value was put in force meanwhile.')
            vault.promote(nowMs())
          }
          const { version, replaced } = vault.current ?? { version: '' }
          return { version, ...(replaced !== undefined && { replaced }) }
        },
        async abandon(id) {
          await call('abandon', id)
          if (vault.pending?.rotation === id) vault.pending = undefined
        },
        async retire(version, { cutOff }) {
          await call(`retire ${version}`)
          vault.accepted.delete(version)
          vault.retired.set(version, cutOff)
        },
      }
      const config = tool.config as { readonly env?: unknown }
      return {
        effect: 'propagating',
        undo: 'by_grant',
        ...(config.env !== 'BY_HAND' && { rotation }),
        async mint() {
          const { version = '' } = vault.current ?? {}
          return { credential: { value: new Secret(`value-${version}`), version }, environment: {}, reference: `${tool.name}/${version}` }
        },
        async revoke({ reference }) {
          const version = reference?.split('/').at(-1)
          const early = await vault.onRevoke?.()
          if (early === undefined && (version === undefined || !vault.accepted.has(version))) return { status: 'ended' }
          return { status: 'waits', why: 'It is good until it is replaced.', nextAtMs: nowMs() + 600_000 }
        },
        check: async () => [],
        close: async () => undefined,
      }
    },
  }
}

const toolFile = (tool: string, env: string, ttlMax: string) => `tool: ${tool}
connector: sealed-secret
sensitivity: low
ttl: { default: 10m, max: ${ttlMax} }
actions: { use: {} }
config: { secret: ${tool}, env: ${env} }
`

/** The catalog with these tools, whose secret Stint replaces, and those, whose secret it does not. */
export function writePolicies(rotated: readonly string[], byHand: readonly string[] = [], ttlMax = '1h'): ReadonlyMap<string, string> {
  return new Map([
    ['rules.cedar', '@id("support-works")\npermit (principal in Team::"support", action, resource);\n'],
    ['tools/tickets.yaml', 'tool: tickets\nconnector: jwt\naudience: https://tickets.test\nsensitivity: low\nttl: { default: 10m, max: 1h }\nactions: { read: {} }\n'],
    ...rotated.map((tool) => [`tools/${tool}.yaml`, toolFile(tool, 'ROTATED', ttlMax)] as const),
    ...byHand.map((tool) => [`tools/${tool}.yaml`, toolFile(tool, 'BY_HAND', ttlMax)] as const),
  ])
}

/** A broker that replaces the secret of the tool `billing`, which is a minute old. */
export interface Rotating {
  readonly broker: TestBroker
  readonly agent: TestAgent
  readonly vault: Vault
  readonly vaultOf: (tool: string) => Vault
  readonly options: Pick<BrokerOptions, 'connectors'>
}

export async function startRotating(engine: Engine, { rotated = ['billing'], ...options }: Pick<BrokerOptions, 'pass' | 'policies'> & { readonly rotated?: readonly string[] } = {}): Promise<Rotating> {
  const vaults = new Map<string, Vault>()
  // The broker's own clock, as soon as there is one.
  let nowMs = () => Date.UTC(2026, 0, 15, 12)
  const vaultOf = (tool: string): Vault => {
    const vault = vaults.get(tool) ?? createVault(nowMs() - 60_000)
    vaults.set(tool, vault)
    return vault
  }
  const connectors = [createVaultConnector(vaultOf, () => nowMs())]
  const broker = await startBroker(engine, { policies: writePolicies(rotated), connectors, ...options })
  nowMs = broker.clock.nowMs
  return { broker, agent: await broker.register('bot'), vault: vaultOf('billing'), vaultOf, options: { connectors } }
}

/** Another process on the same database. */
export function startBeside({ broker, options }: Rotating, more: Pick<BrokerOptions, 'pass'> = {}): Promise<TestBroker> {
  return startBroker(broker.database.engine, { beside: broker, ...options, ...more })
}

/** Lets that much time pass, and what runs by itself run until nothing is at work any more. */
export async function passTime(broker: TestBroker, ms: number): Promise<void> {
  broker.clock.advance(ms)
  await runJobs(broker)
}

export async function runJobs({ broker, scheduler }: TestBroker): Promise<void> {
  await scheduler.tick()
  await vi.waitFor(() => (broker.rotating.runs.size === 0 ? undefined : Promise.reject(new Error('a rotation is under way'))), { timeout: 10_000, interval: 5 })
}

/** The time between two looks of the scheduler at what is due. */
export const tickMs = 1_000

export async function rowOf({ broker }: TestBroker, name = 'billing'): Promise<StoredRotation> {
  const row = await findRotation(broker.database.read, name)
  if (row === undefined) throw new Error(`there is no row ${name}`)
  return row
}

/** What the log says of a rotation, in short. The broker's own keys may be overdue, too, after a leap in time. */
export async function lifeOf(broker: TestBroker, name = 'billing'): Promise<string[]> {
  return (await broker.events()).filter((event) => 'rotation' in event && event.rotation === name && event.type.startsWith('rotation.')).map(({ type }) => type.slice('rotation.'.length))
}

/** The calls without the ids of runs, and without looks. */
export function stepsOf({ calls }: Vault): string[] {
  return calls.map((call) => call.replace(/ [0-9a-f]{8}-.*/, '')).filter((call) => call !== 'look')
}

export const wholeRun = ['create', 'set', 'test', 'finish']
export const monthMs = 30 * dayMs
