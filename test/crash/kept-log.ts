import canonicalize from 'canonicalize'
import { openCheckpoint } from '../../src/audit/checkpoint.ts'
import type { NoteVerifier } from '../../src/audit/note.ts'
import { hasOperator, markOf, report, type Book } from './book.ts'
import { createKeptTree } from './kept-tree.ts'
import type { Row, Snapshot } from './snapshot.ts'

type Problems = Pick<Book, 'problems'>

/** An event as its body has it. */
export type Body = Readonly<Record<string, unknown>>

/** What was recomputed of a log so far, entry by entry, from the bodies alone. */
export interface KeptLog {
  readonly size: number
  /** The index of the entry with that mark. */
  readonly marks: ReadonlyMap<string, number>
  /** Entries that issued a grant, or are the intent of one, by its id. */
  readonly issued: ReadonlyMap<string, Body>
  /** Entries by which what an outside tool has made was given out, by the grant. */
  readonly activated: ReadonlyMap<string, Body>
  /** The entry that ended that one grant. */
  readonly revoked: ReadonlyMap<string, number>
  /** Grants that an operator ended one by one. */
  readonly recalled: ReadonlySet<string>
  /** How many entries there are of each type. */
  readonly types: ReadonlyMap<string, number>
  /** Entries that ended many grants. */
  readonly sweeps: ReadonlyMap<number, Body>
  /** The state of each workload that the log leads to. */
  readonly standing: ReadonlyMap<string, 'active' | 'suspended'>
  readonly policyInForce: { readonly hash: string; readonly index: number } | undefined
  /** Keys that sign tokens, or did. */
  readonly kids: ReadonlySet<string>
  /** Those of which nothing is accepted any more from their replacement on. */
  readonly endedKids: ReadonlySet<string>
  /** Takes in what a snapshot from `size` on has, and reports what is not as it must be. */
  follow(snapshot: Snapshot, book: Problems): void
  /** Reports a checkpoint that is not of this log, and returns its size. */
  checkNote(note: string, verifier: NoteVerifier, book: Problems): number | undefined
}

export function createKeptLog(): KeptLog {
  const tree = createKeptTree()
  const marks = new Map<string, number>()
  const issued = new Map<string, Body>()
  const activated = new Map<string, Body>()
  const revoked = new Map<string, number>()
  const recalled = new Set<string>()
  const types = new Map<string, number>()
  const sweeps = new Map<number, Body>()
  const standing = new Map<string, 'active' | 'suspended'>()
  const kids = new Set<string>()
  const endedKids = new Set<string>()
  let policyInForce: KeptLog['policyInForce']
  let lastTime = ''

  function take(body: Body, index: number, book: Problems): void {
    const mark = markOf(body)
    if (mark !== undefined) {
      const before = marks.get(mark)
      if (before !== undefined) report(book, `what was asked for once is in the log twice, as entries ${before} and ${index}: ${mark}`)
      marks.set(mark, index)
    }
    const text = (field: string): string => String(body[field])
    types.set(text('type'), (types.get(text('type')) ?? 0) + 1)
    switch (body['type']) {
      case 'grant.issued':
      case 'grant.minting':
        issued.set(text('grant'), body)
        break
      case 'grant.activated':
        activated.set(text('grant'), body)
        break
      case 'grant.revoked':
        revoked.set(text('grant'), index)
        if (hasOperator(body)) recalled.add(text('grant'))
        break
      case 'grants.revoked':
        sweeps.set(index, body)
        break
      case 'workload.registered':
      case 'workload.resumed':
        standing.set(text('workload'), 'active')
        break
      case 'workload.suspended':
        standing.set(text('workload'), 'suspended')
        break
      case 'policy.applied':
        policyInForce = { hash: text('policy_set'), index }
        break
      case 'key.created':
        if (body['use'] === 'token') kids.add(text('kid'))
        break
      case 'key.replaced':
        // One that ends in due time goes on proving what it has signed.
        if (text('verify_until') <= text('time')) endedKids.add(text('kid'))
        break
    }
  }

  function takeRow(row: Row, book: Problems): void {
    const wrong = (what: string): void => report(book, `entry ${row.index}: ${what}`)
    if (row.index !== tree.size) return wrong(`stands where entry ${tree.size} should`)
    const body = JSON.parse(row.body) as Body
    if (canonicalize(body) !== row.body) wrong('its body is not canonical')
    if (body['index'] !== row.index || body['time'] !== row.time || body['v'] !== 1) wrong('its body is of another place')
    const fields = ['type', 'workload', 'tool', 'grant', 'task'].map((field) => body[field] ?? null)
    if (JSON.stringify(fields) !== JSON.stringify(row.columns)) wrong('its columns are not those of its body')
    if (row.time < lastTime) wrong(`its time ${row.time} is before ${lastTime}, that of the one before`)
    lastTime = row.time
    if (!tree.append(row.body).equals(row.leafHash)) wrong('its leaf hash is not that of its body')
    take(body, row.index, book)
  }

  return {
    get size() {
      return tree.size
    },
    marks,
    issued,
    activated,
    revoked,
    recalled,
    types,
    sweeps,
    standing,
    kids,
    endedKids,
    get policyInForce() {
      return policyInForce
    },
    follow({ head, entries }, book) {
      for (const row of entries) takeRow(row, book)
      if (head.size !== tree.size) return report(book, `the head says ${head.size} entries, and there are ${tree.size}`)
      if (!head.root.equals(tree.rootAt(tree.size))) report(book, `the head's root is not that of its ${tree.size} entries`)
      if (!head.frontier.equals(tree.frontier())) report(book, `the head's frontier is not that of its ${tree.size} entries`)
      if (head.timeMs < Date.parse(lastTime)) report(book, `the head's time is before that of the last entry`)
    },
    checkNote(note, verifier, book) {
      const opened = openCheckpoint(note, verifier)
      if (typeof opened === 'string') return void report(book, `a checkpoint is none: ${opened}: ${note}`)
      if (opened.size > tree.size) return void report(book, `a checkpoint was given of ${opened.size} entries, and the log has ${tree.size}`)
      if (!tree.rootAt(opened.size).equals(Buffer.from(opened.root))) report(book, `the checkpoint of ${opened.size} entries is not one of this log`)
      return opened.size
    },
  }
}
