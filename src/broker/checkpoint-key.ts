import { originOf, signCheckpoint, type Checkpoint } from '../audit/checkpoint.ts'
import { formatVerifierKey, parseVerifierKey, type NoteVerifier } from '../audit/note.ts'
import { generateCheckpointKey, openCheckpointKey } from '../crypto/checkpoint-key.ts'
import type { Sealer } from '../crypto/seal.ts'
import { Secret } from '../kernel/secret.ts'
import type { Database } from '../storage/engine.ts'
import { findCheckpointKey, insertCheckpointKey, signingKeyPlace, type CheckpointKeyRow } from '../storage/keys.ts'
import type { Ledger } from '../storage/ledger.ts'
import { causedBy, type Caller } from './broker.ts'
import { commit } from './commit.ts'

/** What signs this log's checkpoints. */
export interface CheckpointKey {
  /** Names the log. */
  readonly origin: string
  /** The public half as auditors are given it: `name+hash+key`. */
  readonly verifierKey: string
  readonly verifier: NoteVerifier
  /** The signed note of a checkpoint. */
  sign(checkpoint: Pick<Checkpoint, 'size' | 'root'>): string
}

export interface CheckpointKeyOptions {
  readonly database: Database
  readonly ledger: Ledger
  readonly sealer: Sealer
  readonly trustDomain: string
  readonly caller: Caller
}

/** Opens the key that signs checkpoints, or makes it for a log that has none: of several processes that start together, one does. */
export async function openLogKey(options: CheckpointKeyOptions): Promise<CheckpointKey> {
  const { database, sealer, trustDomain } = options
  if ((await findCheckpointKey(database.read)) === undefined) await makeLogKey(options)
  const row = await findCheckpointKey(database.read)
  if (row === undefined) throw new Error('there is no checkpoint key behind its commit')
  const privateKey = openCheckpointKey(new Secret(Buffer.from(sealer.open(row.sealedPrivate, signingKeyPlace(row.kid))).toString()), row.publicKey)
  const origin = originOf(trustDomain)
  const verifierKey = formatVerifierKey(origin, row.publicKey)
  const verifier = parseVerifierKey(verifierKey)
  if (verifier === undefined) throw new Error(`no verifier key can be made for ${origin}`)
  return { origin, verifierKey, verifier, sign: (checkpoint) => signCheckpoint({ origin, ...checkpoint }, privateKey, verifier.keyId) }
}

async function makeLogKey({ ledger, sealer, caller }: CheckpointKeyOptions): Promise<void> {
  const { kid, publicKey, privatePem } = await generateCheckpointKey()
  const row: CheckpointKeyRow = { kid, publicKey, sealedPrivate: sealer.seal(privatePem.reveal(), signingKeyPlace(kid)) }
  await commit(
    { ledger },
    {
      async apply(tx, { timeMs }) {
        if ((await findCheckpointKey(tx)) !== undefined) return { result: undefined, unrecorded: 'nothing changed' }
        await insertCheckpointKey(tx, row, timeMs)
        return { result: undefined, raisesEpoch: false, events: [{ type: 'key.created', ...causedBy(caller), use: 'checkpoint', alg: 'Ed25519', kid }] }
      },
    },
  )
}
