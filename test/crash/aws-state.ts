import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createRawRootKey } from '../../src/crypto/root-key.ts'
import { createSealingRing } from '../../src/crypto/seal.ts'
import { listRotations, type StoredRotation } from '../../src/storage/rotations.ts'
import { listSealingKeys } from '../../src/storage/sealing-keys.ts'
import { secretPlace } from '../../src/storage/secrets.ts'
import type { Site } from './site.ts'
import { readAtOnce } from './snapshot.ts'

/** A version of the secret that Stint keeps, opened as Stint opens it. */
export interface KeptVersion {
  readonly version: string
  readonly stage: string
  readonly value: string
}

/** The versions that are in a stage. */
export async function readKept(site: Pick<Site, 'engine' | 'database' | 'folder'>): Promise<KeptVersion[]> {
  const { rows, keys } = await readAtOnce(site, async (tx) => ({
    rows: await tx.selectFrom('sealed_secret').selectAll().where('name', '=', 'kept').where('stage', 'is not', null).execute(),
    keys: await listSealingKeys(tx),
  }))
  const root = createRawRootKey(Buffer.from(readFileSync(join(site.folder, 'root.key'), 'utf8').trim(), 'base64'))
  const ring = createSealingRing(Date.now)
  for (const { version: text, wrapped, sealsFromMs, erased } of keys) {
    // PostgreSQL's driver gives `bigint` as text.
    const version = Number(text)
    const key = erased ? undefined : await root.unwrap(wrapped, version)
    if (key !== undefined) ring.add({ version, key, sealsFromMs })
  }
  return rows.map(({ version, stage, sealed, sealed_version: sealedVersion }) => ({
    version: String(version),
    stage: stage ?? '',
    value: Buffer.from(ring.open({ version: Number(sealedVersion), ciphertext: sealed }, secretPlace('kept', Number(version)))).toString(),
  }))
}

export async function readRotations(site: Pick<Site, 'engine' | 'database'>): Promise<StoredRotation[]> {
  return (await readAtOnce(site, listRotations)).filter(({ tool }) => tool !== undefined)
}

/**
 * Looks at a database whose broker is dead as it has left it: SQLite's in a copy, for whoever opens it recovers it, which the next
 * broker has to do by itself.
 */
export async function lookAtDead<T>(site: Site, look: (site: Pick<Site, 'engine' | 'database' | 'folder'>) => Promise<T>): Promise<T> {
  if (site.engine === 'postgres') return look(site)
  const folder = join(site.folder, 'copy')
  const database = join(folder, 'stint.db')
  mkdirSync(folder)
  try {
    for (const suffix of ['', '-wal']) if (existsSync(site.database + suffix)) copyFileSync(site.database + suffix, database + suffix)
    return await look({ ...site, database })
  } finally {
    rmSync(folder, { recursive: true })
  }
}
