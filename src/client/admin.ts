import { createAnchorMethods, type AnchorMethods } from './anchors.ts'
import { readAuditIndex, readObject, readObjects, type Shape } from './answer.ts'
import { askIssuer } from './discovery.ts'
import { createEnrolmentMethods, type EnrolmentMethods } from './enrolments.ts'
import { clientError, StintError } from './errors.ts'
import { openExport, type ExportOptions } from './export.ts'
import { proveExport } from './export-proof.ts'
import { createSender, type ApiAnswer, type ApiRequest, type ConnectionOptions, type Sender } from './http.ts'
import { refusePrivateKeys } from './key.ts'
import { createGrantMethods, type GrantMethods } from './grants.ts'
import { createOperatorMethods, type OperatorMethods } from './operators.ts'
import { encodeSegment } from './path.ts'
import { createReceiptMethods, type ReceiptMethods } from './receipts.ts'
import { createSealingKeyMethods, type SealingKeyMethods } from './sealing-keys.ts'
import { createRotationMethods, type RotationMethods } from './rotations.ts'
import { createSecretMethods, type SecretMethods } from './secrets.ts'
import { createSessionMethods, type SessionMethods } from './sessions.ts'
import { createSigningKeyMethods, type SigningKeyMethods } from './signing-keys.ts'
import { createToolMethods, type ToolMethods } from './tools.ts'
import type { AuditEntry, AuditExport, AuditExportQuery, AuditPage, AuditProofQuery, AuditQuery, ProofLines } from './log-records.ts'
import type { PolicyApplied, PolicyChange, PolicyInForce, Recorded, Registration, WorkloadChange, WorkloadPage, WorkloadQuery, WorkloadRecord } from './records.ts'

/** One operator at one broker. */
export interface AdminClientOptions extends ConnectionOptions {
  /** An operator's credential, `stint_op_…`, or that of a session, `stint_os_…`. */
  readonly token: string
  /** Where the credential is from, such as a file's name: for the message when it is not accepted. */
  readonly tokenFrom?: string | undefined
}

/** An operator's side of the broker: one method per route. Answers are returned as they are, in snake case. */
export interface AdminClient extends AnchorMethods, EnrolmentMethods, GrantMethods, OperatorMethods, ReceiptMethods, RotationMethods, SealingKeyMethods, SecretMethods, SessionMethods, SigningKeyMethods, ToolMethods {
  registerWorkload(registration: Registration): Promise<Recorded<WorkloadRecord>>
  getWorkload(name: string): Promise<WorkloadRecord>
  listWorkloads(query?: WorkloadQuery): Promise<WorkloadPage>
  updateWorkload(name: string, change: WorkloadChange): Promise<Recorded<WorkloadRecord>>
  suspendWorkload(name: string, reason?: string): Promise<Recorded<WorkloadRecord>>
  resumeWorkload(name: string, reason?: string): Promise<Recorded<WorkloadRecord>>
  retireWorkload(name: string, reason?: string): Promise<Recorded<WorkloadRecord>>
  addWorkloadKeys(name: string, jwks: unknown): Promise<Recorded<WorkloadRecord>>
  removeWorkloadKey(name: string, kid: string): Promise<Recorded<WorkloadRecord>>
  getPolicy(): Promise<PolicyInForce>
  applyPolicy(change: PolicyChange): Promise<PolicyApplied>
  listAudit(query?: AuditQuery): Promise<AuditPage>
  exportAudit(query?: AuditExportQuery, options?: ExportOptions): Promise<AuditExport>
  /** Asked for once all entries of an export are there. To be read once, to its end: only then is the proof complete. */
  proveExport(query: AuditProofQuery, options?: ExportOptions): AsyncIterable<ProofLines>
  /** What the broker calls itself, which agents must call it: an operator may reach it by another URL. */
  getIssuer(): Promise<string>
}

// A large set takes the broker some seconds to validate.
const policyTimeoutMs = 60_000

