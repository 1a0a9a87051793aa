import { z } from 'zod'
import { secretNamePattern } from '../../kernel/secret-source.ts'
import type { ConnectorKind, KindProblem } from './kind.ts'
import { environmentSchema, judgeRotation, judgeSharedSecret, rotationSchema } from './rotation.ts'

const config = z.strictObject({
  /** Its name, as in `stint secret put NAME`. */
  secret: z.string().regex(secretNamePattern, 'must be the name of a sealed secret: 1 to 63 of a-z, 0-9 and dashes, beginning with a letter'),
  env: environmentSchema.optional(),
  rotation: rotationSchema.optional(),
})

export type SealedSecretConfig = z.output<typeof config>

/** A secret that Stint keeps itself, lent as it is: nothing can be cut out of it, so there is no target. */
export const sealedSecretKind: ConnectorKind = { audience: 'optional', lendsToken: false, lendsValue: true, actionShape: {}, config, target: 'refused', judgeTool: judgeRotation, judgeBeside }

function judgeBeside(own: unknown, beside: unknown, other: string): readonly KindProblem[] {
  // The schema of this kind has parsed both.
  const [a, b] = [own as SealedSecretConfig, beside as SealedSecretConfig]
  return a.secret === b.secret ? judgeSharedSecret(a, b, other, ['config', 'secret']) : []
}
