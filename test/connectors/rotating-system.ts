import type { Tested } from '../../src/connectors/connector.ts'
import { ConnectorError } from '../../src/connectors/connector.ts'
import type { Rotator } from '../../src/connectors/rotators/rotator.ts'
import { Secret } from '../../src/kernel/secret.ts'

/** A system that accepts some values, and how a test spoils it. */
export interface RotatingSystem {
  readonly rotator: Rotator
  /** The values that it accepts now. */
  readonly accepted: Set<string>
  /** What it was asked for, in order. */
  readonly asked: string[]
  /** From now on, `create` gives this. */
  next?: string
  /** From now on, a call of that name fails. */
  broken?: 'create' | 'set' | 'test' | 'retire' | 'abandon'
  /** From now on, what a test answers. */
  verdict?: Tested
}

/** A system behind a secret, in memory: it accepts several values at once. */
export function createRotatingSystem(first: string): RotatingSystem {
  let made = 0
  const system: RotatingSystem = {
    accepted: new Set([first]),
    asked: [],
    rotator: {
      async create(_, current) {
        ask('create')
        return new Secret(system.next ?? `${current.reveal()}+${++made}`)
      },
      async set(_, pending) {
        ask('set')
        system.accepted.add(pending.reveal())
      },
      async test(pending) {
        ask('test')
        return system.verdict ?? (system.accepted.has(pending.reveal()) ? { ok: true } : { ok: false, why: 'The system does not accept it.' })
      },
      async retire(value) {
        ask(`retire ${value.reveal()}`)
        system.accepted.delete(value.reveal())
      },
      async abandon(value) {
        ask(`abandon ${value.reveal()}`)
        system.accepted.delete(value.reveal())
      },
      close: () => Promise.resolve(),
    },
  }
  const ask = (what: string): void => {
    system.asked.push(what)
    if (system.broken !== undefined && what.startsWith(system.broken)) throw new ConnectorError({ outcome: 'unknown', publicMessage: 'The system does not answer.' })
  }
  return system
}
