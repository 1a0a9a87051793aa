import type { ReceiptVerdict } from '../audit/receipt.ts'
import type { FileVerdict, KeptVerdict } from '../audit/verify.ts'
import type { Problem } from '../audit/verify-piece.ts'
import type { Section } from './verify-report.ts'

/** What the check of an export is told as. */
export function describeFile(path: string, verdict: FileVerdict): Section {
  const { form, entries, first, last, checkpoint, proof, provenSize, unproven, kept, life, policySets, problems, problemsMore } = verdict
  const wrong = problems.length + problemsMore
  // Behind the checkpoint of its own file no entry belongs, unless the log is held; of CSV there is always a rest.
  const loose = checkpoint !== undefined && unproven > 0
  const ok = wrong === 0 && proof !== 'nothing' && !loose && (kept === undefined || kept.status === 'proven')
  const range = entries === 0 ? '' : `, ${first} to ${last}`
  const lines = [
    ...(wrong > 0 ? [`${countOf(wrong, 'thing is', 'things are')} wrong with ${path}:`, ...problems.map(describeProblem)] : []),
    ...(problemsMore > 0 ? [`and ${problemsMore} more.`] : []),
    `${path} has ${countOf(entries, 'entry', 'entries')}${range}.`,
    ...describeProof(verdict),
    ...(kept === undefined ? [] : describeKept(kept, checkpoint?.size ?? entries)),
    ...(wrong === 0 && life.entries > 0 ? [describeLife(life), ...describeOutside(life.outside)] : []),
    ...life.restored.map(({ index, size }) => `Entry ${index} says that the log went on from a restored backup: what it had behind entry ${index - 1}, up to ${size} entries, is lost.`),
    ...(kept === undefined && proof !== 'nothing' ? [tailNotProven] : []),
  ]
  const json = {
    path,
    form,
    entries,
    first,
    last,
    checkpoint: checkpoint && { ...checkpoint, root: Buffer.from(checkpoint.root).toString('base64') },
    proof: wrong === 0 ? proof : 'nothing',
    proven_size: wrong === 0 ? provenSize : 0,
    unproven_entries: wrong === 0 ? unproven : entries,
    tail_proven_to: wrong === 0 && kept?.status === 'proven' ? kept.size : 0,
    kept: kept && { size: kept.size, status: kept.status.replaceAll(' ', '_'), abandoned_by: kept.abandonedBy },
    life: {
      entries: life.entries,
      grants_issued: life.issued,
      grants_revoked: life.revoked,
      outside_grants: describeCount(life.outside),
      restored_at: life.restored.map(({ index }) => index),
    },
    policy_sets: policySets,
    problems,
    problems_more: problemsMore,
  }
  return { title: 'file', ok, lines, json }
}

const tailNotProven =
  'Tail not proven: whether the log ever had other entries, or more of them, only a checkpoint that you kept from before can tell (--checkpoint).'

function describeProof({ proof, provenSize, unproven, checkpoint, problems, form }: FileVerdict): string[] {
  if (problems.length > 0) return ['Nothing is proven by a file that something is wrong with.']
  const rest = unproven === 0 ? [] : [`${countOf(unproven, 'entry is', 'entries are')} not covered by that, and not proven.`]
  switch (proof) {
    case 'complete':
      return [`Complete: they are the ${provenSize} entries of the tree that was signed, each as it was, none missing and none added.`, ...rest]
    case 'inclusion':
      return [`Inclusion: each of them is in the tree of ${provenSize} entries that was signed, as it was. What else is in it the file does not have.`, ...rest]
    case 'nothing':
      if (checkpoint !== undefined) return ['Nothing is proven: the tree that was signed has none of these entries.']
      return form === 'csv'
        ? ['Nothing is proven: CSV has no checkpoint in it. Give one that you kept (--checkpoint), or export as jsonl.']
        : ['Nothing is proven: the file does not end with a checkpoint. Give one that you kept (--checkpoint), or export it whole.']
  }
}

function describeKept({ size = 0, status, abandonedBy }: KeptVerdict, known: number): string[] {
  const accepted = `Entry ${abandonedBy} says that an admin gave this checkpoint up, when the log went on from a restored backup: what came between is lost.`
  const hint = abandonedBy === undefined ? [] : [accepted]
  switch (status) {
    case 'proven':
      return [`Tail proven up to ${size} entries: they are those of the checkpoint that you kept, and nothing of them was changed or removed since.`]
    case 'contradicted':
      return hint
    case 'not covered':
      return [
        size > known
          ? `The checkpoint that you kept is not proven: it states ${size} entries, and the log had ${known} by this file.`
          : `The checkpoint that you kept is not proven: the file lacks some of its ${size} entries. Export without a filter, or use --live.`,
        ...(size > known ? ['If the file is the newer of the two, the end of the log was cut off or an old backup was restored.'] : []),
        ...hint,
      ]
    default:
      return []
  }
}

function describeLife({ entries, issued, revoked }: FileVerdict['life']): string {
  const grants = issued === 0 ? 'no grant' : `${countOf(issued, 'grant')}, each with its decision, its policy set, its workload and key in good order`
  const ended = revoked === 0 ? '' : `; ${countOf(revoked, 'end', 'ends')} by revocation, each of a grant that was there`
  return `The first ${entries} entries of the log fit together: ${grants}${ended}.`
}

/** What became of the grants in outside tools, where there were any; whoever sees one that is not over has to look. */
function describeOutside({ issued, failed, ended, open, overdue, stuck, writtenOff }: FileVerdict['life']['outside']): string[] {
  if (issued === 0) return []
  const parts = [
    `${ended} ended there`,
    ...(failed === 0 ? [] : [`${failed} came to nothing`]),
    ...(open === 0 ? [] : [`${open} ${open === 1 ? 'was' : 'were'} not over by the last entry${overdue === 0 ? '' : `, ${overdue} of them past their time`}`]),
    ...(stuck === 0 ? [] : [`${stuck} stuck, which the tool refused to end`]),
    ...(writtenOff === 0 ? [] : [`${writtenOff} written off, whether or not anything lives`]),
  ]
  return [`${countOf(issued, 'grant was', 'grants were')} to live in outside tools: ${parts.join('; ')}.`]
}

function describeCount({ issued, failed, ended, open, overdue, stuck, writtenOff }: FileVerdict['life']['outside']) {
  return { issued, failed, ended, open, overdue, stuck, written_off: writtenOff }
}

function describeProblem({ line, index, what }: Problem): string {
  const place = [...(line === undefined ? [] : [`line ${line}`]), ...(index === undefined ? [] : [`entry ${index}`])].join(', ')
  return place === '' ? what : `${place}: ${what}`
}

/** What the check of a receipt is told as. */
export function describeReceipt(path: string, verdict: ReceiptVerdict): Section {
  const { ok, grant, checkpoint, indexes, problems, proven, unproven } = verdict
  const lines = [
    ...problems.map(({ index, problem }) => (index === undefined ? problem : `entry ${index}: ${problem}`)),
    ...proven,
    ...unproven.map((sentence) => `Not proven: ${sentence}`),
  ]
  const json = {
    path,
    grant,
    checkpoint: checkpoint && { ...checkpoint, root: Buffer.from(checkpoint.root).toString('base64') },
    entries: indexes,
    proven,
    unproven,
    problems,
  }
  return { title: 'receipt', ok, lines, json }
}

function countOf(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
}
