import type { AgentClient } from '../client/agent.ts'
import { StintError } from '../client/errors.ts'
import type { AgentKey } from '../client/key.ts'
import { CommandError, type Io } from './command.ts'
import { agentClient, keyFile, workloadName, type AgentValues } from './connection.ts'
import { createKeyFile, readKeyFile } from './key-file.ts'
import { printable } from './terminal.ts'

/**
 * Acts as the workload of the options or the environment. Where there is no key yet it makes one and throws a message that
 * says how to have it registered; a refusal says what it could be.
 */
export async function actAsWorkload<T>(values: AgentValues, io: Io, act: (client: AgentClient) => Promise<T>): Promise<T> {
  const workload = workloadName(values, io)
  const path = keyFile(values, io)
  const key = await readKeyFile(path)
  if (key === undefined) throw await introduceKey(workload, path)
  try {
    return await act(agentClient(values, key, io))
  } catch (error) {
    throw error instanceof StintError ? explainRefusal(error, workload, key) : error
  }
}

/** A client for what the workload holds already: without a key there is nothing that it could hold. */
export async function openAsWorkload(values: AgentValues, io: Io): Promise<AgentClient> {
  const path = keyFile(values, io)
  const key = await readKeyFile(path)
  if (key === undefined) throw new CommandError(`there is no key file ${path}`)
  return agentClient(values, key, io)
}

/** Makes the key and the message that says how to go on. Standard output stays empty: what reads it expects a credential. */
async function introduceKey(workload: string, path: string): Promise<CommandError> {
  const key = await createKeyFile(path, 'ES256')
  return new CommandError(`there was no key ${path}: a new one has been made, id ${key.kid}, and has to be registered first.
With a code from an admin (stint workload enroll ${workload}):
  stint enroll CODE --key ${path}
Or hand its public half to an admin:
  stint key public ${path} > ${workload}.jwks.json
who registers the workload with it:
  stint workload register ${workload} --jwks ${workload}.jwks.json … (see: stint workload register --help)
or, where the workload exists, adds the key:
  stint workload add-key ${workload} --jwks ${workload}.jwks.json
Then ask again.`)
}

/** The broker says to strangers only that they are (invariant 10); what it could be is no secret. */
function explainRefusal(error: StintError, workload: string, key: AgentKey): Error {
  if (error.code !== 'invalid_client') return error
  return new CommandError(`${printable(error.message)}
Is the workload registered and active, and its review not overdue? An admin sees: stint workload show ${workload}
Is this key one of its keys? Its id is ${key.kid}`)
}
