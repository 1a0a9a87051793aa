import { BrokerError } from './errors.ts'
import { readPrivateFile } from './private-file.ts'
import { Secret } from './secret.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** The name of a secret that an admin hands to the broker, as in the source `sealed:name`. */
export const secretNamePattern = /^[a-z][a-z0-9-]{0,62}$/

/**
 * The secret that a source names: `env:NAME`, or `file:/path`, a file that nobody else can read; white space around it is
 * taken off. `what` names it in messages. Throws `config_invalid` that says what to do.
 */
export function readSecretSource(source: string, what: string, env: Environment): Secret {
  const name = source.slice(source.indexOf(':') + 1)
  const text = source.startsWith('env:') ? env[name] : readPrivateFile(name, what).toString('utf8')
  const trimmed = text?.trim() ?? ''
  if (trimmed !== '') return new Secret(trimmed)
  const where = source.startsWith('env:') ? `the environment variable ${name} is not set` : `${name} is empty`
  throw new BrokerError({ code: 'config_invalid', publicMessage: `${where}; it must hold ${what}` })
}
