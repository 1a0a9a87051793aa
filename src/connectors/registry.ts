import type { Connector } from './connector.ts'

/** Every connector that asks an outside system. `jwt` is none of them: Stint signs its tokens itself, in one transaction. */
export const connectors: readonly Connector[] = []
