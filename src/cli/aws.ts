import type { AgentClient } from '../client/agent.ts'
import type { GrantRequest, LentGrant } from '../client/grant-records.ts'
import { readDuration } from './arguments.ts'
import { actAsWorkload } from './as-workload.ts'
import { CommandError, parseOptions, type Command } from './command.ts'
import { agentHelp, agentOptions } from './connection.ts'
import { readAccess } from './grant-get.ts'
import { createGroup } from './group.ts'

const credentialProcessCommand: Command = {
  name: 'credential-process',
  summary: 'print a credential as credential_process of an AWS profile takes it',
  help: `Usage: stint aws credential-process TOOL ACTION… [options]

Asks the broker for a credential for these actions on a tool of the kind
aws-sts, and prints it as AWS programs take it from a process: put this command
behind credential_process in ~/.aws/config, and the AWS CLI and every SDK use
the profile as any other.

Each call is a new grant, and each run of the AWS CLI calls once. Nobody gives
it back: it ends at its time, or with its task. Programs that run on ask anew
some minutes before it ends (the AWS CLI 15 minutes), so give them longer than
that, or run them with: stint grant TOOL ACTION… -- COMMAND

Options:
  --target NAME   the one object that the work is about, such as a prefix
  --ttl DURATION  for how long, such as 30m, 1h (else the tool's default)
  --task NAME     your own name for the piece of work: stint task complete NAME
                  ends all that was granted under it
  --reason TEXT   why, for the log

${agentHelp}
Examples:
  stint aws credential-process reports s3.read --target 2026 --task nightly

  ~/.aws/config, with the whole path of stint and of the key:
    [profile reports]
    region = eu-west-1
    credential_process = /usr/local/bin/stint aws credential-process reports s3.read --target 2026 --workload report-bot --key /run/bot.key
`,
  async run(args, io) {
    const command = 'aws credential-process'
    const { values, positionals } = parseOptions(command, args, { ...agentOptions, target: { type: 'string' }, ttl: { type: 'string' }, task: { type: 'string' }, reason: { type: 'string' } })
    const { tool, actions } = readAccess(command, positionals)
    const { target, task, reason } = values
    const ttlSeconds = values.ttl === undefined ? undefined : readDuration(values.ttl, 'ttl')
    return actAsWorkload(values, io, async (client) => {
      io.out(`${await requestForProcess(client, { tool, actions, target, ttlSeconds, task, reason })}\n`)
      return 0
    })
  },
}

/** A credential in the form of the AWS SDKs and Tools Reference Guide, "Process credential provider". */
async function requestForProcess(client: AgentClient, request: GrantRequest): Promise<string> {
  const lent = await client.requestGrant(request)
  const { AccessKeyId, SecretAccessKey, SessionToken, Expiration } = lent.credential
  if ([AccessKeyId, SecretAccessKey, SessionToken, Expiration].every((one) => typeof one === 'string')) {
    return JSON.stringify({ Version: 1, AccessKeyId, SecretAccessKey, SessionToken, Expiration })
  }
  throw await refuseOther(client, lent)
}

/** Nobody can use it in this form: it ends now. */
async function refuseOther(client: AgentClient, { grant, tool }: LentGrant): Promise<CommandError> {
  const given = await client.giveBackGrant(grant).then(
    () => 'It was given back.',
    () => `It could not be given back: stint grant give-back ${grant}`,
  )
  return new CommandError(`the tool ${tool} lends no AWS credential: name one of the kind aws-sts. ${given}`)
}

/** `stint aws …`: what AWS programs call. */
export const awsCommand: Command = createGroup({
  name: 'aws',
  summary: 'Hand credentials to AWS programs',
  commands: [credentialProcessCommand],
  examples: `  stint aws credential-process reports s3.read --target 2026
`,
})
