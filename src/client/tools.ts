import { readObject, readObjects, type Shape } from './answer.ts'
import type { OrphanSweep, ToolCheck, ToolCutOff, ToolRecord } from './grant-records.ts'
import type { ApiAnswer, ApiRequest } from './http.ts'
import { encodeSegment } from './path.ts'

/** What an operator may do about the tools of the catalog in force: a part of `AdminClient`. */
export interface ToolMethods {
  listTools(): Promise<readonly ToolRecord[]>
  checkTool(tool: string): Promise<ToolCheck>
  /** Ends everything that was made on the role behind a tool, by whomever; with `dryRun` only says what that would be. */
  cutOffTool(tool: string, options: { readonly reason: string; readonly dryRun?: boolean | undefined }): Promise<ToolCutOff>
  /** Ends what the broker made in a tool and no live grant stands for; with `dryRun` only lists it. Of many, it leaves some. */
  sweepOrphans(tool: string, options?: { readonly dryRun?: boolean | undefined }): Promise<OrphanSweep>
}

const checkingMsMax = 30_000
const sweepingMsMax = 90_000

/** The methods of a client that sends with an operator's credential. */
export function createToolMethods(send: (request: ApiRequest) => Promise<ApiAnswer>): ToolMethods {
  const tools = '/v1/tools'
  const pathOf = (tool: string, verb: string): string => `${tools}/${encodeSegment(tool, "the tool's name")}/${verb}`
  return {
    async listTools() {
      const { body } = await send({ method: 'GET', path: tools })
      // The shape was checked; the type states the same. So for each cast below.
      return readObjects(readObject(body, { tools: 'array' }, 'a list of tools')['tools'], toolShape, 'a tool') as unknown as readonly ToolRecord[]
    },
    async checkTool(tool) {
      const { body } = await send({ method: 'POST', path: pathOf(tool, 'check'), timeoutMsDefault: checkingMsMax })
      const check = readObject(body, { tool: 'string', ok: 'boolean', findings: 'array' }, "a tool's check")
      readObjects(check['findings'], { ok: 'boolean', sentence: 'string' }, "a tool's check")
      return check as unknown as ToolCheck
    },
    async cutOffTool(tool, { reason, dryRun = false }) {
      const { body } = await send({ method: 'POST', path: pathOf(tool, 'cut-off'), json: { reason, dry_run: dryRun }, timeoutMsDefault: checkingMsMax })
      const shape = { tool: 'string', tools: 'list of strings', bystanders: 'number', meaning: 'string', before: 'string?', confirmed: 'boolean?', problem: 'string?', audit_index: 'number?' } as const
      return readObject(body, shape, 'a cut-off') as unknown as ToolCutOff
    },
    async sweepOrphans(tool, { dryRun = false } = {}) {
      const { body } = await send({ method: 'POST', path: pathOf(tool, 'orphans'), json: { dry_run: dryRun }, timeoutMsDefault: sweepingMsMax })
      const swept = readObject(body, { tool: 'string', listed: 'boolean', found: 'number', orphans: 'array' }, 'a sweep')
      readObjects(swept['orphans'], { grant: 'string', reference: 'string', ended: 'boolean', problem: 'string?' }, 'a sweep')
      return swept as unknown as OrphanSweep
    },
  }
}

const toolShape: Shape = {
  tool: 'string',
  connector: 'string',
  description: 'string?',
  audience: 'string?',
  target: 'string?',
  ttl_seconds_max: 'number',
  actions: 'list of strings',
  outside: 'boolean',
}
