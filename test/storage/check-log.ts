import canonicalize from 'canonicalize'
import type { Kysely } from 'kysely'
import { expect } from 'vitest'
import type { Schema } from '../../src/storage/schema.ts'
import { naiveFrontier, naiveLeaf, naiveRoot } from '../audit/naive-tree.ts'

/** Recomputes the log from its stored bodies alone and expects the columns, the hashes and the head to agree. Returns the bodies. */
export async function checkLog(db: Kysely<Schema>): Promise<Record<string, unknown>[]> {
  const rows = await db.selectFrom('audit_event').selectAll().orderBy('idx').execute()
  const head = await db.selectFrom('log_head').selectAll().executeTakeFirstOrThrow()
  const bodies = rows.map((row) => {
    // Whatever the body holds is compared below.
    const body = JSON.parse(row.body) as Record<string, unknown>
    expect(canonicalize(body)).toBe(row.body)
    expect(body).toMatchObject({ index: row.idx, time: row.time, type: row.type, v: 1 })
    const columns = [row.workload, row.tool, row.grant_id, row.task]
    expect(columns).toEqual([body['workload'], body['tool'], body['grant'], body['task']].map((value) => value ?? null))
    expect(Buffer.from(row.leaf_hash)).toEqual(naiveLeaf(row.body))
    return body
  })
  expect(rows.map((row) => row.idx)).toEqual(rows.map((_, i) => i))
  const times = rows.map((row) => row.time)
  expect(times).toEqual(times.toSorted())
  const leaves = rows.map((row) => row.leaf_hash)
  expect(head.size).toBe(rows.length)
  expect(head.time >= (times.at(-1) ?? '')).toBe(true)
  expect(Buffer.from(head.root)).toEqual(naiveRoot(leaves))
  expect(Buffer.from(head.frontier)).toEqual(Buffer.concat(naiveFrontier(leaves)))
  return bodies
}
