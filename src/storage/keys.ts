import type { Kysely, Selectable } from 'kysely'
import { formatTime } from '../kernel/clock.ts'
import type { Schema } from './schema.ts'
import { readTime } from './time.ts'

/** The place that the private half of a signing key is sealed for. */
export function signingKeyPlace(kid: string): { readonly table: string; readonly row: string } {
  return { table: 'signing_key', row: kid }
}

/** A signing key as stored: the public half in clear, the private half sealed under a sealing key. */
export interface SigningKeyRow {
  readonly kid: string
  readonly use: 'token'
  readonly alg: 'ES256'
  readonly publicJwk: Readonly<Record<string, string>>
  /** Absent once it was erased. */
  readonly sealedPrivate?: { readonly version: number; readonly ciphertext: string }
  readonly createdAtMs: number
  readonly publishAtMs: number
  readonly signFromMs: number
  readonly verifyUntilMs?: number
}

export async function listSigningKeys(db: Kysely<Schema>): Promise<SigningKeyRow[]> {
  const rows = await db.selectFrom('signing_key').selectAll().where('use', '=', 'token').orderBy('sign_from').orderBy('kid').execute()
  return rows.map(toSigningKey)
}

/** A key that has not been erased: what its private half is sealed in belongs to it. */
export type NewSigningKey = SigningKeyRow & Required<Pick<SigningKeyRow, 'sealedPrivate'>>

export async function insertSigningKey(tx: Kysely<Schema>, key: NewSigningKey): Promise<void> {
  const row = {
    kid: key.kid,
    use: key.use,
    alg: key.alg,
    public_jwk: JSON.stringify(key.publicJwk),
    sealed_private: key.sealedPrivate.ciphertext,
    sealed_version: key.sealedPrivate.version,
    created_at: formatTime(key.createdAtMs),
    publish_at: formatTime(key.publishAtMs),
    sign_from: formatTime(key.signFromMs),
    verify_until: key.verifyUntilMs === undefined ? null : formatTime(key.verifyUntilMs),
  }
  await tx.insertInto('signing_key').values(row).execute()
}

/** Sets the time from which on nothing that the key has signed is accepted. */
export async function endSigningKey(tx: Kysely<Schema>, kid: string, verifyUntilMs: number): Promise<void> {
  await tx.updateTable('signing_key').set({ verify_until: formatTime(verifyUntilMs) }).where('kid', '=', kid).execute()
}

/** Takes the private half out of the row; the public one stays, to know the key by. */
export async function eraseSigningKey(tx: Kysely<Schema>, kid: string): Promise<void> {
  await tx.updateTable('signing_key').set({ sealed_private: '' }).where('kid', '=', kid).execute()
}

function toSigningKey(row: Selectable<Schema['signing_key']>): SigningKeyRow {
  return {
    kid: row.kid,
    // Written by `insertSigningKey` alone.
    use: row.use as 'token',
    alg: row.alg as 'ES256',
    publicJwk: JSON.parse(row.public_jwk) as Record<string, string>,
    ...(row.sealed_private !== '' && { sealedPrivate: { version: row.sealed_version, ciphertext: row.sealed_private } }),
    createdAtMs: readTime(row.created_at),
    publishAtMs: readTime(row.publish_at),
    signFromMs: readTime(row.sign_from),
    ...(row.verify_until !== null && { verifyUntilMs: readTime(row.verify_until) }),
  }
}

/** The key that signs checkpoints, as stored. There is one, for as long as there is the log. */
export interface CheckpointKeyRow {
  /** RFC 7638 thumbprint. */
  readonly kid: string
  /** The 32 bytes of the Ed25519 public key. */
  readonly publicKey: Uint8Array
  readonly sealedPrivate: { readonly version: number; readonly ciphertext: string }
}

export async function findCheckpointKey(db: Kysely<Schema>): Promise<CheckpointKeyRow | undefined> {
  const row = await db.selectFrom('signing_key').selectAll().where('use', '=', 'checkpoint').executeTakeFirst()
  if (row === undefined) return undefined
  // Written by `insertCheckpointKey` alone.
  const { x } = JSON.parse(row.public_jwk) as { x: string }
  const sealedPrivate = { version: row.sealed_version, ciphertext: row.sealed_private }
  return { kid: row.kid, publicKey: Buffer.from(x, 'base64url'), sealedPrivate }
}

export async function insertCheckpointKey(tx: Kysely<Schema>, key: CheckpointKeyRow, timeMs: number): Promise<void> {
  const at = formatTime(timeMs)
  await tx
    .insertInto('signing_key')
    .values({
      kid: key.kid,
      use: 'checkpoint',
      alg: 'Ed25519',
      public_jwk: JSON.stringify({ kty: 'OKP', crv: 'Ed25519', x: Buffer.from(key.publicKey).toString('base64url') }),
      sealed_private: key.sealedPrivate.ciphertext,
      sealed_version: key.sealedPrivate.version,
      created_at: at,
      publish_at: at,
      sign_from: at,
      verify_until: null,
    })
    .execute()
}
