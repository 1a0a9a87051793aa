import { findSignature, formatSignature, parseNote, parseSignatures, parseVerifierKey, type NoteVerifier } from '../../audit/note.ts'
import { BrokerError } from '../../kernel/errors.ts'
import { AnchorFailure, type Submission, type WitnessAnchor, type WitnessAnswer } from './anchor.ts'
import { createExchange, type ExchangeOptions } from './exchange.ts'

export interface WitnessOptions extends ExchangeOptions {
  /** The submission prefix, without `/add-checkpoint`. */
  readonly url: string
  /** Its verifier key, as `name+hash+key`. */
  readonly key: string
}

/** A witness that speaks https://c2sp.org/tlog-witness. Throws `config_invalid` for a key that is none of a witness. */
export function createWitnessAnchor({ url, key, ...options }: WitnessOptions): WitnessAnchor {
  const verifier = readWitnessKey(url, key)
  const exchange = createExchange(options)
  const address = new URL(`${url.replace(/\/$/, '')}/add-checkpoint`)
  return {
    kind: 'witness',
    name: `witness ${verifier.name}`,
    keyName: verifier.name,
    async addCheckpoint(submission) {
      const { status, text } = await exchange(address, { text: formatSubmission(submission) })
      return readAnswer(status, text, submission, verifier)
    },
  }
}

function readWitnessKey(url: string, key: string): NoteVerifier {
  const verifier = parseVerifierKey(key)
  if (verifier?.kind === 'cosignature') return verifier
  const publicMessage =
    verifier === undefined
      ? `the key of the witness ${url} is no verifier key of Ed25519: it is one line, name+hash+key, as its operator publishes it`
      : `the key of the witness ${url} is one that signs logs, not one that signs as a witness: ask its operator for the right one`
  throw new BrokerError({ code: 'config_invalid', publicMessage })
}

function formatSubmission({ oldSize, proof, note }: Submission): string {
  const lines = proof.map((hash) => `${Buffer.from(hash).toString('base64')}\n`)
  return `old ${oldSize}\n${lines.join('')}\n${note}`
}

function readAnswer(status: number, text: string, { note }: Submission, verifier: NoteVerifier): WitnessAnswer {
  switch (status) {
    case 200: {
      const [signed, signatures] = [parseNote(note), parseSignatures(text)]
      // Signatures by other keys are to be ignored.
      const own = signed && signatures && findSignature({ text: signed.text, signatures }, verifier)
      if (own === undefined) throw new AnchorFailure(`${verifier.name} did not answer with a signature by its key`)
      return { status: 'signed', line: formatSignature(own) }
    }
    case 409: {
      const size = /^(?:0|[1-9]\d{0,15})\n$/.test(text) ? Number(text) : Number.NaN
      if (!Number.isSafeInteger(size)) throw new AnchorFailure(`${verifier.name} answered 409 without the size that it has signed`)
      return { status: 'elsewhere', size }
    }
    case 422:
      return { status: 'contradicted' }
    case 403:
      throw new AnchorFailure(`${verifier.name} does not know the key of this log: give its operator what \`stint audit key\` prints`)
    case 404:
      throw new AnchorFailure(`${verifier.name} does not know this log: give its operator what \`stint audit key\` prints`)
    default:
      throw new AnchorFailure(`${verifier.name} answered ${status}`)
  }
}
