import { z } from 'zod'
import { formatDuration, parseDuration } from '../../kernel/duration.ts'
import type { ConnectorKind, KindProblem } from './kind.ts'
import { rotatorSchema } from './rotators.ts'

const everySecondsMin = 3_600
const everySecondsMax = 366 * 86_400

const every = z.string().transform((text, context) => {
  const seconds = parseDuration(text)
  if (seconds !== undefined && seconds >= everySecondsMin && seconds <= everySecondsMax) return seconds
  context.addIssue('must be a duration of 1h to 366d, such as 30d')
  return z.NEVER
})

/** How often a value is replaced, and how. */
export const rotationSchema = z.strictObject({ every, rotator: rotatorSchema })
export type RotationSettings = z.output<typeof rotationSchema>

/**
 * A value is replaced no more often than the longest grant of the tool lasts: so one that was lent is good until the end of
 * its grant, whenever its turn comes, unless it leaked or was revoked.
 */
export const judgeRotation: NonNullable<ConnectorKind['judgeTool']> = ({ ttl, config }) => {
  // The schema of the kind has parsed it.
  const { rotation } = config as { readonly rotation?: RotationSettings }
  if (rotation === undefined || rotation.every >= ttl.maxSeconds) return []
  return [{ path: ['config', 'rotation', 'every'], message: `must be no shorter than the tool's ttl.max (${formatDuration(ttl.maxSeconds)}), or a value would be replaced before the end of its grant` }]
}

/**
 * Of a secret that is replaced one tool knows who was lent it: another one's grants would end before their time, or be ended by
 * a rotation that knows nothing of them.
 */
export function judgeSharedSecret(own: object, beside: object, other: string, path: readonly string[]): readonly KindProblem[] {
  if (!('rotation' in own && own.rotation !== undefined) && !('rotation' in beside && beside.rotation !== undefined)) return []
  return [{ path, message: `is the secret of ${JSON.stringify(other)} already, and one of the two has a rotation: a secret that is replaced is lent by one tool alone` }]
}

/**
 * Whether two names may be of one secret: by its name, or as in AWS by its ARN, of which the name may be followed by a dash and six
 * characters. Of what account a mere name is, is not known.
 */
export function mayBeSameSecret(a: string, b: string): boolean {
  if (a.startsWith('arn:') && b.startsWith('arn:') && a.split(':').slice(0, 6).join() !== b.split(':').slice(0, 6).join()) return false
  const [one, other] = [nameOf(a), nameOf(b)]
  return one === other || (a.startsWith('arn:') && withoutSuffix(one) === other) || (b.startsWith('arn:') && withoutSuffix(other) === one)
}

function nameOf(secret: string): string {
  return secret.startsWith('arn:') ? secret.split(':').slice(6).join(':') : secret
}

function withoutSuffix(name: string): string {
  return name.replace(/-[A-Za-z0-9]{6}$/, '')
}

const environmentRule = "must be a variable, of A-Z, 0-9 and _ and none of Stint's own, or a map of 1 to 32 such variables to members of the secret"
const variable = z
  .string(environmentRule)
  .regex(/^[A-Z_][A-Z0-9_]{0,127}$/, environmentRule)
  .refine((name) => !name.startsWith('STINT_'), environmentRule)
const variables = z
  .record(variable, z.string(environmentRule).min(1, environmentRule).max(256, environmentRule), environmentRule)
  .refine((members) => Object.keys(members).length > 0 && Object.keys(members).length <= 32, environmentRule)

/**
 * By which environment variables a command takes the secret: one for the whole of it, or of a secret that is a JSON object
 * one for each of these members.
 */
export const environmentSchema = z.union([variable, variables], environmentRule)
export type EnvironmentSettings = z.output<typeof environmentSchema>
