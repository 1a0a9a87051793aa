/** The kind of connector that lends what Stint keeps sealed. */
export const sealedSecretKind = 'sealed-secret'

/** What a grant of a secret refers to: the secret, by its name or ARN, and the version of it that was lent. */
export interface SecretReference {
  readonly secret: string
  readonly version: string
}

/** As it stands in the record of a grant. */
export function writeReference(secret: string, version: string): string {
  return `${secret}/${version}`
}

/** The same read again: a version has no slash, and a name may have. */
export function readReference(reference: string): SecretReference {
  const slash = reference.lastIndexOf('/')
  return { secret: reference.slice(0, slash), version: reference.slice(slash + 1) }
}
