import {
  getCedarVersion,
  policyToJson,
  preparsePolicySet,
  statefulIsAuthorized,
  validate,
  type AuthorizationAnswer,
  type CedarValueJson,
  type DetailedError,
  type EntityJson,
  type Expr,
  type PolicyJson,
  type SchemaJson,
  type TypeAndId,
} from '@cedar-policy/cedar-wasm/nodejs'

// The only file that imports Cedar. Everything else of the house knows these few types and functions.
export type { CedarValueJson, EntityJson, Expr, PolicyJson, TypeAndId }
export type CedarSchema = SchemaJson<string>

/** Cedar's version, recorded with each decision (invariant 5). */
export const cedarVersion: string = getCedarVersion()

/** What Cedar has to say about one policy. `byteOffset` counts UTF-8 bytes from the start of the policy's own text. */
export interface CedarMessage {
  readonly message: string
  readonly help?: string
  readonly byteOffset?: number
}

/** Parses the text of exactly one static policy to its JSON form (EST). Integers beyond 2^53 lose digits there: evaluate the text. */
export function parsePolicy(text: string): { policy: PolicyJson } | { errors: CedarMessage[] } {
  const answer = policyToJson(text)
  return answer.type === 'success' ? { policy: answer.json } : { errors: answer.errors.map(readMessage) }
}

/** Validates policies (text by id) strictly. Warnings are returned like errors: both are reasons to refuse a set. */
export function validatePolicies(
  schema: CedarSchema,
  policies: Readonly<Record<string, string>>,
): { policyId?: string; problem: CedarMessage }[] {
  const answer = validate({ schema, policies: { staticPolicies: policies }, validationSettings: { mode: 'strict' } })
  if (answer.type === 'failure') {
    return [...answer.errors, ...answer.warnings].map((error) => ({ problem: readMessage(error) }))
  }
  return [
    ...[...answer.validationErrors, ...answer.validationWarnings].map(({ policyId, error }) => {
      return { policyId, problem: readMessage(error) }
    }),
    ...answer.otherWarnings.map((error) => ({ problem: readMessage(error) })),
  ]
}

/** One question to Cedar: principal, action and resource with every entity that a rule may ask about, and the context. */
export interface CedarCall {
  readonly principal: TypeAndId
  readonly action: TypeAndId
  readonly resource: TypeAndId
  readonly context: Readonly<Record<string, CedarValueJson>>
  readonly entities: readonly EntityJson[]
}

export interface CedarAnswer {
  readonly allowed: boolean
  /** Ids of the determining policies: the permits of an allow, the forbids of a deny. */
  readonly reasons: readonly string[]
  /** Errors and warnings, each `policy-id: message`. The caller denies if there is any (invariant 4). */
  readonly errors: readonly string[]
}

/** Puts policies (text by id) into a named slot of Cedar's memory, in place of what was there. Cedar never drops a slot. */
export function fillSlot(slot: string, policies: Readonly<Record<string, string>>): void {
  const answer = preparsePolicySet(slot, { staticPolicies: policies })
  if (answer.type === 'failure') {
    throw new Error(`Cedar refused policies that it had accepted at load: ${answer.errors[0]?.message ?? 'no reason given'}`)
  }
}

/** Evaluates the policies of a slot, without the schema: the entities are complete by construction. */
export function evaluateSlot(slot: string, call: CedarCall): CedarAnswer {
  const answer = statefulIsAuthorized({ ...call, entities: [...call.entities], preparsedPolicySetId: slot })
  return readAnswer(answer)
}

function readAnswer(answer: AuthorizationAnswer): CedarAnswer {
  const warnings = answer.warnings.map((warning) => `cedar: ${warning.message}`)
  if (answer.type === 'failure') {
    const errors = answer.errors.map((error) => `cedar: ${error.message}`)
    return { allowed: false, reasons: [], errors: [...errors, ...warnings, ...(errors.length === 0 ? ['cedar: failed'] : [])] }
  }
  const { decision, diagnostics } = answer.response
  const errors = diagnostics.errors.map(({ policyId, error }) => `${policyId}: ${withoutPolicyName(error.message)}`)
  return { allowed: decision === 'allow', reasons: diagnostics.reason, errors: [...errors, ...warnings].sort() }
}

function readMessage(error: DetailedError): CedarMessage {
  // Cedar puts what it expected into the label of the place.
  const [place] = error.sourceLocations ?? []
  const message = withoutPolicyName(error.message) + (place?.label == null ? '' : `: ${place.label}`)
  return {
    message,
    ...(error.help === null ? {} : { help: withoutPolicyName(error.help) }),
    ...(place === undefined ? {} : { byteOffset: place.start }),
  }
}

// The problem and the reason name the policy already.
function withoutPolicyName(message: string): string {
  return message
    .replace(/^for policy `[^`]*`, /, '')
    .replace(/^error while evaluating policy `[^`]*`: /, '')
    .replace(/^failed to parse policy(?: with id `[^`]*`)? from string: /, '')
}
