export type { AnchorMethods } from './anchors.ts'
export { createAdminClient, type AdminClient, type AdminClientOptions } from './admin.ts'
export {
  createAgentClient,
  type AgentClient,
  type AgentClientOptions,
  type Introspection,
  type KeyRotation,
} from './agent.ts'
export type { GrantMethods } from './grants.ts'
export type { OwnGrantMethods } from './own-grants.ts'
export { enrolAgent, type Enrolled, type EnrolmentMethods, type EnrolOptions } from './enrolments.ts'
export type { ExportOptions } from './export.ts'
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
export { createLogClient, type LogClient } from './log.ts'
export { createSignInClient, type SessionMethods, type SignInClient } from './sessions.ts'
export type { OperatorMethods } from './operators.ts'
export type { ReceiptMethods } from './receipts.ts'
export type { SealingKeyList, SealingKeyMethods, SealingKeyRecord, SealingKeysRewrapped } from './sealing-keys.ts'
export type { RotationMethods } from './rotations.ts'
export type { SecretMethods } from './secrets.ts'
export type { SigningKeyMethods } from './signing-keys.ts'
export type { AgentToken, TokenRequest } from './token.ts'
export type { ToolMethods } from './tools.ts'
export type * from './grant-records.ts'
export type * from './log-records.ts'
export type * from './records.ts'
export type * from './rotation-records.ts'
export type * from './secret-records.ts'
