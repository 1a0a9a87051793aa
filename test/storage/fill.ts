import SqliteDatabase from 'better-sqlite3'
import pg from 'pg'
import { appendLeaf, decodeFrontier, encodeFrontier, rootOf } from '../../src/audit/merkle.ts'
import { naiveLeaf } from '../audit/naive-tree.ts'
import type { TestDatabase } from '../harness.ts'

/** The body of an entry that `fillLog` has made. */
export function bodyOf(index: number): string {
  return `{"index":${index},"salt":"${index.toString(36)}"}`
}

interface HeadRow {
  readonly size: number
  readonly frontier: Uint8Array
  readonly time: string
}

/**
 * Appends that many entries straight to the tables, with their hashes and the head, for tests in which nothing counts but how
 * many there are: a thousand times as many as the ledger would write in the same time. Returns their leaf hashes.
 */
export async function fillLog(files: TestDatabase, count: number): Promise<Buffer[]> {
  const leaves: Buffer[] = []
  const grow = ({ size, frontier }: HeadRow) => {
    let grown = decodeFrontier(frontier, size)
    for (let index = size; index < size + count; index++) {
      const leaf = naiveLeaf(bodyOf(index))
      leaves.push(leaf)
      grown = appendLeaf(grown, index, leaf)
    }
    return { root: Buffer.from(rootOf(grown)), frontier: encodeFrontier(grown) }
  }
  if (files.engine === 'sqlite') {
    const handle = new SqliteDatabase(files.location)
    const insert = handle.prepare("insert into audit_event (idx, time, type, body, leaf_hash) values (?, ?, 'grant.refused', ?, ?)")
    handle.transaction(() => {
      // The head's row always has these columns.
      const head = handle.prepare('select size, frontier, time from log_head').get() as HeadRow
      const { root, frontier } = grow(head)
      for (const [i, leaf] of leaves.entries()) insert.run(head.size + i, head.time, bodyOf(head.size + i), leaf)
      handle.prepare('update log_head set root = ?, frontier = ?').run(root, frontier)
    })()
    handle.close()
    return leaves
  }
  const client = new pg.Client({ connectionString: files.location })
  await client.connect()
  try {
    await client.query('begin')
    const { rows } = await client.query<{ size: string; frontier: Buffer; time: string }>('select size, frontier, time from log_head for update')
    const size = Number(rows[0]?.size)
    const { root, frontier } = grow({ size, frontier: rows[0]?.frontier ?? Buffer.alloc(0), time: '' })
    for (let at = 0; at < count; at += 10_000) {
      const some = leaves.slice(at, at + 10_000)
      await client.query(
        `insert into audit_event (idx, time, type, body, leaf_hash)
         select idx, $1, 'grant.refused', body, leaf from unnest($2::bigint[], $3::text[], $4::bytea[]) as made (idx, body, leaf)`,
        [rows[0]?.time, some.map((_, i) => size + at + i), some.map((_, i) => bodyOf(size + at + i)), some],
      )
      // The guard wants each statement's entries to begin at the head's size.
      await client.query('update log_head set size = $1', [size + at + some.length])
    }
    await client.query('update log_head set root = $1, frontier = $2', [root, frontier])
    await client.query('commit')
  } finally {
    await client.end()
  }
  return leaves
}
