import { afterAll, describe } from 'vitest'
import { createTestFolder } from '../harness.ts'
import { emulatorMissing, startEmulator, type Aws } from './emulator.ts'

export { awsCli, queryError, rootCredentials, type Aws, type AwsFault, type AwsRequest } from './emulator.ts'

const missing = emulatorMissing === '' || process.env['CI'] ? '' : ` (skipped: ${emulatorMissing})`

/** Tests that need AWS: the emulator moto. Where it is not installed they say so; in CI they run. */
export function describeAws(name: string, body: () => void): void {
  describe.skipIf(missing !== '')(`${name}${missing}`, body)
}

/** The emulator of AWS behind its proxy. */
export function startAws(options: { readonly port?: number } = {}): Promise<Aws> {
  return startEmulator({ ...options, folder: createTestFolder() })
}

/** The same, for all tests of a `describe`; closed after them. Call it in the body of the `describe` or of `beforeAll`. */
export function useAws(): () => Promise<Aws> {
  let started: Promise<Aws> | undefined
  afterAll(async () => (await started)?.close())
  return () => (started ??= startAws())
}
