import { z } from 'zod'
import { checkTool } from '../broker/check-tool.ts'
import { cutOffTool, lookAtCutOff } from '../broker/cut-off.ts'
import { sweepOrphans } from '../broker/orphans.ts'
import { formatTime } from '../kernel/clock.ts'
import { operatorCaller } from './guards.ts'
import { defineRoute, type Route } from './route.ts'
import { reasonSchema } from './workloads.ts'

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

const cutOffBody = z.strictObject({ reason: reasonSchema, dry_run: z.boolean().default(false).describe('Only say what it would end.') })
const cutOffAnswer = z.strictObject({
  tool: z.string(),
  tools: z.array(z.string()).describe('All that share its role: every grant of theirs ends.'),
  bystanders: z.int().describe('Grants that lived and that nobody had ordered to end.'),
  meaning: z.string().describe('What it ends beside them, in words.'),
  before: z.iso.datetime().optional().describe('Whatever was made before then is denied once that is confirmed; until then nothing is lent.'),
  confirmed: z.boolean().optional().describe('Whether the tool has confirmed it.'),
  problem: z.string().optional().describe('Why it has not yet: it is asked again by itself.'),
  audit_index: z.int().optional(),
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
  defineRoute({
    method: 'POST',
    path: '/v1/tools/:tool/cut-off',
    access: ['admin'],
    summary: 'End everything that was made on the role behind a tool, also what others than Stint made there',
    params: toolParams,
    body: { type: 'json', schema: cutOffBody },
    answers: { 200: { description: 'What it ended, or would end', schema: cutOffAnswer } },
    async handle(c, { params: { tool }, body: { reason, dry_run: dryRun } }) {
      const broker = c.get('broker')
      const { tools, bystanders, done } = dryRun ? await lookAtCutOff(broker, tool) : await cutOffTool(broker, operatorCaller(c), tool, reason)
      if (done !== undefined) c.header('stint-audit-index', String(done.auditIndex))
      return c.json({
        tool,
        tools: [...tools],
        bystanders,
        meaning: `Every session of the role that was opened before then ${done !== undefined && done.problem === undefined ? 'is' : 'is to be'} denied everything, whoever opened it and whatever it is doing.`,
        before: done && formatTime(done.beforeMs),
        confirmed: done && done.problem === undefined,
        problem: done?.problem,
        audit_index: done?.auditIndex,
      })
    },
  }),
]
