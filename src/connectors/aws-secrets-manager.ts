import { compileSessionPolicy } from '../policy/kinds/aws-session-policy.ts'
import type { AwsSecretsManagerConfig } from '../policy/kinds/aws-secrets-manager.ts'
import type { Tool } from '../policy/catalog.ts'
import { openAws, type AwsAccess, type AwsKey } from './aws-client.ts'
import { explainAwsFailure } from './aws-failure.ts'
import { createAwsSessions, sessionSecondsMin } from './aws-sessions.ts'
import { checkAwsSecret } from './aws-secrets-check.ts'
import { createSecretsCalls, missingSentence, stage } from './aws-secrets-client.ts'
import { createAwsSecretStore } from './aws-secrets-store.ts'
import { ConnectorError, type Connector, type Ended, type Ending, type Minted, type ToolContext } from './connector.ts'
import { describeLent, nameVariable, waitForReplacement } from './lent-secret.ts'
import { rotateSecret } from './rotated-secret.ts'
import { openRotator } from './rotators/open-rotator.ts'
import { readReference } from './secret-reference.ts'

/**
 * A secret of AWS Secrets Manager, lent as it is in the version that is in force. Nothing is made for a grant, so nothing can be
 * taken back: a value that was lent is good until it is replaced, and the grant says so (invariant 8).
 */
export const awsSecretsManagerConnector: Connector = {
  kind: 'aws-secrets-manager',
  open(tool, context) {
    // The catalog has parsed it by the schema of this kind.
    const config = tool.config as AwsSecretsManagerConfig
    const { secret_id: id, env = nameVariable(tool.name), rotation } = config
    const access = openAws(config, ['secretsmanager', 'sts'])
    const readKey = createKeyReader(tool, config, access, context)
    const calls = createSecretsCalls(id, config.region, async (signal) => access.settings('secretsmanager', await readKey(signal)))
    const rotator = rotation && openRotator(rotation.rotator, { tool, context })

    async function mint(_: unknown, signal: AbortSignal): Promise<Minted> {
      const current = await calls.read(id, { stage: stage.current }, signal)
      if (current === undefined) throw new ConnectorError({ outcome: 'nothing_done', publicMessage: missingSentence(id) })
      return describeLent({ secret: current.arn, version: current.version, value: current.value, isBinary: current.isBinary }, env)
    }

    async function revoke({ reference }: Ending, signal: AbortSignal): Promise<Ended> {
      // A mint reads, and no more: what was given to nobody is nowhere.
      if (reference === undefined) return { status: 'ended' }
      const { secret, version } = readReference(reference)
      // By its ARN: a secret of the same name that was made since is another one.
      const labels = (await calls.describe(secret, signal))?.stages.get(version) ?? []
      const alive = [stage.current, stage.pending, stage.previous].find((one) => labels.includes(one))
      if (alive === undefined) return { status: 'ended' }
      return waitForReplacement(`What was lent, version ${version} of the secret ${id}, is good until it is replaced${describeReplacing(alive, rotation !== undefined)}.`, context.nowMs())
    }

    return {
      effect: rotation === undefined ? 'expiry' : 'propagating',
      undo: 'by_grant',
      ...(rotation && rotator && { rotation: rotateSecret({ everySeconds: rotation.every, store: createAwsSecretStore(id, calls, context), rotator, judge: (value) => void describeLent({ secret: id, version: '', value }, env) }) }),
      mint,
      revoke,
      check: (signal) => checkAwsSecret({ id, calls, env, ...(rotation && { everySeconds: rotation.every }), ...(rotator?.check && { checkRotator: rotator.check }) }, signal),
      async close() {
        await rotator?.close()
        await access.close()
      },
    }
  },
}

function describeReplacing(alive: string, rotates: boolean): string {
  if (alive === stage.previous) {
    return rotates ? ': it is, and opens nothing any more once it is retired' : `: it is, and is taken to open nothing any more once it has not the label ${stage.previous} either, which an admin takes away in AWS when the old value is refused`
  }
  return rotates ? ': its rotation does that' : ': an admin changes it where it is used and in AWS, for Stint does not rotate it'
}

/** The key by which AWS is called: the one of the catalog file, or that of a session for this secret alone, kept while it is good. */
function createKeyReader(tool: Tool, config: AwsSecretsManagerConfig, access: AwsAccess, context: ToolContext): (signal: AbortSignal) => Promise<AwsKey | undefined> {
  const sessions = createAwsSessions({ tool: tool.name, config, access, context })
  const { role } = config
  if (role === undefined) return () => sessions.readKey()
  let known: { readonly key: AwsKey; readonly expiresAtMs: number } | undefined
  return async (signal) => {
    if (known !== undefined && known.expiresAtMs - context.nowMs() > renewMs) return known.key
    const wish = { what: `a session for the secret ${config.secret_id}`, role, name: `stint-secret-${context.instance}`, seconds: sessionSecondsMin, policy: compileSecretPolicy(config, role), tags: {} }
    try {
      known = await sessions.open(wish, signal)
    } catch (error) {
      // Nothing was asked of the secret yet, and a session of which nobody has the key does no harm.
      throw explainAwsFailure(error, { what: wish.what, right: 'sts:AssumeRoleWithWebIdentity', reads: true })
    }
    return known.key
  }
}

/** Before its end a session is replaced by so much. */
const renewMs = 120_000

/** What lending the secret and replacing it needs, whatever else the role may do. */
function compileSecretPolicy({ secret_id: id, region }: AwsSecretsManagerConfig, role: string): string {
  const [, partition = '', , , account = ''] = role.split(':')
  // AWS adds a dash and six characters to a name.
  const resource = id.startsWith('arn:') ? `${id}*` : `arn:${partition}:secretsmanager:${region}:${account}:secret:${id}-??????`
  const actions = ['DescribeSecret', 'GetSecretValue', 'PutSecretValue', 'UpdateSecretVersionStage'].map((action) => `secretsmanager:${action}`)
  return compileSessionPolicy([{ actions, resources: [resource] }, { actions: ['kms:Decrypt', 'kms:GenerateDataKey'], resources: ['*'] }], undefined)
}
