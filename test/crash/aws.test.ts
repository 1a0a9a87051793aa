import { expect, inject, test, vi } from 'vitest'
import { describeAws } from '../aws/moto.ts'
import { createTestFolder } from '../harness.ts'
import { judgePolicies } from './aws-cloud.ts'
import { runAwsRounds } from './aws-rounds.ts'
import { rotationPlans, type Plan } from './lending-plans.ts'

// A process is started for each point, which takes as long as the machine lets it.
vi.setConfig({ testTimeout: 400_000 })

const server = inject('postgres')
const plans: readonly Exclude<Plan, string>[] = [...rotationPlans, { point: 'outside_answered' }, { point: 'end_answered' }]

describeAws('With AWS', () => {
  test.skipIf(server.missing !== undefined)('a broker that dies at any point leaves no session without a record, and no secret without a version in force', async () => {
    if (server.missing !== undefined) throw new Error(server.missing)
    const { problems, kills, missed, sessions, rotations, counts } = await runAwsRounds({
      engine: 'sqlite',
      rounds: plans.length,
      seconds: 360,
      seed: 1,
      folder: createTestFolder(),
      server,
      plans,
    })
    expect(problems).toEqual([])
    expect(missed).toBe(0)
    for (const { point } of plans) expect(kills).toMatchObject({ [point]: expect.toSatisfy((n: number) => n > 0) })
    // Otherwise it would have been no test of them.
    for (const n of [counts.received, sessions.opened, sessions.denied, rotations.finished, rotations.resumed, rotations.retired]) expect(n).toBeGreaterThan(0)
  })
})

const deny = { Sid: 'StintDenied0', Effect: 'Deny', Action: '*', Resource: '*', Condition: { StringEquals: { 'aws:SourceIdentity': ['a', 'b'] } } }
const judge = (...statements: readonly object[]) => judgePolicies([{ arn: 'arn:1', text: JSON.stringify({ Version: '2012-10-17', Statement: statements }) }])

test.each([
  ['names', deny, ['a', 'b']],
  ['names one', { ...deny, Condition: { StringEquals: { 'aws:SourceIdentity': 'a' } } }, ['a']],
  ['denies some actions', { ...deny, Action: 's3:*' }, []],
  ['denies something', { ...deny, Resource: 'arn:aws:s3:::reports' }, []],
  ['holds for more than the name', { ...deny, Condition: { ...deny.Condition, Bool: { 'aws:SecureTransport': 'true' } } }, []],
  ['holds for two names at once', { ...deny, Condition: { StringEquals: { ...deny.Condition.StringEquals, 'aws:PrincipalTag/x': 'y' } } }, []],
])('A statement of a policy that %s denies just those sessions', (_, statement, identities) => {
  expect(judge(statement)).toEqual({ identities: new Set(identities), problems: [] })
})

test.each([
  ['somebody else\'s', { ...deny, Sid: 'Mine' }],
  ['not a denial', { ...deny, Effect: 'Allow' }],
  ['too long', { ...deny, Condition: { StringEquals: { 'aws:SourceIdentity': Array.from({ length: 700 }, (_unused, i) => `identity-${i}`) } } }],
])('A policy that is %s is reported', (_, statement) => {
  expect(judge(statement).problems).toHaveLength(1)
})
