import type { ToolContext } from '../../src/connectors/connector.ts'
import { Secret } from '../../src/kernel/secret.ts'

const unused = (what: string) => () => Promise.reject(new Error(`this test has no ${what}`))

/** What a connector may use of the broker, as far as a test says; the rest fails when it is used. */
export function createToolContext(parts: Partial<ToolContext> = {}): ToolContext {
  return {
    instance: 'abcd1234',
    nowMs: Date.now,
    readSecret: async () => new Secret('a root credential'),
    custody: { lend: unused('custody') },
    denyLists: { deny: unused('deny list'), rewrite: unused('deny list'), findCutOff: async () => undefined, countNamed: async () => 0 },
    sealedVersions: {
      find: unused('sealed versions'),
      create: unused('sealed versions'),
      promote: unused('sealed versions'),
      abandon: unused('sealed versions'),
      retire: unused('sealed versions'),
    },
    signWebIdentity: unused('issuer'),
    commands: new Map(),
    log: { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined },
    ...parts,
  }
}
