import { createKeyring, generateSigningKey, type Keyring } from '../crypto/keyring.ts'
import { createSealer, unwrapSealingKey, wrapSealingKey, type Sealer } from '../crypto/seal.ts'
import { formatTime } from '../kernel/clock.ts'
import type { RandomBytes } from '../kernel/ids.ts'
import { Secret } from '../kernel/secret.ts'
import type { Signatures } from '../kernel/signatures.ts'
import type { Database } from '../storage/engine.ts'
import { insertSealingKey, insertSigningKey, listSealingKeys, listSigningKeys, type NewSigningKey, type SigningKeyRow } from '../storage/keys.ts'
import type { Ledger } from '../storage/ledger.ts'
import { causedBy, type Caller } from './broker.ts'
import { commit } from './commit.ts'

export interface KeyStore {
  readonly sealer: Sealer
  /** The signing keys as they are now; unsealed ones are remembered by their `kid`. */
  loadKeyring(): Promise<Keyring>
}

export interface KeyStoreOptions {
  readonly database: Database
  readonly ledger: Ledger
  readonly random: RandomBytes
  readonly rootKey: Uint8Array
  readonly caller: Caller
  readonly signatures: Pick<Signatures, 'sign'>
}

/**
 * Opens the keys that the database holds sealed, and makes the first sealing key and the first token key where there are
 * none yet: of several processes that start together, one does. Throws `config_invalid` if the root key does not fit.
 */
export async function openKeyStore(options: KeyStoreOptions): Promise<KeyStore> {
  const { database } = options
  if ((await listSealingKeys(database.read)).length === 0) await makeSealingKey(options)
  const sealer = await openSealer(options)
  if ((await listSigningKeys(database.read)).length === 0) await makeTokenKey(options, sealer)

  let remembered: { readonly id: string; readonly keyring: Keyring } | undefined
  return {
    sealer,
    async loadKeyring() {
      const rows = (await listSigningKeys(database.read)).filter(isUsable)
      const id = JSON.stringify(rows.map(({ kid, publishAtMs, signFromMs, verifyUntilMs }) => [kid, publishAtMs, signFromMs, verifyUntilMs]))
      if (remembered?.id !== id) remembered = { id, keyring: await createKeyring(rows.map((row) => unseal(row, sealer)), options.signatures) }
      return remembered.keyring
    },
  }
}

async function openSealer({ database, rootKey, random }: KeyStoreOptions): Promise<Sealer> {
  const rows = await listSealingKeys(database.read)
  const keys = rows.map((row) => [row.version, unwrapSealingKey(rootKey, { version: row.version, ciphertext: row.wrapped })] as const)
  const current = Math.max(...rows.map((row) => row.version))
  return createSealer(new Map(keys), current, random)
}

async function makeSealingKey({ ledger, random, rootKey, caller }: KeyStoreOptions): Promise<void> {
  const version = 1
  const wrapped = wrapSealingKey(rootKey, random(32), version, random).ciphertext
  await commit(
    { ledger },
    {
      async apply(tx, { timeMs }) {
        if ((await listSealingKeys(tx)).length > 0) return { result: undefined, unrecorded: 'nothing changed' }
        await insertSealingKey(tx, { version, wrapped }, timeMs)
        return {
          result: undefined,
          raisesEpoch: true,
          events: [{ type: 'key.created', ...causedBy(caller), use: 'seal', alg: 'A256GCM', version }],
        }
      },
    },
  )
}

async function makeTokenKey({ ledger, caller }: KeyStoreOptions, sealer: Sealer): Promise<void> {
  const made = await makeSigningKey(sealer)
  await commit(
    { ledger },
    {
      async apply(tx, { timeMs }) {
        if ((await listSigningKeys(tx)).length > 0) return { result: undefined, unrecorded: 'nothing changed' }
        // The first key signs at once: nobody can have cached a key set without it.
        await insertSigningKey(tx, { ...made, createdAtMs: timeMs, publishAtMs: timeMs, signFromMs: timeMs })
        return { result: undefined, raisesEpoch: true, events: [describeNewKey(made, timeMs, caller)] }
      },
    },
  )
}

/** A key that was made and sealed, for a commit to put into its place in time. */
export type MadeKey = Pick<NewSigningKey, 'kid' | 'use' | 'alg' | 'publicJwk' | 'sealedPrivate'>

/** Makes a key for tokens, its private half sealed. Nothing is stored yet. */
export async function makeSigningKey(sealer: Sealer): Promise<MadeKey> {
  const { kid, alg, publicJwk, privateJwk } = await generateSigningKey()
  return { kid, use: 'token', alg, publicJwk, sealedPrivate: sealer.seal(privateJwk.reveal(), placeOf(kid)) }
}

/** The event that a made key causes. */
export function describeNewKey({ kid, use, alg }: MadeKey, signFromMs: number, caller: Caller) {
  return { type: 'key.created', ...causedBy(caller), use, alg, kid, signs_from: formatTime(signFromMs) } as const
}

function placeOf(kid: string) {
  return { table: 'signing_key', row: kid }
}

/** Whether there is anything left to do with the key: one that was erased has ended for good. */
function isUsable(row: SigningKeyRow): row is NewSigningKey {
  return row.sealedPrivate !== undefined
}

function unseal({ sealedPrivate, publicJwk, ...row }: NewSigningKey, sealer: Sealer) {
  const { kty = '', crv = '', x = '', y = '' } = publicJwk
  const privateJwk = new Secret(Buffer.from(sealer.open(sealedPrivate, placeOf(row.kid))).toString())
  return { ...row, publicJwk: { kty, crv, x, y }, privateJwk }
}
