import type { Secret } from '../../kernel/secret.ts'
import type { Tool } from '../../policy/catalog.ts'
import { ConnectorError, type Finding, type Tested, type ToolContext } from '../connector.ts'

/** Whose secret a rotator replaces, and what it may use of the broker. */
export interface RotatorPlace {
  readonly tool: Pick<Tool, 'name'>
  readonly context: ToolContext
}

/**
 * Knows the system behind a secret, and nothing of where the secret is kept. Each call may be repeated, by another process
 * too and after a crash on either side of it, with the same result. Throws `ConnectorError`, whose sentences are for admins,
 * and ends when the signal does. `rotation` names the run that the call belongs to (a UUID).
 */
export interface Rotator {
  /**
   * The value to come after `current`, which opens nothing before `set` unless the system makes it itself. A repetition
   * returns another one; of these the one that was kept counts.
   */
  create(rotation: string, current: Secret, signal: AbortSignal): Promise<Secret>
  /** Has the system accept the pending value; the current one stays good until `retire`, where the system can do that. */
  set(rotation: string, pending: Secret, current: Secret, signal: AbortSignal): Promise<void>
  /** Tries the pending value out. What says nothing of the value, such as a system that is down, is thrown. */
  test(pending: Secret, signal: AbortSignal): Promise<Tested>
  /**
   * Has a value that `current` replaced open nothing any more, whatever whoever was lent it has done with it. With `cutOff`,
   * what it holds open is cut off, too. Absent where the system needs no telling.
   */
  retire?(value: Secret, current: Secret, options: { readonly cutOff: boolean }, signal: AbortSignal): Promise<void>
  /**
   * Has a value of `create` that is given up open nothing, whether or not it was set, and `current` open what it did; nobody was
   * lent it. Throws where the system may still accept it, or `current` no more. `kept`: it is the pending value of a run, which
   * may have been set. Absent where the system needs no telling.
   */
  abandon?(value: Secret, current: Secret, options: { readonly kept: boolean }, signal: AbortSignal): Promise<void>
  /** Whether it could replace the value in force, in sentences, as far as that can be told without doing so. Does not throw. */
  check?(current: Secret, signal: AbortSignal): Promise<readonly Finding[]>
  /** Gives back what it holds open. */
  close(): Promise<void>
}

/** What a check comes to, where what it looks at may throw. */
export async function findAll(look: () => Promise<readonly Finding[]>): Promise<readonly Finding[]> {
  try {
    return await look()
  } catch (error) {
    return [{ ok: false, sentence: error instanceof ConnectorError ? error.adminMessage : 'How the value would be replaced could not be looked at.' }]
  }
}
