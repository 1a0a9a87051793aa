import type { z } from 'zod'

/** What is wrong with a tool's file as a whole, and where in it. */
export interface KindProblem {
  readonly path: readonly (string | number)[]
  readonly message: string
}

/** What one kind of connector adds to a tool's file. */
export interface ConnectorKind {
  readonly audience: 'required' | 'optional'
  /** Members of each action beside those that every action has. */
  readonly actionShape: z.ZodRawShape
  /** Schema of `config`; absent: the kind has none, and a `config` is refused. */
  readonly config?: z.ZodType
  /** Whether each tool of this kind must ask for a target; or may not, where its credential cannot be confined to one. */
  readonly target?: 'required' | 'refused'
  /** Why a target is refused whatever the tool's own pattern says, as in `takes no wildcards in a target`, or `undefined`. */
  readonly judgeTarget?: (target: string) => string | undefined
  /** What its parts, each right in itself, get wrong together. */
  readonly judgeTool?: (tool: {
    readonly ttl: { readonly maxSeconds: number }
    readonly target?: { readonly required: boolean }
    readonly config?: unknown
    readonly actions: ReadonlyMap<string, { readonly verb: string; readonly settings: Readonly<Record<string, unknown>> }>
  }) => readonly KindProblem[]
  /** What a tool's settings get wrong beside those of another tool of this kind, each as `config` returned them; `other` is its name. */
  readonly judgeBeside?: (config: unknown, beside: unknown, other: string) => readonly KindProblem[]
  /** Whether its credential is a bearer token, so that the OAuth token endpoint can answer it. */
  readonly lendsToken: boolean
  /** Whether what it lends is a value that is there already: lent once more it opens nothing more, and it ends when it is replaced. */
  readonly lendsValue?: boolean
}
