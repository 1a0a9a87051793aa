import { describe, expect, it } from 'vitest'
import { listen } from '../listen.ts'
import { runRecorded } from './recorder.ts'

const tool = (name: string, outside = true) => ({ tool: name, connector: 'postgres', ttl_seconds_max: 60, actions: [], outside })
const orphan = (i: number, ended: boolean, problem?: string) => ({ grant: `grant_${String(i).padStart(26, '0')}`, reference: `role_${i}`, ended, problem })

/** A broker that answers so to each look through a tool, one after the other. */
async function run(answers: Readonly<Record<string, unknown[]>>, ...args: readonly string[]) {
  const asked: string[] = []
  const url = await listen((request, response) => {
    const [, , , name = ''] = (request.url ?? '').split('/')
    if (request.method === 'POST') asked.push(name)
    const answer = request.method === 'GET' ? { tools: [tool('a'), tool('b'), tool('signed', false)] } : answers[name]?.shift()
    if (answer === undefined) response.writeHead(502, { 'content-type': 'application/problem+json' }).end(JSON.stringify({ type: 'urn:stint:problem:tool-failed', detail: `${name} is down.` }))
    else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer))
  })
  return { asked, ...(await runRecorded(['sweep', '--orphans', ...args], { env: { STINT_URL: url, STINT_OPERATOR_TOKEN: 'stint_op_x' } })) }
}

describe('stint sweep --orphans', () => {
  it('goes on where the broker had no time for all, and stops where that ends nothing more', async () => {
    const answers = {
      a: [
        { tool: 'a', listed: true, found: 4, orphans: [orphan(1, true), orphan(2, false, 'There was no time left for it: sweep again.'), orphan(3, false, 'no')] },
        { tool: 'a', listed: true, found: 3, orphans: [orphan(2, true), orphan(3, false, 'It refuses.')] },
        { tool: 'a', listed: true, found: 2, orphans: [orphan(3, false, 'It refuses.')] },
      ],
    }
    const { asked, code, out } = await run(answers, '--tool', 'a')
    expect([asked, code]).toEqual([['a', 'a', 'a'], 1])
    expect(out).toBe(`a: 4 found, 3 without a live grant; 2 ended, 1 left
IN THE TOOL  GRANT                             WHAT BECAME OF IT
role_3       grant_00000000000000000000000003  It refuses.
role_1       grant_00000000000000000000000001  ended
role_2       grant_00000000000000000000000002  ended
`)
  })

  it('looks through every tool outside, whatever one of them does, and names the one that cannot be looked through', async () => {
    const { asked, code, out, err } = await run({ b: [{ tool: 'b', listed: false, found: 0, orphans: [] }] })
    expect([asked, code, err]).toEqual([['a', 'b'], 1, ''])
    expect(out).toBe('a: a is down.\nb: it cannot say what was made in it, so that it cannot be looked through\n')
    const json = await run({ b: [{ tool: 'b', listed: false, found: 0, orphans: [] }] }, '--json')
    expect(JSON.parse(json.out)).toEqual({ tools: [{ tool: 'a', error: { code: 'tool_failed', message: 'a is down.' } }, { tool: 'b', listed: false, found: 0, orphans: [] }] })
  })

  it('ends nothing twice in a dry run', async () => {
    const { asked, code } = await run({ a: [{ tool: 'a', listed: true, found: 1, orphans: [orphan(1, false)] }] }, '--tool', 'a', '--dry-run')
    expect([asked, code]).toEqual([['a'], 0])
  })
})