/** Makes a client that acts as one operator. Throws `invalid_option` at once for options that cannot work. */
export function createAdminClient(options: AdminClientOptions): AdminClient {
  const sender = explainRefusal(createSender(options), options)
  // Checked here because fetch repeats a header that it refuses, with the credential in it.
  if (!/^stint_o[ps]_[\w-]{1,200}$/.test(options.token)) {
    const message = "the operator's credential is malformed: it begins with stint_op_ or stint_os_ and has no spaces."
    throw clientError('invalid_option', message)
  }

  const send = (request: ApiRequest): Promise<ApiAnswer> => sender.send({ ...request, bearer: options.token })
  const workloads = '/v1/workloads'
  const of = (name: string): string => `${workloads}/${encodeSegment(name, "the workload's name")}`
  async function changeState(name: string, verb: string, reason?: string): Promise<Recorded<WorkloadRecord>> {
    return readRecorded(await send({ method: 'POST', path: `${of(name)}/${verb}`, json: { reason } }))
  }

  return {
    ...createAnchorMethods(send),
    ...createEnrolmentMethods(send, of),
    ...createGrantMethods(send),
    ...createOperatorMethods(send),
    ...createReceiptMethods(send),
    ...createSealingKeyMethods(send),
    ...createRotationMethods(send),
    ...createSecretMethods(send),
    ...createSessionMethods(send),
    ...createSigningKeyMethods(send),
    ...createToolMethods(send),
    async registerWorkload(registration) {
      refusePrivateKeys(registration.jwks)
      return readRecorded(await send({ method: 'POST', path: workloads, json: registration }))
    },
    getWorkload: async (name) => readWorkload((await send({ method: 'GET', path: of(name) })).body),
    async listWorkloads(query = {}) {
      const { body } = await send({ method: 'GET', path: workloads, query: { ...query } })
      const page = readObject(body, { workloads: 'array', next: 'string?' }, 'a list of workloads')
      const list = readObjects(page['workloads'], {}, 'a list of workloads').map(readWorkload)
      return { workloads: list, ...(typeof page['next'] === 'string' && { next: page['next'] }) }
    },
    updateWorkload: async (name, change) => readRecorded(await send({ method: 'PATCH', path: of(name), json: change })),
    suspendWorkload: (name, reason) => changeState(name, 'suspend', reason),
    resumeWorkload: (name, reason) => changeState(name, 'resume', reason),
    retireWorkload: (name, reason) => changeState(name, 'retire', reason),
    async addWorkloadKeys(name, jwks) {
      refusePrivateKeys(jwks)
      return readRecorded(await send({ method: 'POST', path: `${of(name)}/keys`, json: { jwks } }))
    },
    removeWorkloadKey: async (name, kid) =>
      readRecorded(await send({ method: 'DELETE', path: `${of(name)}/keys/${encodeSegment(kid, "the key's id")}` })),

    async getPolicy() {
      const { body } = await send({ method: 'GET', path: '/v1/policy' })
      // The shape was checked; the type states the same. So for each cast below.
      return readObject(body, policyShape, 'the policy set in force') as unknown as PolicyInForce
    },
    async applyPolicy(change) {
      const request = { method: 'PUT', path: '/v1/policy', json: change, timeoutMsDefault: policyTimeoutMs } as const
      const { body } = await send(request)
      return readObject(body, appliedShape, 'a policy set') as unknown as PolicyApplied
    },

    async listAudit(query = {}) {
      const { body } = await send({ method: 'GET', path: '/v1/audit', query: { ...query } })
      const page = readObject(body, { entries: 'array', next: 'number?', tree_size: 'number' }, 'audit entries')
      return {
        entries: readObjects(page['entries'], entryShape, 'audit entries') as unknown as readonly AuditEntry[],
        ...(typeof page['next'] === 'number' && { next: page['next'] }),
        tree_size: Number(page['tree_size']),
      }
    },
    exportAudit: (query = {}, exportOptions = {}) => openExport(sender, options.token, query, exportOptions),
    proveExport: (query, exportOptions = {}) => proveExport(sender, options.token, query, exportOptions),
    getIssuer: () => askIssuer(sender),
  }
}

/** The broker says the same of a credential that has ended as of none at all (invariant 10); this side knows that it sent one. */
function explainRefusal(sender: Sender, { token, tokenFrom }: AdminClientOptions): Sender {
  const explain = (error: unknown): never => {
    if (!(error instanceof StintError) || error.code !== 'unauthenticated') throw error
    const which = tokenFrom === undefined ? 'that was sent' : `from ${tokenFrom}`
    const remedy = token.startsWith('stint_os_') ? 'run stint login' : 'an admin makes a new one with stint operator rotate NAME'
    const message = `the operator's credential ${which} was not accepted by ${sender.origin}. It may have expired or been revoked: ${remedy}.`
    throw new StintError({ ...error, message, cause: error })
  }
  return {
    origin: sender.origin,
    send: (request) => sender.send(request).catch(explain),
    open: (request) => sender.open(request).catch(explain),
  }
}

const workloadShape: Shape = {
  name: 'string',
  spiffe_id: 'string',
  environment: 'string',
  stage: 'string',
  owner: 'object',
  purpose: 'string',
  tags: 'list of strings',
  review_at: 'string',
  status: 'string',
  created_at: 'string',
  updated_at: 'string',
  keys: 'array',
}
const ownerShape: Shape = { team: 'string', contact: 'string' }
const keyShape: Shape = { kid: 'string', alg: 'string', status: 'string', added_at: 'string', removed_at: 'string?' }
const policyShape: Shape = {
  hash: 'string',
  in_force_since: 'string',
  cedar_version: 'string',
  policies: 'number',
  tools: 'number',
}
const appliedShape: Shape = { hash: 'string', changed: 'boolean', audit_index: 'number' }
const entryShape: Shape = { index: 'number', time: 'string', type: 'string', event: 'object', leaf_hash: 'string' }

function readWorkload(body: unknown): WorkloadRecord {
  const workload = readObject(body, workloadShape, 'a workload')
  readObject(workload['owner'], ownerShape, "a workload's owner")
  readObjects(workload['keys'], keyShape, "a workload's key")
  return workload as unknown as WorkloadRecord
}

function readRecorded(answer: ApiAnswer): Recorded<WorkloadRecord> {
  return { ...readWorkload(answer.body), ...readAuditIndex(answer.headers) }
}
