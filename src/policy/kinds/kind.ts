import type { z } from 'zod'

/** What one kind of connector adds to a tool's file. */
export interface ConnectorKind {
  readonly audience: 'required' | 'optional'
  /** Members of each action beside those that every action has. */
  readonly actionShape: z.ZodRawShape
  /** Schema of `config`; absent: the kind has none, and a `config` is refused. */
  readonly config?: z.ZodType
  /** Whether each tool of this kind must ask for a target; or may not, where its credential cannot be confined to one. */
  readonly target?: 'required' | 'refused'
  /** Whether its credential is a bearer token, so that the OAuth token endpoint can answer it. */
  readonly lendsToken: boolean
}
