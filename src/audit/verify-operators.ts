import { objectOf, textOf, timeOf, type Judged, type Rules, type Told } from './verify-event.ts'

interface Known {
  /** The operator's id, or the person's in whose name a session acts. */
  readonly actor: string
  expiresAtMs: number
  ended?: { readonly index: number; readonly requestId: string }
}

/** The operators and the sessions of people, as the log has told of them so far. */
export interface KnownOperators {
  readonly rules: Rules
  /** Whether the operator who has caused this was one, then. */
  judgeActor(told: Told): Judged
}

// These are recorded after the credential was looked at, and not together with another look at it: a revocation perhaps much
// later, for it is carried out also while the log cannot be written (invariant 1).
const recordedLater: readonly string[] = ['change.refused', 'policy.rejected', 'grant.revoked', 'grants.revoked']

export function createKnownOperators(): KnownOperators {
  const operators = new Map<string, Known>()
  const sessions = new Map<string, Known>()

  function end(known: Known | undefined, what: string, { event, index }: Told): Judged {
    if (known === undefined) return `ends ${what}, which did not begin before`
    if (known.ended !== undefined) return `ends ${what}, which entry ${known.ended.index} had ended`
    known.ended = { index, requestId: textOf(event, 'request_id') }
    return undefined
  }

  const rules: Rules = {
    'operator.created': ({ event }) => {
      const id = textOf(event, 'operator')
      if (id === '' || operators.has(id)) return `makes the operator ${id} once more`
      operators.set(id, { actor: id, expiresAtMs: timeOf(event, 'expires_at') ?? Infinity })
      return undefined
    },
    'operator.rotated': ({ event }) => {
      const id = textOf(event, 'operator')
      const operator = operators.get(id)
      if (operator === undefined) return `is about the operator ${id}, which was not made before`
      if (operator.ended !== undefined) return `is about the operator ${id}, which entry ${operator.ended.index} had revoked`
      operator.expiresAtMs = timeOf(event, 'expires_at') ?? Infinity
      return undefined
    },
    'operator.revoked': (told) => {
      const id = textOf(told.event, 'operator')
      return end(operators.get(id), `the operator ${id}`, told)
    },
    'operator.signed_in': ({ event }) => {
      const id = textOf(event, 'session')
      if (id === '' || sessions.has(id)) return `begins the session ${id} once more`
      sessions.set(id, { actor: `oidc:${textOf(event, 'subject')}`, expiresAtMs: timeOf(event, 'expires_at') ?? Infinity })
      return undefined
    },
    'operator.signed_out': (told) => {
      const id = textOf(told.event, 'session')
      return end(sessions.get(id), `the session ${id}`, told)
    },
  }

  return {
    rules,
    judgeActor({ event, timeMs }) {
      const actor = objectOf(event, 'actor')
      // A session begins with the entry that tells of it.
      if (textOf(actor, 'kind') !== 'operator' || event['type'] === 'operator.signed_in') return undefined
      const [id, session] = [textOf(actor, 'id'), textOf(actor, 'session')]
      const known = session === '' ? operators.get(id) : sessions.get(session)
      const who = session === '' ? `operator ${id}` : `${id} in the session ${session}`
      if (known?.actor !== id) return `is by the ${who}, which was not there before`
      if (recordedLater.includes(textOf(event, 'type'))) return undefined
      // Who ends several at once may be among them.
      const { ended, expiresAtMs } = known
      const together = ended !== undefined && ended.requestId !== '' && ended.requestId === textOf(event, 'request_id')
      if (ended !== undefined && !together) return `is by the ${who}, which entry ${ended.index} had ended`
      return expiresAtMs <= timeMs ? `is by the ${who}, which had expired` : undefined
    },
  }
}
