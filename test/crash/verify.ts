import { parseVerifierKey, type NoteVerifier } from '../../src/audit/note.ts'
import { report, type Book, type HeldToken } from './book.ts'
import type { KeptLog } from './kept-log.ts'
import type { Load } from './load.ts'
import type { Snapshot } from './snapshot.ts'

/** How far an earlier verification came, so that each begins where the last one ended. */
export interface Verified {
  tokens: number
  notes: number
  noteSize: number
  storedNotes: number
}

export function createVerified(): Verified {
  return { tokens: 0, notes: 0, noteSize: 0, storedNotes: -1 }
}

/** Compares what clients know with the log, and what the database does by with what the log says. */
export function compareBook(book: Book, log: KeptLog, verified: Verified): void {
  for (const [mark, { told, index }] of book.changes) {
    const found = log.marks.get(mark)
    if (told === 'done' || told === 'spent') {
      if (found === undefined) report(book, `${told === 'done' ? 'was answered' : 'was taken'} and is lost: ${mark}${index === undefined ? '' : ` (entry ${index})`}`)
      else if (index !== undefined && index !== found) report(book, `was answered as entry ${index} and is entry ${found}: ${mark}`)
    }
    if (told === 'refused' && found !== undefined) report(book, `was refused, and is in the log as entry ${found}: ${mark}`)
    // Nothing is ever taken out of the log, which its tree shows; what is open yet is looked at again.
    if (told !== 'unanswered') book.changes.delete(mark)
  }
  for (const token of book.tokens.slice(verified.tokens)) compareToken(book, log, token)
  verified.tokens = book.tokens.length
}

function compareToken(book: Book, log: KeptLog, token: HeldToken): void {
  const event = log.issued.get(token.grant)
  if (event === undefined) return report(book, `a client has a token of grant ${token.grant} that is not in the log (entry ${token.index})`)
  const timeMs = Date.parse(String(event['time']))
  const same =
    event['index'] === token.index &&
    event['workload'] === token.workload &&
    event['task'] === token.task &&
    event['token_kid'] === token.kid &&
    Date.parse(String(event['expires_at'])) === token.expiresAtMs
  if (!same) report(book, `the token of grant ${token.grant} is not the one that entry ${String(event['index'])} records`)
  // The time in it was read before the commit, by the same clock.
  const isOfItsTime = token.issuedAtMs <= timeMs && (token.disturbed || timeMs - token.issuedAtMs < 30_000)
  if (!isOfItsTime) report(book, `the token of grant ${token.grant} was issued at ${token.issuedAtMs}, and recorded at ${timeMs}`)
}

/** The rows that decide must be those that the log tells of: no more, no less, and no others. */
export function compareState(snapshot: Snapshot, log: KeptLog, from: number, book: Pick<Book, 'problems'>): void {
  const { grants, revocations, workloads, policyInForce, signingKids } = snapshot
  const rows = new Map(grants.map((grant) => [grant.id, grant]))
  let issued = 0
  for (const row of grants) {
    if (row.issuedIndex >= from) issued++
    const event = log.issued.get(row.id)
    if (event?.['index'] !== row.issuedIndex) report(book, `grant ${row.id} has a row, and no entry ${row.issuedIndex}`)
    if ((log.revoked.get(row.id) ?? null) !== row.revokedIndex) report(book, `grant ${row.id} was ended by ${String(log.revoked.get(row.id))}, and its row says ${String(row.revokedIndex)}`)
  }
  let expected = 0
  for (const event of log.issued.values()) if (Number(event['index']) >= from) expected++
  if (issued !== expected) report(book, `${expected} grants were recorded since entry ${from}, and ${issued} have a row`)
  for (const [grant, index] of log.revoked) if (index >= from && !rows.has(grant)) report(book, `the end of grant ${grant} (entry ${index}) is not in force`)

  const swept = new Map(revocations.map((row) => [row.index, row]))
  for (const [index, event] of log.sweeps) {
    if (index < from) continue
    const row = swept.get(index)
    const isSame = (['workload', 'task', 'tool'] as const).every((member) => row?.[member] === (event[member] ?? null))
    if (!isSame) report(book, `the revocation of entry ${index} is not in force`)
    swept.delete(index)
  }
  for (const index of swept.keys()) report(book, `a revocation is in force that no entry ${index} tells of`)

  for (const [name, status] of log.standing) if (workloads.get(name) !== status) report(book, `workload ${name} is ${String(workloads.get(name))}, and the log says ${status}`)
  if (workloads.size !== log.standing.size) report(book, `${workloads.size} workloads have a row, and ${log.standing.size} were registered`)
  if (policyInForce?.hash !== log.policyInForce?.hash || policyInForce?.index !== log.policyInForce?.index) report(book, 'the policy set in force is not the one that was applied last')
  for (const kid of log.kids) if (!signingKids.has(kid)) report(book, `signing key ${kid} is lost`)
  if (signingKids.size !== log.kids.size) report(book, `${signingKids.size} signing keys have a row, and ${log.kids.size} were made`)
}

