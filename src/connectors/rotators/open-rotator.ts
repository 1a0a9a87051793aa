import type { RotatorSettings } from '../../policy/kinds/rotators.ts'
import { openAwsAccessKeyRotator } from './aws-access-key.ts'
import { openCommandRotator } from './command.ts'
import { openHttpRotator } from './http-call.ts'
import { openPostgresRotator } from './postgres-password.ts'
import type { Rotator, RotatorPlace } from './rotator.ts'

/** Opens the rotator that a catalog file names. Connects nowhere yet. Throws `ConnectorError` for settings that cannot work. */
export function openRotator(settings: RotatorSettings, place: RotatorPlace): Rotator {
  if (settings.postgres !== undefined) return openPostgresRotator(settings.postgres, place)
  if (settings.http !== undefined) return openHttpRotator(settings.http, place)
  if (settings.command !== undefined) return openCommandRotator(settings.command, place)
  if (settings.aws_access_key !== undefined) return openAwsAccessKeyRotator(settings.aws_access_key, place)
  throw new Error('the schema lets no rotator pass that is none of these')
}
