import { BrokerError } from '../kernel/errors.ts'
import { redactSecrets } from '../kernel/redact.ts'
import { formatProblem, type PolicyProblem } from '../policy/problem.ts'
import { loadPolicySet, type PolicyFiles } from '../policy/policy-set.ts'
import { putPolicyInForce, readPolicyInForce } from '../storage/policy-sets.ts'
import { causedBy, type Broker, type Caller } from './broker.ts'
import { commit } from './commit.ts'

export interface AppliedPolicy {
  readonly hash: string
  readonly previous?: string
  /** False when the very same set was in force already; nothing is recorded then. */
  readonly changed: boolean
  readonly auditIndex: number
}

/**
 * Puts a policy set in force, as a whole or not at all (invariant 4), by compare-and-swap on its predecessor.
 * `expected` is the hash that the caller takes to be in force (`undefined` for none); leave out `guard` to replace
 * whatever is in force when the call begins. Throws `policy_invalid` with every problem, or `conflict`.
 */
export async function applyPolicy(
  broker: Pick<Broker, 'ledger' | 'database' | 'knowledge'>,
  caller: Caller,
  files: PolicyFiles,
  guard?: { readonly expected: string | undefined },
): Promise<AppliedPolicy> {
  const expected = guard === undefined ? (await readPolicyInForce(broker.database.read))?.hash : guard.expected
  const loaded = loadPolicySet(files)
  if (!('set' in loaded)) {
    const { problems } = loaded
    const firstProblem = await recordRejection(broker, caller, problems)
    throw new BrokerError({
      code: 'policy_invalid',
      publicMessage: `The policy set has ${problems.length === 1 ? 'a problem' : `${problems.length} problems`}; the set in force stays. First: ${firstProblem}`,
      extra: { problems },
    })
  }
  const { set } = loaded
  broker.knowledge.remember(set)
  const { result, index } = await commit(broker, {
    async apply(tx, place) {
      const inForce = await readPolicyInForce(tx)
      const previous = inForce?.hash
      if (inForce !== undefined && previous === set.hash) {
        return { result: { previous, changed: false, index: inForce.eventIndex }, unrecorded: 'nothing changed' }
      }
      if (previous !== expected) {
        throw new BrokerError({
          code: 'conflict',
          publicMessage: `The set in force is ${previous ?? 'none'}, not ${expected ?? 'none'}: look at it with \`stint policy show\`, then apply again.`,
        })
      }
      await putPolicyInForce(tx, { hash: set.hash, files: ruleFiles(files), cedarVersion: set.cedarVersion }, place)
      return {
        result: { previous, changed: true, index: place.index },
        raisesEpoch: true,
        events: [
          {
            type: 'policy.applied',
            ...causedBy(caller),
            policy_set: set.hash,
            ...(previous !== undefined && { previous }),
            policies: set.policies.length,
            tools: set.catalog.size,
            cedar_version: set.cedarVersion,
          },
        ],
      }
    },
  })
  const { previous, changed } = result
  return { hash: set.hash, ...(previous !== undefined && { previous }), changed, auditIndex: changed ? index : result.index }
}

/** Records that a set was refused, and returns its first problem as text. */
export async function recordRejection({ ledger }: Pick<Broker, 'ledger'>, caller: Caller, problems: readonly PolicyProblem[]): Promise<string> {
  const [first] = problems
  const firstProblem = first === undefined ? 'no problem was named' : redactSecrets(formatProblem(first))
  const told = firstProblem.slice(0, 1000).toWellFormed()
  await ledger.append({ events: [{ type: 'policy.rejected', ...causedBy(caller), problems: problems.length, first_problem: told }] })
  return firstProblem
}

/** The files that make the set: tests are checked beside it and are not part of it. */
function ruleFiles(files: PolicyFiles): PolicyFiles {
  return new Map([...files].filter(([path]) => !path.startsWith('tests/')))
}
