import { hash } from 'node:crypto'
import { ConnectorError, type Connector, type Denying, type OpenTool, type ToolContext } from '../connectors/connector.ts'
import { outboundMsMax } from '../grant/lifetime.ts'
import { parseTool, type Tool } from '../policy/catalog.ts'
import type { Database } from '../storage/engine.ts'
import { readPolicyFiles } from '../storage/policy-sets.ts'

/** The tools of the catalog whose credentials live in outside systems, opened when they are needed. */
export interface Tools {
  /** Whether grants on this tool live in an outside system; else Stint signs a token. */
  isOutside(tool: Tool): boolean
  /**
   * The tool as that policy set describes it: what was made under an older set is ended where it was made. `undefined` for a
   * set or a tool that never was.
   */
  find(policySet: string, name: string): Promise<Tool | undefined>
  /** Throws `ConnectorError` for settings that cannot work. */
  open(tool: Tool): OpenTool
  /** Where its sessions are denied, if they are. Of a tool that cannot be opened that is not known: whoever asks for something of it is told why. */
  findDenying(tool: Tool): Denying | undefined
  /** Runs one call under the outbound time limit. What is no `ConnectorError` counts as an unknown outcome. */
  call<T>(tool: Tool, body: (open: OpenTool, signal: AbortSignal) => Promise<T>, msMax?: number): Promise<T>
  close(): Promise<void>
}

export interface ToolsOptions {
  readonly database: Pick<Database, 'read'>
  readonly connectors: readonly Connector[]
  readonly context: ToolContext
}

const openMax = 256
const rememberedMax = 64

export function createTools({ database, connectors, context }: ToolsOptions): Tools {
  const byKind = new Map(connectors.map((connector) => [connector.kind, connector]))
  const opened = new Map<string, OpenTool>()
  const remembered = new Map<string, Tool | undefined>()

  function open(tool: Tool): OpenTool {
    const key = JSON.stringify([tool.name, tool.connector, tool.config])
    const known = opened.get(key)
    if (known !== undefined) return known
    const connector = byKind.get(tool.connector)
    if (connector === undefined) throw new ConnectorError({ outcome: 'nothing_done', publicMessage: `This broker has no connector ${tool.connector}.` })
    const made = connector.open(tool, context)
    opened.set(key, made)
    const [oldest] = opened.keys()
    if (opened.size > openMax && oldest !== undefined) {
      const evicted = opened.get(oldest)
      opened.delete(oldest)
      // Not before a call that it may be in the middle of is over.
      setTimeout(() => void evicted?.close().catch(() => undefined), 2 * outboundMsMax).unref()
    }
    return made
  }

  return {
    isOutside: ({ connector }) => connector !== 'jwt',
    async find(policySet, name) {
      const key = `${policySet} ${name}`
      if (remembered.has(key)) return remembered.get(key)
      const tool = await readTool(database, policySet, name)
      if (remembered.size >= rememberedMax) remembered.clear()
      remembered.set(key, tool)
      return tool
    },
    open,
    findDenying(tool) {
      try {
        return open(tool).denying
      } catch {
        return undefined
      }
    },
    async call(tool, body, msMax = outboundMsMax) {
      const signal = AbortSignal.timeout(msMax)
      try {
        return await body(open(tool), signal)
      } catch (error) {
        if (error instanceof ConnectorError) throw error
        throw new ConnectorError({ outcome: 'unknown', publicMessage: `The tool ${tool.name} failed in a way that was not foreseen.`, cause: error })
      }
    },
    async close() {
      await Promise.allSettled([...opened.values()].map((one) => one.close()))
      opened.clear()
    },
  }
}

async function readTool({ read }: Pick<Database, 'read'>, policySet: string, name: string): Promise<Tool | undefined> {
  for (const [path, text] of (await readPolicyFiles(read, policySet)) ?? []) {
    if (!path.startsWith('tools/')) continue
    const parsed = parseTool(path, text)
    if ('tool' in parsed && parsed.tool.name === name) return parsed.tool
  }
  return undefined
}

const alphabet = '0123456789abcdefghijklmnopqrstuv'

/**
 * Tells this broker's traces in a tool from another's: 40 bits of a hash over the log's first entry, which two logs never
 * share, whatever else their brokers have in common.
 */
export function instanceOf(firstLeaf: Uint8Array): string {
  const digest = hash('sha256', Buffer.concat([Buffer.from('stint instance '), firstLeaf]), 'buffer')
  return Array.from(digest.subarray(0, 8), (byte) => alphabet.charAt(byte & 31)).join('')
}
