import { existsSync, readFileSync } from 'node:fs'
import { openCheckpoint, type Checkpoint, type CheckpointProblem } from '../audit/checkpoint.ts'
import type { NoteVerifier } from '../audit/note.ts'
import { consistencyNodes, verifyConsistency } from '../audit/proof.ts'
import { StintError } from '../client/errors.ts'
import type { LogClient } from '../client/log.ts'
import { CommandError } from './command.ts'
import { replaceFile } from './replace-file.ts'
import type { Section } from './verify-report.ts'
import { openTileTree } from './verify-tiles.ts'
import { describeWriteError } from './write-error.ts'

/** What a live log is held against. */
export interface LiveOptions {
  readonly log: Pick<LogClient, 'origin' | 'readCheckpoint' | 'readTile'>
  /** The key that the auditor holds. */
  readonly verifier: NoteVerifier
  /** The checkpoint that was kept from before: a signed note. */
  readonly kept: string
  /** A file for the newer checkpoint, once it has proven to go on from the kept one. */
  readonly save?: string | undefined
}

/** What a live log is, seen from a kept checkpoint. Only `consistent` and `same` are good. */
export type LiveVerdict = 'consistent' | 'same' | 'smaller' | 'inconsistent' | 'unproven' | CheckpointProblem

/**
 * Whether a live log goes on from a kept checkpoint. There is no verdict where the broker gave no usable answer, which says
 * nothing about its log. Throws a `CommandError` for a file that cannot be used.
 */
export async function verifyLive(options: LiveOptions): Promise<Section> {
  try {
    return await askLog(options)
  } catch (error) {
    if (!(error instanceof StintError)) throw error
    const { code, message } = error
    return { title: 'live', ok: false, unanswered: true, lines: [`No answer that can be used, which says nothing about the log: ${message}`], json: { verdict: 'unanswered', code, message } }
  }
}

async function askLog({ log, verifier, kept: keptNote, save }: LiveOptions): Promise<Section> {
  const kept = openCheckpoint(keptNote, verifier)
  if (typeof kept === 'string') return report(kept, [`The checkpoint that was kept ${problemTexts[kept]}.`], { of: 'kept' })
  if (save !== undefined) refuseOtherContent(save, keptNote)
  const liveNote = await log.readCheckpoint()
  const live = openCheckpoint(liveNote, verifier)
  if (typeof live === 'string') {
    return report(live, [`What ${log.origin} serves as its checkpoint ${problemTexts[live]}.`], { of: 'live', kept: describe(kept), note: liveNote })
  }
  const { verdict, tiles } = await compare(log, kept, live)
  const lines = explain(verdict, kept, live)
  // What does not go on from the kept one never takes its place.
  const saved = save !== undefined && isGood(verdict)
  if (saved) {
    keep(save, liveNote)
    lines.push(`Kept for the next time in ${save}.`)
  } else if (save !== undefined) lines.push(`${save} is left as it was.`)
  return report(verdict, lines, { kept: describe(kept), live: describe(live), tiles, note: liveNote, ...(saved && { saved: save }) })
}

/** Both are signed by the key. A tile proves nothing: what is made of tiles counts once it leads to a signed root. */
async function compare(log: LiveOptions['log'], kept: Checkpoint, live: Checkpoint): Promise<{ verdict: LiveVerdict; tiles: number }> {
  if (live.size < kept.size) return { verdict: 'smaller', tiles: 0 }
  if (live.size === kept.size) return { verdict: Buffer.compare(live.root, kept.root) === 0 ? 'same' : 'inconsistent', tiles: 0 }
  const tree = openTileTree(log, live.size)
  const proof: Uint8Array[] = []
  for (const node of kept.size === 0 ? [] : consistencyNodes(kept.size, live.size)) proof.push(await tree.hashOf(node))
  const begins = { size: kept.size, root: await tree.hashOf({ start: 0, end: kept.size }) }
  const whole = await tree.hashOf({ start: 0, end: live.size })
  const told = Buffer.compare(whole, live.root) === 0 && verifyConsistency(begins, live, proof)
  // Tiles of the signed tree that begin otherwise are the proof of a fork; tiles of another tree are no proof of anything.
  const verdict = !told ? 'unproven' : verifyConsistency(kept, live, proof) ? 'consistent' : 'inconsistent'
  return { verdict, tiles: tree.tiles() }
}

const problemTexts: Readonly<Record<CheckpointProblem, string>> = {
  'no checkpoint': 'is no checkpoint',
  'another log': 'is of another log than the key',
  'not signed by this key': 'is not signed by the key that you gave',
}

function explain(verdict: LiveVerdict, kept: Checkpoint, live: Checkpoint): string[] {
  const grown = `The log has ${live.size} entries`
  switch (verdict) {
    case 'consistent':
      return [`${grown}, and the first ${kept.size} are those of the checkpoint that was kept: nothing of them was changed or removed.`]
    case 'same':
      return [`${grown}: the very ones of the checkpoint that was kept.`]
    case 'smaller':
      return [`${grown}, fewer than the ${kept.size} of the checkpoint that was kept: its end was cut off, or an old backup was restored.`, restoredHint]
    case 'inconsistent':
      return [
        `${grown}, and its first ${kept.size} are not those of the checkpoint that was kept: the log was rewritten or forked.`,
        'Keep both checkpoints: two signed statements of this log that cannot both be true.',
        restoredHint,
      ]
    default:
      return [`${grown} by its checkpoint, but the tiles that are served are not of that tree: whether it goes on from entry ${kept.size} is not proven.`]
  }
}

const restoredHint = 'Where an admin accepted a restored backup, the log says so: stint audit list --type log.restored'

function isGood(verdict: LiveVerdict): boolean {
  return verdict === 'consistent' || verdict === 'same'
}

function report(verdict: LiveVerdict, lines: readonly string[], json: Section['json']): Section {
  return { title: 'live', ok: isGood(verdict), lines, json: { verdict: verdict.replaceAll(' ', '_'), ...json } }
}

function describe({ size, root }: Checkpoint) {
  return { size, root: Buffer.from(root).toString('base64') }
}

/** A file that holds neither nothing nor the kept checkpoint may be the better one. */
function refuseOtherContent(path: string, kept: string): void {
  if (!existsSync(path) || readFileSync(path, 'utf8') === kept) return
  throw new CommandError(`${path} holds something else than the checkpoint that was kept, and is not written over: choose another name`)
}

/** Throws a `CommandError` where that is not possible. */
function keep(path: string, text: string): void {
  try {
    replaceFile(path, text, 0o644)
  } catch (error) {
    throw new CommandError(`the live log is good, but its checkpoint cannot be kept in ${path}: ${describeWriteError(error)}`)
  }
}