/** Every checkpoint that anybody was given, and every one that is kept. */
export function compareCheckpoints({ checkpoints }: Snapshot, log: KeptLog, book: Book, verified: Verified, verifier: NoteVerifier): void {
  for (const note of book.checkpoints.slice(verified.notes)) {
    const size = log.checkNote(note, verifier, book)
    if (size !== undefined && size < verified.noteSize) report(book, `a checkpoint of ${size} entries was given after one of ${verified.noteSize}`)
    verified.noteSize = Math.max(verified.noteSize, size ?? 0)
  }
  verified.notes = book.checkpoints.length
  for (const { size, note } of checkpoints) {
    if (size <= verified.storedNotes) continue
    if (log.checkNote(note, verifier, book) !== size) report(book, `the checkpoint in the row of ${size} entries is another's`)
    verified.storedNotes = size
  }
  if (verified.storedNotes < verified.noteSize) report(book, `the checkpoint of ${verified.noteSize} entries that was given is not kept`)
}

/** What the log has settled that no answer did: the book knows it from now on. */
export function settleBook(load: Load, log: KeptLog): void {
  const { book, admin } = load
  for (const change of book.changes.values()) if (change.told === 'unanswered' && log.marks.has(change.mark)) change.told = 'spent'
  for (const assertion of book.assertions) {
    if (assertion.spent === 'maybe' && assertion.mark !== undefined && log.marks.has(assertion.mark)) assertion.spent = 'yes'
  }
  for (const token of book.tokens) if (token.ended === 'maybe' && log.revoked.has(token.grant)) token.ended = 'yes'
  const tasks = new Set<string>()
  for (const [index, event] of log.sweeps) {
    const { workload, task } = event
    if (typeof task === 'string') tasks.add(task)
    else if (typeof workload === 'string') book.sweptTo.set(workload, Math.max(index, book.sweptTo.get(workload) ?? 0))
  }
  book.sweepsUnsure.clear()
  for (const token of book.tokens) if (token.ended === 'maybe' && tasks.has(token.task)) token.ended = 'yes'
  for (const kid of log.endedKids) book.endedKids.add(kid)
  book.keysUnsure = false
  for (const name of admin.standing.keys()) admin.standing.set(name, log.standing.get(name))
  for (const agent of load.waiting.values()) if (log.standing.has(agent.name)) load.admit(agent)
  load.waiting.clear()
}

/** The log's public key, as auditors are given it. */
export async function readVerifier({ client }: Load): Promise<NoteVerifier> {
  const answer = await client.send({ method: 'GET', path: '/log/key' })
  const verifier = parseVerifierKey(answer?.text.trim() ?? '')
  if (verifier === undefined) throw new Error(`the broker did not say its log's key: ${String(answer?.status)} ${String(answer?.text)}`)
  return verifier
}
