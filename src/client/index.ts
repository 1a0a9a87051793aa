export { createAdminClient, type AdminClient, type AdminClientOptions } from './admin.ts'
export {
  createAgentClient,
  type AgentClient,
  type AgentClientOptions,
  type AgentToken,
  type Introspection,
  type TokenRequest,
} from './agent.ts'
export { StintError, type ClientErrorCode, type Problem } from './errors.ts'
export {
  generatePrivateJwk,
  importAgentKey,
  keyAlgorithms,
  publicJwks,
  refusePrivateKeys,
  type AgentKey,
  type KeyAlgorithm,
  type PrivateJwk,
  type PublicJwk,
} from './key.ts'
export type * from './records.ts'
