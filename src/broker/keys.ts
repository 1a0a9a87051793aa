import { createKeyring, generateSigningKey, type Keyring } from '../crypto/keyring.ts'
import type { Sealer } from '../crypto/seal.ts'
import { formatTime } from '../kernel/clock.ts'
import type { RandomBytes } from '../kernel/ids.ts'
import { Secret } from '../kernel/secret.ts'
import type { Signatures } from '../kernel/signatures.ts'
import type { Database } from '../storage/engine.ts'
import { insertSigningKey, listSigningKeys, signingKeyPlace, type NewSigningKey, type SigningKeyRow } from '../storage/keys.ts'
import type { Ledger } from '../storage/ledger.ts'
import { insertSealingKey, listSealingKeys } from '../storage/sealing-keys.ts'
import { causedBy, type Caller } from './broker.ts'
import { commit } from './commit.ts'
import { createSealingKeys, type RootKeys, type SealingKeys } from './sealing-keys.ts'

export interface KeyStore {
  readonly sealingKeys: SealingKeys
  /** The signing keys as they are now; unsealed ones are remembered by their `kid`. */
  loadKeyring(): Promise<Keyring>
}

export interface KeyStoreOptions extends RootKeys {
  readonly database: Database
  readonly ledger: Ledger
  readonly random: RandomBytes
  readonly caller: Caller
  readonly signatures: Pick<Signatures, 'sign'>
}

/**
 * Opens the keys that the database holds sealed, and makes the first sealing key and the first token key where there are
 * none yet: of several processes that start together, one does. Throws `config_invalid` if the root key does not fit, and
 * `unavailable` while it cannot be asked; then nothing was changed.
 */
export async function openKeyStore(options: KeyStoreOptions): Promise<KeyStore> {
  const { database } = options
  const sealingKeys = createSealingKeys(options)
  if ((await listSealingKeys(database.read)).length === 0) await makeSealingKey(options, sealingKeys)
  await sealingKeys.load()
  const { sealer } = sealingKeys
  if ((await listSigningKeys(database.read)).length === 0) await makeTokenKey(options, sealer)

  let remembered: { readonly id: string; readonly keyring: Keyring } | undefined
  return {
    sealingKeys,
    async loadKeyring() {
      const rows = (await listSigningKeys(database.read)).filter(isUsable)
      const id = JSON.stringify(rows.map(({ kid, publishAtMs, signFromMs, verifyUntilMs }) => [kid, publishAtMs, signFromMs, verifyUntilMs]))
      if (remembered?.id !== id) {
        // Where that fails, the one that is needed says so when it is opened.
        if (!rows.every(({ sealedPrivate: { version } }) => sealingKeys.has(version))) await sealingKeys.load().catch(() => undefined)
        remembered = { id, keyring: await createKeyring(rows.map((row) => unseal(row, sealer)), options.signatures) }
      }
      return remembered.keyring
    },
  }
}

async function makeSealingKey({ ledger, caller }: KeyStoreOptions, sealingKeys: SealingKeys): Promise<void> {
  const made = await sealingKeys.make(1)
  await commit(
    { ledger },
    {
      async apply(tx, place) {
        if ((await listSealingKeys(tx)).length > 0) return { result: undefined, unrecorded: 'nothing changed' }
        // The first key seals at once: nothing can be sealed without it.
        await insertSealingKey(tx, made, place, place.timeMs)
        return {
          result: undefined,
          raisesEpoch: true,
          events: [{ type: 'key.created', ...causedBy(caller), use: 'seal', alg: 'A256GCM', version: made.version }],
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
  return { kid, use: 'token', alg, publicJwk, sealedPrivate: sealer.seal(privateJwk.reveal(), signingKeyPlace(kid)) }
}

/** The event that a made key causes. */
export function describeNewKey({ kid, use, alg }: MadeKey, signFromMs: number, caller: Caller) {
  return { type: 'key.created', ...causedBy(caller), use, alg, kid, signs_from: formatTime(signFromMs) } as const
}

/** Whether there is anything left to do with the key: one that was erased has ended for good. */
function isUsable(row: SigningKeyRow): row is NewSigningKey {
  return row.sealedPrivate !== undefined
}

function unseal({ sealedPrivate, publicJwk, ...row }: NewSigningKey, sealer: Sealer) {
  const { kty = '', crv = '', x = '', y = '' } = publicJwk
  const privateJwk = new Secret(Buffer.from(sealer.open(sealedPrivate, signingKeyPlace(row.kid))).toString())
  return { ...row, publicJwk: { kty, crv, x, y }, privateJwk }
}
