import { existsSync } from 'node:fs'
import { constants, open, readFile, rename, rm, writeFile, type FileHandle } from 'node:fs/promises'
import { indexOfLast } from '../client/export.ts'
import type { AuditExportQuery } from '../client/log-records.ts'
import { CommandError } from './command.ts'
import { describeWriteError } from './write-error.ts'

/** What a file holds, or is to hold: which broker's entries, and which of them. */
export interface ExportPlan {
  readonly url: string
  readonly query: AuditExportQuery
}

/** The indexes of an export, both included; `last` is before `first` where it is empty. */
export interface ExportRange {
  readonly first: number
  readonly last: number
}

/** A file that an export is written to: under another name, FILE.part, until it is complete. */
export interface ExportFile {
  /**
   * What is to be asked for: what the plan says, behind what is there already and up to where that would have ended.
   * `undefined` where all entries are there, and the proof is not.
   */
  readonly query: AuditExportQuery | undefined
  /** Of the whole file, where a run that did not end has begun it. */
  readonly range: ExportRange | undefined
  /** Takes note of the range that was promised, before the first line. */
  begin(range: ExportRange): Promise<void>
  /** Takes note that all entries are there, before the first line of the proof. */
  beginProof(): Promise<void>
  write(bytes: Uint8Array): Promise<void>
  /** Gives the complete file its name. */
  finish(): Promise<void>
  /** Leaves what there is for another run, and says whether there is something. */
  leave(): Promise<boolean>
}

/** Makes a file that was not there, and that nobody else can read. Throws a `CommandError` that says what is in the way. */
export async function createExportFile(path: string, plan: ExportPlan): Promise<ExportFile> {
  const { part, notes } = namesOf(path)
  refuseExisting(path)
  const file = await openPart(part, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_EXCL, (code) =>
    code === 'EEXIST' ? `${part} is there from a run that did not end: add --resume to go on, or remove it to start afresh` : undefined,
  )
  let begun: ExportRange | undefined
  return {
    query: plan.query,
    range: undefined,
    async begin(range) {
      await writeNotes(notes, { ...plan, ...range })
      begun = range
    },
    async beginProof() {
      if (begun !== undefined) await noteEntries(file, part, notes, { ...plan, ...begun })
    },
    ...writerOf(file, path),
    async leave() {
      await file.close()
      if (begun === undefined) await Promise.all([part, notes].map((name) => rm(name, { force: true })))
      return begun !== undefined
    },
  }
}

/**
 * Opens what a run that did not end has left of this plan, less the line that it was in the middle of, and less what it had
 * of the proof. Throws a `CommandError` where there is nothing to go on with.
 */
export async function reopenExportFile(path: string, plan: ExportPlan): Promise<ExportFile> {
  const { part, notes } = namesOf(path)
  refuseExisting(path)
  const noted = await readNotes(part, notes, plan)
  const { first, last } = noted
  const file = await openPart(part, constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW, (code) =>
    code === 'ENOENT' ? `there is no ${part} to go on with: leave --resume out` : undefined,
  )
  let query: AuditExportQuery | undefined
  try {
    query = await cutToRest(file, part, noted)
  } catch (error) {
    await file.close()
    throw error
  }
  return {
    query,
    range: { first, last },
    begin: async () => undefined,
    beginProof: () => noteEntries(file, part, notes, noted),
    ...writerOf(file, path),
    leave: async () => (await file.close(), true),
  }
}

function namesOf(path: string) {
  return { part: `${path}.part`, notes: `${path}.part.json` }
}

function refuseExisting(path: string): void {
  if (existsSync(path)) throw new CommandError(`${path} exists already and is left as it is: choose another name`)
}

async function openPart(part: string, flags: number, explain: (code: string) => string | undefined): Promise<FileHandle> {
  try {
    return await open(part, flags, 0o600)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const usual = code === 'ENOENT' ? 'its folder does not exist' : code
    throw new CommandError(explain(code) ?? `cannot open ${part}: ${usual}`)
  }
}

function writerOf(file: FileHandle, path: string): Pick<ExportFile, 'write' | 'finish'> {
  const { part, notes } = namesOf(path)
  return {
    write: (bytes) => file.appendFile(bytes).catch((error: unknown) => refuseWrite(part, error)),
    async finish() {
      // The name says that the file is complete: not before all of it is on the disk.
      await file.sync().catch((error: unknown) => refuseWrite(part, error))
      await file.close()
      refuseExisting(path)
      await rename(part, path)
      await rm(notes, { force: true })
    },
  }
}

