import type { AdminClient } from '../client/admin.ts'
import { StintError } from '../client/errors.ts'
import type { AuditExportQuery } from '../client/log-records.ts'
import type { Io } from './command.ts'
import type { ExportFile, ExportRange } from './export-file.ts'
import { createProgress, type Progress } from './progress.ts'
import { printable } from './terminal.ts'

/** What is to be written, and where to: to the file, or to standard output. */
export interface ExportTask {
  readonly client: Pick<AdminClient, 'exportAudit' | 'proveExport'>
  readonly query: AuditExportQuery
  readonly file: ExportFile | undefined
  /** How many times in a row a lost connection is taken up. */
  readonly retriesMax: number
}

export interface WrittenEntries extends ExportRange {
  /** How many this run has written. */
  readonly entries: number
  /** The entry that records it; absent where the log is held, or nothing but the proof was left to get. */
  readonly audit_index?: number
}

export interface WrittenExport extends WrittenEntries {
  /** How many entries the checkpoint has that proves it; absent without a proof. */
  readonly checkpoint_size?: number
}

/** Writes all of an export: its entries, and as JSON Lines its proof. What does not end well is left for another run. */
export async function writeExport(task: ExportTask, io: Io): Promise<WrittenExport> {
  const { query, file } = task
  const progress = createProgress(io)
  const state: State = { reached: undefined, entriesAreThere: false }
  try {
    const entries = await writeEntries(task, state, progress, io)
    state.entriesAreThere = true
    const proof = query.format === 'csv' ? {} : await writeProof(task, file?.range ?? entries, progress, io)
    await file?.finish()
    progress.clear()
    return { ...entries, ...proof }
  } catch (error) {
    progress.clear()
    const left = await file?.leave()
    if (left === true) io.err('The export is not complete: run the same command with --resume to go on.\n')
    else if (state.entriesAreThere) io.err('The export is not complete: all entries are there, and not all of its proof.\n')
    else if (state.reached !== undefined) io.err(`The export is not complete: it ends with entry ${state.reached}.\n`)
    throw error
  }
}

/** How far it came, for whoever has to be told. */
interface State {
  reached: number | undefined
  entriesAreThere: boolean
}

async function writeEntries({ client, query, file, retriesMax }: ExportTask, state: State, progress: Progress, io: Io): Promise<WrittenEntries> {
  if (file?.range !== undefined && file.query === undefined) return { ...file.range, entries: 0 }
  const startedAt = performance.now()
  let entries = 0
  const { first, last, audit_index: index, lines } = await client.exportAudit(file?.query ?? query, { retriesMax })
  if (index === undefined) io.err('The broker holds its log: it gives this export without recording it, and may prove less than all of it.\n')
  await file?.begin({ first, last })
  for await (const { bytes, entries: added, last_index: at } of lines) {
    await (file?.write(bytes) ?? io.write(bytes))
    entries += added
    state.reached = at ?? state.reached
    progress.show(() => {
      const perSecond = Math.round(entries / ((performance.now() - startedAt) / 1000))
      return `${entries} entries, at ${state.reached ?? first} of ${first} to ${last}, ${perSecond}/s`
    })
  }
  return { first, last, entries, ...(index !== undefined && { audit_index: index }) }
}

/** The proof goes behind the entries. A broker that gives none is told of; the entries are what they are without it. */
async function writeProof(
  { client, query, file, retriesMax }: ExportTask,
  { first, last }: ExportRange,
  progress: Progress,
  io: Io,
): Promise<Pick<WrittenExport, 'checkpoint_size'>> {
  const { type, workload, tool, grant, task } = query
  await file?.beginProof()
  let size: number | undefined
  let bytesWritten = 0
  try {
    progress.show(() => 'the proof')
    for await (const { bytes, checkpoint_size: of, reached } of client.proveExport({ type, workload, tool, grant, task, first, last }, { retriesMax })) {
      size = of
      await (file?.write(bytes) ?? io.write(bytes))
      bytesWritten += bytes.length
      progress.show(() => (reached === undefined ? `the proof, ${(bytesWritten / 1e6).toFixed(1)} MB` : `the proof, at ${reached} of ${of} entries`))
    }
  } catch (error) {
    if (!(error instanceof StintError) || error.code !== 'not_found' || size !== undefined) throw error
    progress.clear()
    io.err(`The export has no proof, for this broker gives none; it may be of an older version. It says: ${printable(error.message)}\n`)
  }
  return size === undefined ? {} : { checkpoint_size: size }
}
