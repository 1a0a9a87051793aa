import { consistencyNodes } from '../audit/proof.ts'
import { AnchorFailure, type WitnessAnchor } from '../connectors/anchors/anchor.ts'
import { findCosignedSize, insertCosignature, type StoredCheckpoint } from '../storage/checkpoints.ts'
import { readHead } from '../storage/head.ts'
import { listRestorations } from '../storage/restorations.ts'
import { readNode } from '../storage/tree.ts'
import { isAccepted, type Contradiction, type Verdict } from './anchor-contradiction.ts'
import type { Broker } from './broker.ts'
import { commit } from './commit.ts'

type Submitting = Pick<Broker, 'database' | 'ledger'>

export type Witnessed =
  | Exclude<Verdict, { readonly status: 'accepted' }>
  /** It has signed more than this checkpoint, which the log may well have: a later checkpoint will tell. */
  | { readonly status: 'ahead'; readonly size: number }

const triesMax = 3

/**
 * Has a witness sign a checkpoint, led there from the size that it has signed before, and stores what it signs. `knownSize`
 * is that size as far as this process knows. Throws where it does not sign for a reason of its own.
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
      const why = `${anchor.name} has signed ${oldSize} entries that this log does not go on from: this is not the log that was anchored`
      return contradict(broker, { anchor: anchor.name, size: oldSize, why })
    }
    oldSize = answer.size
  }
  throw new AnchorFailure(`${anchor.name} is asked by somebody else for this log at the same time: it has signed another size each time`)
}

async function judgeAhead(broker: Submitting, { name }: WitnessAnchor, size: number): Promise<Witnessed> {
  const { size: there } = await readHead(broker.database.read)
  if (size <= there) return { status: 'ahead', size }
  const why = `${name} has signed ${size} entries, and this log has ${there}: this looks like a restored backup`
  return contradict(broker, { anchor: name, size, why })
}

async function contradict({ database }: Submitting, contradiction: Contradiction): Promise<Witnessed> {
  if (!isAccepted(contradiction, await listRestorations(database.read))) return { status: 'contradicts', contradiction }
  // It can never sign this log again, by its own rules.
  throw new AnchorFailure(`${contradiction.anchor} signs nothing of this log since it was restored: ask who runs it to forget the log, or take it out of anchors`)
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
