/**
 * Every reason for which a caller is not believed, with what it means to the operator who reads it in the log. Outside,
 * all of them look the same (invariant 10).
 */
export const refusalMeanings = {
  assertion_missing: 'no client assertion was sent, or not as RFC 7523 §2.2 asks',
  assertion_malformed: 'not a compact JWS of canonical base64url with one strict JSON object each in header and payload',
  header_not_allowed: 'the header holds something other than alg, kid and typ, or a kid that is not text',
  algorithm_not_allowed: 'the algorithm is not ES256 or Ed25519, or not the named key\'s own',
  type_not_allowed: 'it is signed for another use, such as an access token, and no client assertion',
  claims_malformed: 'a claim is missing or has the wrong form or an impossible value',
  expiry_missing: 'there is no exp claim',
  jti_missing: 'there is no jti claim, so a replay could not be noticed',
  issuer_mismatch: 'iss is not a SPIFFE ID of this trust domain',
  subject_mismatch: 'sub is not the same as iss',
  client_id_mismatch: 'the request\'s client_id is not the assertion\'s subject',
  audience_mismatch: 'aud is not exactly the issuer of this broker',
  expired: 'exp has passed',
  not_yet_valid: 'nbf has not come',
  issued_in_future: 'iat has not come; the sender\'s clock is ahead',
  too_old: 'iat is more than five minutes ago',
  lifetime_too_long: 'the assertion lives longer than five minutes',
  replayed: 'an assertion with this jti was used before',
  workload_unknown: 'no workload of this name is registered',
  key_unknown: 'the workload has no such key',
  kid_required: 'the workload has more than two keys of this algorithm and the header names none of them',
  signature_invalid: 'the signature is not the key\'s',
  key_removed: 'signed with a key that was taken away from the workload',
  workload_retired: 'signed by a retired workload',
  workload_suspended: 'signed by a suspended workload',
  review_overdue: 'signed by a workload whose review date has passed',
  operator_malformed: 'the bearer token has not the form of an operator credential',
  operator_unknown: 'no operator has this id',
  operator_wrong: 'the operator exists and the secret is wrong',
} as const satisfies Record<string, string>

/** Why a caller is not believed: for the log and the metrics, never for the answer. */
export type RefusalReason = keyof typeof refusalMeanings
