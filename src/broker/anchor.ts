import { AnchorFailure, type Anchor, type KeepingAnchor, type WitnessAnchor } from '../connectors/anchors/anchor.ts'
import { BrokerError } from '../kernel/errors.ts'
import { findNewestCheckpoint, listCheckpointsAfter } from '../storage/checkpoints.ts'
import { listRestorations } from '../storage/restorations.ts'
import { isAccepted, judgeKept, type Contradiction } from './anchor-contradiction.ts'
import { submitToWitness, WitnessAlarm } from './anchor-witness.ts'
import type { Broker } from './broker.ts'

/** How one anchor stands. */
export interface AnchorState {
  readonly name: string
  readonly kind: Anchor['kind']
  /** The size of the newest checkpoint that it is known to have of this log. */
  readonly keptSize?: number
  /** Entries of checkpoints that it did not have when it was tried last. */
  readonly behindEntries: number
  /** Why it could not be kept to, at the last try. */
  readonly failure?: string
  /** What it has of a log that is not this one; undecided as long as the ledger is held. */
  readonly contradiction?: Contradiction
}

/** The places outside of the database that keep each checkpoint (invariant 3). */
export interface Anchoring {
  /** Asks each anchor what it has, before anything is served: what this log's key signed and is not of it holds the ledger. */
  compare(): Promise<void>
  /** Keeps what one anchor does not have yet, or waits for what holds the ledger to be accepted. By a job for each. */
  keep(name: string): Promise<void>
  /** Goes on if what holds the ledger was accepted, be it by another process. */
  settle(): Promise<void>
  /** What holds the ledger. */
  contradictions(): readonly Contradiction[]
  listStates(): readonly AnchorState[]
  /** Keeps the last checkpoint, as far as it can be done soon. */
  close(): Promise<void>
}

export type AnchoringParts = Pick<Broker, 'database' | 'ledger' | 'checkpointKey' | 'log' | 'meter'>

/** What is known of one anchor. A restart finds it out again. */
interface Kept {
  readonly anchor: Anchor
  /** Whether what it has was compared with the tree at all. */
  compared: boolean
  size: number | undefined
  behindEntries: number
  failure: string | undefined
  /** Whether that failure, or one of those right before it, is an alarm that was told. */
  alarmed: boolean
  contradiction: Contradiction | undefined
  busy: boolean
}

// So much for one run of its job; the next one goes on.
const piecesPerRun = 20
const runMsMax = 5_000
const closeMsMax = 3_000

