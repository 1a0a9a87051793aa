import { z } from 'zod'
import { checkTool } from '../broker/check-tool.ts'
import { sweepOrphans } from '../broker/orphans.ts'
import { operatorCaller } from './guards.ts'
import { defineRoute, type Route } from './route.ts'

const toolParams = z.strictObject({ tool: z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'is 1 to 63 of a-z, 0-9 and -') })
const toolAnswer = z.strictObject({
  tool: z.string(),
  connector: z.string(),
  description: z.string().optional(),
  audience: z.string().optional(),
  target: z.string().optional().describe('What a target of this tool is.'),
  ttl_seconds_max: z.int(),
  actions: z.array(z.string()),
  outside: z.boolean().describe('Whether its credentials live in another system.'),
})
const checkAnswer = z.strictObject({
  tool: z.string(),
  ok: z.boolean(),
  findings: z.array(z.strictObject({ ok: z.boolean(), sentence: z.string() })),
})
const orphanBody = z.strictObject({ dry_run: z.boolean().default(false).describe('Only list them.') })
const orphanAnswer = z.strictObject({
  tool: z.string(),
  listed: z.boolean().describe('False for a tool that cannot say what was made in it.'),
  found: z.int().describe('What this broker has made there and is still there.'),
  orphans: z.array(z.strictObject({ grant: z.string(), reference: z.string(), ended: z.boolean(), problem: z.string().optional() })),
})

export const toolRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/tools',
    access: ['admin', 'approver', 'auditor'],
    summary: 'List the tools of the catalog in force',
    answers: { 200: { description: 'By name', schema: z.strictObject({ tools: z.array(toolAnswer) }) } },
    async handle(c) {
      const broker = c.get('broker')
      const { policySet } = await broker.knowledge.refresh()
      const tools = [...(policySet?.catalog.values() ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1))
      return c.json({
        tools: tools.map((tool) => ({
          tool: tool.name,
          connector: tool.connector,
          description: tool.description,
          audience: tool.audience,
          target: tool.target?.name,
          ttl_seconds_max: tool.ttl.maxSeconds,
          actions: [...tool.actions.keys()],
          outside: broker.tools.isOutside(tool),
        })),
      })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/tools/:tool/check',
    access: ['admin'],
    summary: 'See whether a tool is reachable and its root credential has just the rights that it needs',
    params: toolParams,
    answers: { 200: { description: 'What was found, in sentences', schema: checkAnswer } },
    async handle(c, { params: { tool } }) {
      const findings = await checkTool(c.get('broker'), tool)
      return c.json({ tool, ok: findings.every(({ ok }) => ok), findings: findings.map(({ ok, sentence }) => ({ ok, sentence })) })
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/tools/:tool/orphans',
    access: ['admin'],
    summary: 'End what this broker made in a tool and no live grant stands for',
    errors: ['tool_failed', 'tool_unavailable'],
    params: toolParams,
    body: { type: 'json', schema: orphanBody },
    answers: { 200: { description: 'What was found and ended', schema: orphanAnswer } },
    async handle(c, { params: { tool }, body: { dry_run: dryRun } }) {
      const report = await sweepOrphans(c.get('broker'), operatorCaller(c), tool, dryRun)
      return c.json({ tool, ...report, orphans: report.orphans.map(({ grant, reference, ended, problem }) => ({ grant, reference, ended, problem })) })
    },
  }),
]
