import { setImmediate as yieldTurn } from 'node:timers/promises'
import type { Kysely } from 'kysely'
import type { Actor, AuditEvent } from '../audit/event.ts'
import { findIndexAt, readWindow, type EntryFilter, type IndexRange, type StoredEntry } from './audit-windows.ts'
import { readHead } from './head.ts'
import type { Schema } from './schema.ts'

/** Which entries to list, of those that fit the filter. */
export interface EntryQuery extends EntryFilter {
  readonly sinceMs?: number
  readonly untilMs?: number
  /** Only entries with a smaller index. */
  readonly before?: number
  /** Only entries with a greater index. */
  readonly after?: number
  /** At least 1. */
  readonly limit: number
}

/** A page of entries, newest first. */
export interface EntryPage {
  readonly entries: readonly StoredEntry[]
  /** Every entry from this one on was looked at; absent when no further one fits. */
  readonly next: number | undefined
  /** The number of entries in the log when the page was begun. */
  readonly treeSize: number
}

/** How much one page may take. */
export interface PageBounds {
  /** Entries that are looked at without giving way to other work. */
  readonly windowMax: number
  /** Entries that are looked at for one page: few of them may fit. */
  readonly lookedMax: number
  /** UTF-16 code units of bodies, but for the last one. */
  readonly charactersMax: number
}

const boundsDefault: PageBounds = { windowMax: 250, lookedMax: 100_000, charactersMax: 4 * 1024 * 1024 }

/**
 * The newest entries that fit, newest first. Paging by index is stable while entries are added. A page that took enough
 * work ends early, with fewer entries than asked for or none: there are more as long as it has a `next`.
 */
export async function listEntries(db: Kysely<Schema>, query: EntryQuery, bounds: PageBounds = boundsDefault): Promise<EntryPage> {
  const { sinceMs, untilMs, before, after, limit, ...filter } = query
  const { size: treeSize } = await readHead(db)
  let rest: IndexRange | undefined = {
    after: Math.max(after ?? -1, sinceMs === undefined ? -1 : (await findIndexAt(db, sinceMs, treeSize)) - 1),
    before: Math.min(before ?? treeSize, untilMs === undefined ? treeSize : await findIndexAt(db, untilMs, treeSize)),
  }
  const entries: StoredEntry[] = []
  let characters = 0
  let looked = 0
  // Wider each time, for where few fit; one more than is asked for tells whether there are more.
  let width = limit + 1
  while (rest !== undefined && looked < bounds.lookedMax) {
    if (looked > 0) await yieldTurn()
    width = Math.min(width, bounds.windowMax)
    const window = await readWindow(db, filter, rest, 'desc', width)
    for (const entry of window.entries) {
      if (entries.length === limit || characters > bounds.charactersMax) return { entries, next: entries.at(-1)?.index, treeSize }
      entries.push(entry)
      characters += entry.body.length
    }
    rest = window.rest
    looked += width
    width *= 2
  }
  return { entries, next: rest?.before, treeSize }
}

/** The `kid` by which the workload proved itself in the entry of this index; `undefined` where it was otherwise. */
export async function findProofKid(db: Kysely<Schema>, index: number): Promise<string | undefined> {
  const row = await db.selectFrom('audit_event').select('body').where('idx', '=', index).executeTakeFirst()
  // Written by the ledger, as canonical JSON of an event.
  return row === undefined ? undefined : (JSON.parse(row.body) as { readonly proof_kid?: string }).proof_kid
}

/** Who caused the entry of this index; `undefined` where there is none. */
export async function findActor(db: Kysely<Schema>, index: number): Promise<Actor | undefined> {
  const row = await db.selectFrom('audit_event').select('body').where('idx', '=', index).executeTakeFirst()
  // Written by the ledger alone, from an event.
  return row && (JSON.parse(row.body) as AuditEvent).actor
}