/** Makes the one who keeps checkpoints in these anchors, whose names differ. */
export function createAnchoring(parts: AnchoringParts, anchors: readonly Anchor[]): Anchoring {
  const { database, ledger, log, meter } = parts
  const all = anchors.map((anchor): Kept => ({ anchor, compared: false, size: undefined, behindEntries: 0, failure: undefined, alarmed: false, contradiction: undefined, busy: false }))
  // An alarm on a rate needs a first value that is not yet the fault.
  for (const { kind } of anchors) meter.count('anchor_failures', { kind }, 0)
  const contradictions = () => all.flatMap(({ contradiction }) => contradiction ?? [])

  /** Asks the anchor, and takes note of how that went. */
  async function attempt(kept: Kept, work: () => Promise<void>, atStart = false): Promise<void> {
    const { kind, name } = kept.anchor
    try {
      await work()
      if (kept.failure !== undefined) log.info('checkpoints are kept again', { anchor: name })
      kept.failure = undefined
      kept.alarmed = false
    } catch (error) {
      const failure = describeFailure(error)
      // What a start can be refused for, nobody has to find out later.
      if (failure === undefined || (atStart && error instanceof BrokerError)) throw error
      meter.count('anchor_failures', { kind })
      const alarms = error instanceof WitnessAlarm && !kept.alarmed
      // Once for each fault, for it is tried every second; an alarm is not lost behind one that is none.
      if (kept.failure === undefined || alarms) log.error('an anchor does not keep checkpoints; they are kept once it does', { anchor: name, error: failure })
      kept.failure = failure
      kept.alarmed ||= alarms
    }
  }

  function contradict(kept: Kept, contradiction: Contradiction): void {
    kept.contradiction = contradiction
    ledger.hold(contradictions().map(({ why }) => why).join('; '))
    log.error(
      `nothing is issued: ${contradiction.why}. Put the right database back; or an admin accepts what is lost, once for all, with \`stint audit accept-restored\`, whose --help says what it does`,
      { anchor: contradiction.anchor, anchored_size: contradiction.size },
    )
  }

  /** Holds the ledger if the tree does not have what the anchor has. */
  async function compareKept(kept: Kept, anchor: KeepingAnchor): Promise<void> {
    const last = await anchor.last()
    const verdict = last === undefined ? undefined : await judgeKept(parts, anchor, last)
    const first = !kept.compared
    kept.compared = true
    if (verdict === undefined) {
      const newest = first ? await findNewestCheckpoint(database.read) : undefined
      if (newest !== undefined) log.warn('an anchor has no checkpoint to compare this log with, as if it were new: had it any, somebody has taken them away', { anchor: anchor.name })
    } else if (verdict.status === 'of this log') kept.size = Math.max(kept.size ?? 0, verdict.size)
    else if (verdict.status === 'contradicts') contradict(kept, verdict.contradiction)
  }

  async function keepPending(kept: Kept, anchor: KeepingAnchor): Promise<void> {
    const beganMs = performance.now()
    for (let piece = 0; piece < piecesPerRun && performance.now() - beganMs < runMsMax; piece++) {
      const newest = await findNewestCheckpoint(database.read)
      if (newest === undefined) return
      // An anchor that has nothing of this log begins with the newest one, which stands for all before it.
      const pending = kept.size === undefined ? [newest] : await listCheckpointsAfter(database.read, kept.size, anchor.pieceMax)
      const last = pending.at(-1)
      kept.behindEntries = last === undefined ? 0 : newest.size - (kept.size ?? 0)
      if (last === undefined) return
      // Each time: the database may be another one by now, and what is kept must not be mixed with what contradicts it.
      await compareKept(kept, anchor)
      if (ledger.held !== undefined) return
      const { size: there = -1 } = kept
      // Another process may have kept some meanwhile.
      const missing = pending.filter(({ size }) => size > there)
      if (missing.length > 0) await anchor.keep(missing.map(({ note }) => note))
      kept.size = Math.max(there, last.size)
      kept.behindEntries = Math.max(0, newest.size - kept.size)
      if (kept.behindEntries === 0) return
    }
  }

  async function witness(kept: Kept, anchor: WitnessAnchor): Promise<void> {
    const newest = await findNewestCheckpoint(database.read)
    // It is asked for its state with a checkpoint in hand, or not at all.
    if (newest === undefined || (kept.compared && kept.size === newest.size)) return
    kept.behindEntries = newest.size - (kept.size ?? 0)
    const verdict = await submitToWitness(parts, anchor, newest, kept.size)
    kept.size = verdict.size
    kept.behindEntries = Math.max(0, newest.size - verdict.size)
    kept.compared ||= verdict.status === 'of this log'
  }

  async function keepOne(kept: Kept): Promise<void> {
    // Slow ones are not asked twice at once, as by the last run and the job.
    if (kept.busy) return
    kept.busy = true
    try {
      await attempt(kept, async () => {
        const { anchor } = kept
        if (anchor.kind === 'witness') return witness(kept, anchor)
        if (!kept.compared) await compareKept(kept, anchor)
        if (ledger.held === undefined) await keepPending(kept, anchor)
      })
    } finally {
      kept.busy = false
    }
  }

  async function settle(): Promise<void> {
    if (contradictions().length === 0) return
    const restorations = await listRestorations(database.read)
    if (!contradictions().every((contradiction) => isAccepted(contradiction, restorations))) return
    for (const kept of all) {
      // Looked at again: what is of another log is not written to.
      if (kept.contradiction === undefined) continue
      kept.compared = false
      kept.size = undefined
      kept.contradiction = undefined
    }
    ledger.release()
    log.warn('the log was accepted as it is: issuance goes on')
  }

  return {
    async compare() {
      await Promise.all(
        all.map((kept) => {
          const { anchor } = kept
          return attempt(kept, () => (anchor.kind === 'witness' ? witness(kept, anchor) : compareKept(kept, anchor)), true)
        }),
      )
    },
    async keep(name) {
      const kept = all.find(({ anchor }) => anchor.name === name)
      if (kept !== undefined && ledger.held === undefined) await keepOne(kept)
    },
    settle,
    contradictions,
    listStates: () =>
      all.map(({ anchor: { name, kind }, size, behindEntries, failure, contradiction }) => ({
        name,
        kind,
        behindEntries,
        ...(size !== undefined && { keptSize: size }),
        ...(failure !== undefined && { failure }),
        ...(contradiction !== undefined && { contradiction }),
      })),
    async close() {
      if (ledger.held !== undefined) return
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, closeMsMax)
      })
      await Promise.race([Promise.all(all.map(keepOne)), late])
      clearTimeout(timer)
    },
  }
}

/** Why an anchor failed, for the operator, or `undefined` for what is no fault of it, such as what the database throws. */
function describeFailure(error: unknown): string | undefined {
  if (error instanceof AnchorFailure) return error.message
  return error instanceof BrokerError && error.code === 'config_invalid' ? error.publicMessage : undefined
}
