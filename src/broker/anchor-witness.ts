import { consistencyNodes } from '../audit/proof.ts'
import { AnchorFailure, type WitnessAnchor } from '../connectors/anchors/anchor.ts'
import { findCosignedSize, insertCosignature, type StoredCheckpoint } from '../storage/checkpoints.ts'
import { readHead } from '../storage/head.ts'
import { readNode } from '../storage/tree.ts'
import type { Broker } from './broker.ts'
import { commit } from './commit.ts'

type Submitting = Pick<Broker, 'database' | 'ledger'>

export type Witnessed =
  /** It has signed this checkpoint. */
  | { readonly status: 'of this log'; readonly size: number }
  /** It has signed more than this checkpoint, which the log may well have: a later checkpoint will tell. */
  | { readonly status: 'ahead'; readonly size: number }

/**
 * A witness says that it has signed what is not of this log. It says so without a signature, so that it cannot be told from
 * a lie, and holds nothing; but it may well be true, and somebody has to look.
 */
export class WitnessAlarm extends AnchorFailure {
  constructor(said: string) {
    super(
      `${said}. If that is true, this is a restored backup, another broker serves a copy of this log, or somebody has rewritten the database: hold the log against a checkpoint that was kept elsewhere, with \`stint audit verify\`. If the log was restored and that was accepted, ask who runs the witness to forget it, or take it out of anchors. If none of these, the witness errs or lies`,
    )
    this.name = 'WitnessAlarm'
  }
}

const triesMax = 3

/**
 * Has a witness sign a checkpoint, led there from the size that it has signed before, and stores what it signs. `knownSize`
 * is that size as far as this process knows. Throws `AnchorFailure` where it does not sign, and as `WitnessAlarm` where it
 * says that it has signed another log.
 */
export async function submitToWitness(broker: Submitting, anchor: WitnessAnchor, newest: StoredCheckpoint, knownSize: number | undefined): Promise<Witnessed> {
  const { read } = broker.database
  let oldSize = knownSize ?? (await findCosignedSize(read, anchor.keyName)) ?? 0
  for (let tries = 0; tries < triesMax; tries++) {
    if (oldSize > newest.size) return judgeAhead(broker, anchor, oldSize)
    const answer = await anchor.addCheckpoint({ note: newest.note, oldSize, proof: await readProof(read, oldSize, newest.size) })
    if (answer.status === 'signed') {
      await keepCosignature(broker, anchor, newest, answer.line)
      return { status: 'of this log', size: newest.size }
    }
    // An earlier edition of the protocol said that of roots that differ, too.
    if (answer.status === 'contradicted' || answer.size === oldSize) {
      throw oldSize === 0
        ? new AnchorFailure(`${anchor.name} says that this log does not go on from nothing, which every log does: ask who runs it`)
        : new WitnessAlarm(`${anchor.name} says that it has signed ${oldSize} entries that this log does not go on from`)
    }
    oldSize = answer.size
  }
  throw new AnchorFailure(`${anchor.name} is asked by somebody else for this log at the same time: it has signed another size each time`)
}

async function judgeAhead(broker: Submitting, { name }: WitnessAnchor, size: number): Promise<Witnessed> {
  const { size: there } = await readHead(broker.database.read)
  if (size <= there) return { status: 'ahead', size }
  throw new WitnessAlarm(`${name} says that it has signed ${size} entries, and this log has ${there}`)
}

async function readProof(read: Submitting['database']['read'], oldSize: number, size: number): Promise<Uint8Array[]> {
  const proof: Uint8Array[] = []
  // From nothing, no proof leads.
  for (const node of oldSize === 0 ? [] : consistencyNodes(oldSize, size)) proof.push(await readNode(read, node))
  return proof
}

async function keepCosignature(broker: Submitting, { keyName }: WitnessAnchor, { size }: StoredCheckpoint, line: string): Promise<void> {
  // Held by what another anchor has, nothing is committed; the witness signs again when it goes on.
  if (broker.ledger.held !== undefined) return
  await commit(broker, {
    async apply(tx, { timeMs }) {
      await insertCosignature(tx, size, keyName, line, timeMs)
      return { result: undefined, unrecorded: 'housekeeping' }
    },
  })
}
