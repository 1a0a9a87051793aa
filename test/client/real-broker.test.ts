import { describe, expect, it } from 'vitest'
import { createAdminClient } from '../../src/client/admin.ts'
import { createAgentClient } from '../../src/client/agent.ts'
import { StintError } from '../../src/client/errors.ts'
import { generatePrivateJwk, importAgentKey, publicJwks, type AgentKey } from '../../src/client/key.ts'
import { policyFiles, startRealBroker } from './real-broker.ts'

const registration = {
  name: 'bot',
  environment: 'prod',
  stage: 'pilot',
  owner: { team: 'support', contact: 'oncall:support' },
  purpose: 'Labels tickets',
  tags: ['team:a'],
} as const

async function makeKey(alg: 'ES256' | 'Ed25519' = 'ES256'): Promise<AgentKey> {
  return importAgentKey(await generatePrivateJwk(alg))
}

function inDays(days: number): string {
  return new Date(Date.now() + days * 86_400_000).toISOString()
}

describe('the clients against a broker', () => {
  it.each(['ES256', 'Ed25519'] as const)('an agent with an %s key gets, checks and gives back a token', async (alg) => {
    const { url, admin } = await startRealBroker()
    const key = await makeKey(alg)
    const registered = await admin.registerWorkload({ ...registration, review_at: inDays(30), jwks: publicJwks(key) })
    expect(registered).toMatchObject({ name: 'bot', spiffe_id: 'spiffe://stint.test/bot', status: 'active' })
    expect(registered.audit_index).toBeTypeOf('number')
    expect(registered.keys).toMatchObject([{ kid: key.kid, alg }])

    const agent = createAgentClient({ url, workload: 'bot', key })
    expect(await agent.clientId()).toBe('spiffe://stint.test/bot')
    const token = await agent.requestToken({ actions: ['tickets:read'], target: 'inbox', task: 't-1', ttlSeconds: 60 })
    expect(token).toMatchObject({ tokenType: 'Bearer', expiresIn: 60, auditIndex: expect.any(Number) })
    const detail = { type: 'stint', actions: ['tickets:read'], target: 'inbox', task: 't-1' }
    expect(token.authorizationDetails).toMatchObject([detail])
    expect(token.expiresAt.getTime()).toBeLessThanOrEqual(Date.now() + 60_000)

    expect(await agent.introspect(token.accessToken)).toMatchObject({ active: true, sub: 'spiffe://stint.test/bot' })
    await agent.revoke(token.accessToken)
    expect(await agent.introspect(token.accessToken)).toEqual({ active: false })
    await expect(agent.revoke(token.accessToken)).resolves.toBeUndefined()

    const { entries } = await admin.listAudit({ workload: 'bot', task: 't-1' })
    expect(entries.map((entry) => entry.type)).toEqual(['grant.revoked', 'grant.issued'])
    expect(entries[1]?.index).toBe(token.auditIndex)
  })

  it('a denial and a stranger are told apart by their codes', async () => {
    const { url, admin } = await startRealBroker()
    const key = await makeKey()
    await admin.registerWorkload({ ...registration, review_at: inDays(30), jwks: publicJwks(key) })
    const agent = createAgentClient({ url, workload: 'bot', key })
    const requestId: unknown = expect.stringMatching(/^req_/)
    const denied = { code: 'access_denied', status: 400, requestId }
    await expect(agent.requestToken({ actions: ['tickets:delete'] })).rejects.toMatchObject(denied)
    const unknown = { code: 'invalid_scope', status: 400, requestId }
    await expect(agent.requestToken({ actions: ['tickets:nothing'] })).rejects.toMatchObject(unknown)
    const stranger = createAgentClient({ url, workload: 'bot', key: await makeKey() })
    const refused = { code: 'invalid_client', status: 401, requestId }
    await expect(stranger.requestToken({ actions: ['tickets:read'] })).rejects.toMatchObject(refused)
  })

  it('an admin changes a workload in every way', async () => {
    const { admin } = await startRealBroker()
    const [first, second] = [await makeKey(), await makeKey('Ed25519')]
    await admin.registerWorkload({ ...registration, review_at: inDays(30), jwks: publicJwks(first) })
    expect(await admin.updateWorkload('bot', { stage: 'production', tags: [] })).toMatchObject({ stage: 'production', tags: [] })
    const suspended = await admin.suspendWorkload('bot', 'odd')
    expect(suspended).toMatchObject({ status: 'suspended', audit_index: expect.any(Number) })
    expect(await admin.resumeWorkload('bot')).toMatchObject({ status: 'active' })
    expect((await admin.addWorkloadKeys('bot', publicJwks(second))).keys).toHaveLength(2)
    const { keys } = await admin.removeWorkloadKey('bot', first.kid)
    expect(keys.find((key) => key.kid === first.kid)).toMatchObject({ status: 'removed', removed_at: expect.any(String) })
    expect(await admin.retireWorkload('bot', 'done')).toMatchObject({ status: 'retired' })
    expect(await admin.getWorkload('bot')).toMatchObject({ status: 'retired', stage: 'production' })
    await expect(admin.getWorkload('nobody')).rejects.toMatchObject({ code: 'not_found', status: 404 })
  })

  it('a name cannot lead to another address', async () => {
    const { admin } = await startRealBroker()
    for (const name of ['', '.', '..']) {
      await expect(admin.getWorkload(name)).rejects.toMatchObject({ code: 'invalid_option' })
      await expect(admin.removeWorkloadKey('bot', name)).rejects.toMatchObject({ code: 'invalid_option' })
    }
    for (const name of ['../policy', 'a/suspend', 'a?limit=1', 'a#b', '%2e%2e']) {
      await expect(admin.getWorkload(name)).rejects.toMatchObject({ code: 'not_found' })
      await expect(admin.suspendWorkload(name)).rejects.toMatchObject({ code: 'not_found' })
    }
  })

  it('lists page by page', async () => {
    const { admin } = await startRealBroker()
    for (const name of ['a', 'b', 'c']) {
      await admin.registerWorkload({ ...registration, name, review_at: inDays(30), jwks: publicJwks(await makeKey()) })
    }
    const page = await admin.listWorkloads({ limit: 2, team: 'support' })
    expect(page.workloads.map((workload) => workload.name)).toEqual(['a', 'b'])
    const rest = await admin.listWorkloads({ limit: 2, after: page.next })
    expect([rest.workloads.map((workload) => workload.name), rest.next]).toEqual([['c'], undefined])

    const newest = await admin.listAudit({ limit: 2 })
    expect(newest.entries.map((entry) => entry.index)).toEqual([newest.tree_size - 1, newest.tree_size - 2])
    const older = await admin.listAudit({ limit: 1, before: newest.next })
    expect(older.entries.map((entry) => entry.index)).toEqual([newest.tree_size - 3])
  })

  it('puts a policy set in force, and says what is wrong with one', async () => {
    const { admin } = await startRealBroker()
    const inForce = await admin.getPolicy()
    expect(inForce).toMatchObject({ policies: 2, tools: 1, audit_index: expect.any(Number) })
    expect(await admin.applyPolicy({ files: policyFiles })).toMatchObject({ hash: inForce.hash, changed: false })
    const more = '@id("more") permit (principal, action == Action::"tickets:read", resource);'
    const changed = await admin.applyPolicy({ files: { ...policyFiles, 'more.cedar': more }, expected: inForce.hash })
    expect(changed).toMatchObject({ previous: inForce.hash, changed: true })
    for (const expected of [inForce.hash, null]) {
      const conflict = { code: 'conflict', status: 409 }
      await expect(admin.applyPolicy({ files: policyFiles, expected })).rejects.toMatchObject(conflict)
    }

    const error = await admin.applyPolicy({ files: { ...policyFiles, 'x.cedar': 'permit (' } }).catch((caught: unknown) => caught)
    if (!(error instanceof StintError)) throw new Error(String(error))
    expect(error).toMatchObject({ code: 'policy_invalid', status: 422 })
    expect(error.problems[0]).toMatchObject({ file: 'x.cedar', line: 1, message: expect.any(String) })
  })

  it('revokes what is selected', async () => {
    const { url, admin } = await startRealBroker()
    const key = await makeKey()
    await admin.registerWorkload({ ...registration, review_at: inDays(30), jwks: publicJwks(key) })
    const agent = createAgentClient({ url, workload: 'bot', key })
    const ask = (task: string) => agent.requestToken({ actions: ['tickets:read'], task })
    const [first, second] = [await ask('one'), await ask('two')]
    const revoked = { tool: 'tickets', workload: 'bot', outcome: 'revoked', effect: 'introspection' }
    expect(await admin.revokeGrants({ task: 'one', reason: 'test' })).toMatchObject({ revoked: 1, more: false, grants: [revoked] })
    expect((await agent.introspect(first.accessToken)).active).toBe(false)
    const { active, jti } = await agent.introspect(second.accessToken)
    expect(active).toBe(true)
    const grant = String(jti)
    expect(await admin.revokeGrants({ grant })).toMatchObject({ revoked: 1, already_ended: 0 })
    expect(await admin.revokeGrants({ grant })).toMatchObject({ revoked: 0, already_ended: 1, grants: [{ grant, outcome: 'already_ended' }] })
    await expect(admin.revokeGrants({})).rejects.toMatchObject({ code: 'invalid_input' })
  })

  it('a wrong credential opens nothing and is not repeated', async () => {
    const { url, operator } = await startRealBroker()
    const wrong = operator.slice(0, -1) + (operator.endsWith('A') ? 'E' : 'A')
    const admin = createAdminClient({ url, token: wrong })
    const calls = [
      () => admin.listWorkloads(),
      () => admin.getPolicy(),
      () => admin.listAudit(),
      () => admin.suspendWorkload('bot'),
      () => admin.revokeGrants({ workload: 'bot' }),
    ]
    for (const call of calls) {
      const error: unknown = await call().catch((caught: unknown) => caught)
      expect(error).toMatchObject({ code: 'unauthenticated', status: 401 })
      expect(String(error)).not.toContain(wrong)
    }
  })
})
