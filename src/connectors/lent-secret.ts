import { z } from 'zod'
import { Secret } from '../kernel/secret.ts'
import type { EnvironmentSettings } from '../policy/kinds/rotation.ts'
import { ConnectorError, type Ended, type Minted } from './connector.ts'
import { writeReference } from './secret-reference.ts'

/**
 * How long until it is looked again whether a value that was lent is replaced: whoever replaces it by Stint says so at once, and
 * there may be thousands of grants that wait for the same.
 */
const lookAgainMs = 86_400_000

/** The value of a secret as it is lent. */
export interface LentValue {
  /** Its name or ARN, as the record of the grant has it. */
  readonly secret: string
  readonly version: string
  readonly value: Secret
  /** The value is bytes, as base64. */
  readonly isBinary?: boolean
}

/** By which variables a command takes the secret, where the catalog does not say: one named as the tool is. */
export function nameVariable(tool: string): string {
  return tool.toUpperCase().replaceAll('-', '_')
}

/** The credential that a value is. Throws `ConnectorError` where the variables of the catalog cannot hold it. */
export function describeLent({ secret, version, value, isBinary = false }: LentValue, environment: EnvironmentSettings): Minted {
  return {
    credential: { value, version, ...(isBinary && { encoding: 'base64' }) },
    environment: typeof environment === 'string' ? { [environment]: checkVariable(environment, value) } : readMembers(secret, value, environment, isBinary),
    reference: writeReference(secret, version),
  }
}

const members = z.record(z.string(), z.unknown())

function readMembers(secret: string, value: Secret, environment: Readonly<Record<string, string>>, isBinary: boolean): Record<string, Secret> {
  const read = isBinary ? undefined : members.safeParse(parseJson(value.reveal())).data
  if (read === undefined) throw refuse(`The secret ${secret} is no JSON object, and the catalog hands members of it to commands: an admin sets env to one variable, or the secret to an object.`)
  return Object.fromEntries(
    Object.entries(environment).map(([variable, member]) => {
      const found = Object.hasOwn(read, member) ? read[member] : undefined
      if (typeof found !== 'string' && typeof found !== 'number' && typeof found !== 'boolean') {
        throw refuse(`The secret ${secret} has no member ${member} that is text or a number, which the catalog hands to commands as ${variable}: an admin mends the one or the other.`)
      }
      return [variable, checkVariable(variable, new Secret(String(found)))]
    }),
  )
}

function checkVariable(variable: string, value: Secret): Secret {
  if (value.reveal().includes('\0')) throw refuse(`The secret holds a NUL, which the variable ${variable} cannot: it is not lent.`)
  return value
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // What was parsed is quoted by the error.
    return undefined
  }
}

/** A value that is good until it is replaced, for a reason in words. */
export function waitForReplacement(why: string, nowMs: number): Ended {
  return { status: 'waits', why, nextAtMs: nowMs + lookAgainMs }
}

function refuse(publicMessage: string): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage })
}
