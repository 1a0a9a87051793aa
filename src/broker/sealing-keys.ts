import type { RootKey } from '../crypto/root-key.ts'
import { createSealingRing, importKey, type Sealer, type SealingKey } from '../crypto/seal.ts'
import { findSealing } from '../crypto/sealing-key-life.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { RandomBytes } from '../kernel/ids.ts'
import type { Database } from '../storage/engine.ts'
import type { Ledger } from '../storage/ledger.ts'
import { listSealingKeys, type SealingKeyRow, type WrappedKey } from '../storage/sealing-keys.ts'

/** The root keys that a process was given. */
export interface RootKeys {
  /** Wraps every sealing key that is made, and those that the previous one has wrapped. */
  readonly root: RootKey
  /** The root key that is given up. */
  readonly previous?: RootKey | undefined
}

/** The sealing keys of this process. */
export interface SealingKeys extends RootKeys {
  /** Opening throws `unavailable` where a key is there that this process could not open. */
  readonly sealer: Sealer
  has(version: number): boolean
  /** Throws `unavailable` where the key that seals now is one that this process could not open. */
  checkSealing(): void
  /** The newest key of the database that this process could not open, as of the last `load`. */
  findLacking(): number | undefined
  /**
   * Takes in the keys that were made meanwhile, and lets go of those that were erased. Throws `config_invalid` for one that no
   * root key of this process opens, and `unavailable` while a root key cannot be asked. It tries that one again after some
   * seconds, and throws the same until then.
   */
  load(): Promise<void>
  /** Makes a key, wrapped by the root key, for a commit to store. */
  make(version: number): Promise<WrappedKey>
  /** Wraps a key of this process by the root key. */
  wrap(version: number): Promise<WrappedKey>
}

export interface SealingKeysOptions extends RootKeys {
  readonly database: Database
  readonly ledger: Pick<Ledger, 'nowMs'>
  readonly random: RandomBytes
}

/** So that a root key which does not answer is not asked for every request. */
const retryAfterMs = 5_000

/** Makes the holder of the sealing keys; it has none before `load`. */
export function createSealingKeys({ database, ledger, random, root, previous }: SealingKeysOptions): SealingKeys {
  const ring = createSealingRing(ledger.nowMs, random)
  const failed = new Map<number, { readonly atMs: number; readonly error: unknown }>()
  let rows: readonly SealingKeyRow[] = []
  let loading: Promise<void> | undefined

  const isLacking = ({ version, erased }: SealingKeyRow) => !erased && ring.find(version) === undefined

  /** Callers learn that it is so, and the operator why. */
  function lack(version: number): BrokerError {
    const error = failed.get(version)?.error
    const detail = error instanceof BrokerError ? error.publicMessage : 'it was not loaded yet'
    return new BrokerError({ code: 'unavailable', publicMessage: `This process cannot open the sealing key of version ${version} at the moment: its log says why. Try again shortly.`, detail, cause: error })
  }

  const sealer: Sealer = {
    seal: ring.seal,
    open(sealed, place) {
      const { version } = sealed
      // What was sealed under an erased key, or under none, is damaged; what is under one that is there is to be had elsewhere, or later.
      const isDamaged = version <= (rows.at(-1)?.version ?? 0) && !rows.some((row) => row.version === version && isLacking(row))
      if (ring.find(version) === undefined && !isDamaged) throw lack(version)
      return ring.open(sealed, place)
    },
  }

  async function load(): Promise<void> {
    const failures: unknown[] = []
    rows = await listSealingKeys(database.read)
    for (const row of rows) {
      if (row.erased) ring.forget(row.version)
      if (!isLacking(row)) continue
      const last = failed.get(row.version)
      if (last !== undefined && ledger.nowMs() < last.atMs + retryAfterMs) {
        failures.push(last.error)
        continue
      }
      try {
        ring.add({ version: row.version, sealsFromMs: row.sealsFromMs, key: await unwrap(row, { root, previous }) })
      } catch (error) {
        // One that does not open keeps no other one away.
        failures.push(error)
        failed.set(row.version, { atMs: ledger.nowMs(), error })
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  async function wrap(version: number, key: SealingKey['key']): Promise<WrappedKey> {
    const wrapped = await root.wrap(key, version)
    // What does not open again would be found out when nothing can be done about it any more.
    const opened = await root.unwrap(wrapped, version)
    if (opened?.equals(key) !== true) throw new BrokerError({ code: 'internal', publicMessage: 'The root key does not open what it has just wrapped: nothing was changed.' })
    return { version, wrapped, root: root.name }
  }

  return {
    root,
    previous,
    sealer,
    has: (version) => ring.find(version) !== undefined,
    checkSealing() {
      const sealing = findSealing(rows, ledger.nowMs())
      if (sealing !== undefined && isLacking(sealing)) throw lack(sealing.version)
    },
    findLacking: () => rows.findLast(isLacking)?.version,
    load: () => (loading ??= load().finally(() => (loading = undefined))),
    make: (version) => wrap(version, importKey(random(32))),
    async wrap(version) {
      const known = ring.find(version)
      if (known === undefined) throw new BrokerError({ code: 'unavailable', publicMessage: `The sealing key of version ${version} could not be opened a moment ago: try again shortly.` })
      return wrap(version, known.key)
    },
  }
}

/** Whether this process may wrap this key anew: another one may have moved on to a root key that is not known here. */
export function isOwn({ root, previous }: RootKeys, { root: name }: Pick<SealingKeyRow, 'root'>): boolean {
  return name === undefined || name === root.name || name === previous?.name
}

/** By the root key that the row names; a row of before root keys had names is tried. */
async function unwrap({ version, wrapped, root: name }: SealingKeyRow, { root, previous }: RootKeys): Promise<SealingKey['key']> {
  const given = [root, ...(previous === undefined ? [] : [previous])]
  const names = given.map((one) => one.name).join(' and ')
  if (name === undefined) {
    for (const one of given) {
      const key = await one.unwrap(wrapped, version)
      if (key !== undefined) return key
    }
    throw refuse(`The root key does not open the database's sealing keys. Give the one it was set up with, in place of ${names}.`, version)
  }
  const wrapper = given.find((one) => one.name === name)
  if (wrapper === undefined) {
    throw refuse(`The database's sealing keys are wrapped by the root key ${name}, and the configuration gives ${names}. Give that one, as root_key or as root_key.previous.`, version)
  }
  const key = await wrapper.unwrap(wrapped, version)
  if (key !== undefined) return key
  throw refuse(`The root key ${name} does not open the sealing key of version ${version}, although it has wrapped it: the row is damaged, or the trust domain was changed. Restore it from a backup.`, version)
}

function refuse(publicMessage: string, version: number): BrokerError {
  return new BrokerError({ code: 'config_invalid', publicMessage, detail: `sealing key version ${version}` })
}
