import type { Finding } from '../connectors/connector.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { Tool } from '../policy/catalog.ts'
import type { Broker } from './broker.ts'

/** One tool of the catalog in force. Throws `not_found`. */
export async function requireTool(broker: Broker, name: string): Promise<Tool> {
  const { policySet } = await broker.knowledge.refresh()
  const tool = policySet?.catalog.get(name)
  if (tool === undefined) throw new BrokerError({ code: 'not_found', publicMessage: `There is no tool ${name} in the catalog in force.` })
  return tool
}

/** The same for one whose credentials live in an outside system. Throws `conflict` for one whose tokens Stint signs. */
export async function requireOutsideTool(broker: Broker, name: string): Promise<Tool> {
  const tool = await requireTool(broker, name)
  if (broker.tools.isOutside(tool)) return tool
  throw new BrokerError({ code: 'conflict', publicMessage: `Stint signs the tokens of ${name} itself: nothing of it lives in another system.` })
}

/** Whether the tool is reachable, and its root credential has the rights that it needs, in sentences. */
export async function checkTool(broker: Broker, name: string): Promise<readonly Finding[]> {
  const tool = await requireTool(broker, name)
  if (!broker.tools.isOutside(tool)) return [{ ok: true, sentence: 'Stint signs the tokens of this tool itself: there is nothing to reach.' }]
  try {
    return await broker.tools.call(tool, (open, signal) => open.check(signal))
  } catch (error) {
    return [{ ok: false, sentence: error instanceof Error ? error.message : 'The tool could not be looked at.' }]
  }
}