function refuseWrite(file: string, error: unknown): never {
  const kept = 'what is there already stays; make room, then go on with --resume'
  throw new CommandError(`cannot write to ${file}: ${describeWriteError(error)}: ${kept}`)
}

interface Notes extends ExportPlan, ExportRange {
  /** How long the file is with all entries, once they are there: what stands behind is of the proof. */
  readonly entries_bytes?: number
}

/** Writes the notes, whole or not at all, and durably: what they say is relied on after a crash. */
async function writeNotes(path: string, notes: Notes): Promise<void> {
  const draft = `${path}.new`
  try {
    await rm(draft, { force: true })
    await writeFile(draft, `${JSON.stringify(notes)}\n`, { flag: 'wx', mode: 0o600, flush: true })
    await rename(draft, path)
  } catch (error) {
    await rm(draft, { force: true }).catch(() => undefined)
    throw new CommandError(`cannot write to ${path}: ${describeWriteError(error)}`)
  }
}

async function noteEntries(file: FileHandle, part: string, path: string, notes: Notes): Promise<void> {
  await file.sync().catch((error: unknown) => refuseWrite(part, error))
  await writeNotes(path, { ...notes, entries_bytes: (await file.stat()).size })
}

async function readNotes(part: string, notes: string, plan: ExportPlan): Promise<Notes> {
  const startAfresh = `remove ${part} and leave --resume out`
  let found: Notes
  try {
    // Written by `begin` alone; what is in it is compared below.
    found = JSON.parse(await readFile(notes, 'utf8')) as Notes
  } catch {
    if (!existsSync(part)) throw new CommandError(`there is no ${part} to go on with: leave --resume out`)
    throw new CommandError(`${notes}, which says what ${part} holds, cannot be read: ${startAfresh}`)
  }
  const { url, query, first, last, entries_bytes: bytes = 0 } = found
  if (JSON.stringify({ url, query }) !== JSON.stringify({ url: plan.url, query: plan.query })) {
    throw new CommandError(`${part} was begun with other options (${JSON.stringify({ url, ...query })}): give the same, or ${startAfresh}`)
  }
  if ([first, last, bytes].every(Number.isSafeInteger)) return found
  throw new CommandError(`${notes} does not say where ${part} ends: ${startAfresh}`)
}

/** Cuts the file behind its last whole entry, and says what is left to be asked for: nothing where all entries are there. */
async function cutToRest(file: FileHandle, part: string, { query, first, last, entries_bytes: bytes }: Notes): Promise<AuditExportQuery | undefined> {
  if (bytes === undefined) {
    const after = await cutToEntries(file, part, query.format ?? 'jsonl')
    return { ...query, ...(after !== undefined && { after }), ...(last >= first && { until: last }) }
  }
  if (bytes < 0 || (await file.stat()).size < bytes) throw new CommandError(`${part} has lost entries that it had: remove it and leave --resume out`)
  await file.truncate(bytes)
  return undefined
}

// More than the longest line, twice.
const tailBytes = 3 * 1024 * 1024

/** Cuts the file behind its last whole entry, and returns that one's index; a header alone goes too, for it will come again. */
async function cutToEntries(file: FileHandle, part: string, format: 'jsonl' | 'csv'): Promise<number | undefined> {
  const { size } = await file.stat()
  const from = Math.max(0, size - tailBytes)
  const tail = Buffer.alloc(size - from)
  let read = 0
  for (let got = -1; got !== 0 && read < tail.length; read += got) {
    got = (await file.read(tail, read, tail.length - read, from + read)).bytesRead
  }
  const whole = tail.subarray(0, tail.lastIndexOf(0x0a) + 1)
  const last = readLast(whole, part, format)
  if (last === undefined && from > 0) throw new CommandError(`${part} is no export: remove it and leave --resume out`)
  const end = last === undefined ? 0 : from + whole.length
  await file.truncate(end)
  return last
}

function readLast(lines: Buffer, part: string, format: 'jsonl' | 'csv'): number | undefined {
  try {
    return indexOfLast(lines, format)
  } catch {
    throw new CommandError(`${part} does not end with an entry as ${format}: remove it and leave --resume out`)
  }
}
