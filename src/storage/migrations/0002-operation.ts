import { sql, type Kysely } from 'kysely'
import type { Engine } from '../engine.ts'

/** What operating a broker needs: operators whose credentials end, sign-ins, enrolment codes, announced reviews. */
export async function createOperation(db: Kysely<never>, engine: Engine): Promise<void> {
  const [text, options] = engine === 'sqlite' ? ['text', 'strict'] : ['text collate "C"', '']
  const statements = [
    `alter table operator add column expires_at ${text}`,
    `alter table operator add column revoked_at ${text}`,
    `create table operator_session (
      id ${text} primary key, issuer ${text} not null, subject ${text} not null, role ${text} not null, secret_hash ${text} not null,
      created_at ${text} not null, expires_at ${text} not null, ended_at ${text}) ${options}`,
    'create index operator_session_by_subject on operator_session (subject)',
    'create index operator_session_by_expiry on operator_session (expires_at)',
    `create table enrolment (
      id ${text} primary key, workload ${text} not null references workload (name), code_hash ${text} not null,
      created_at ${text} not null, expires_at ${text} not null, ended_at ${text}, kid ${text}) ${options}`,
    'create index enrolment_by_workload on enrolment (workload, created_at)',
    `alter table workload add column review_announced ${text}`,
    // Without it, whoever searches for a tool reads the whole log.
    'create index audit_event_by_tool on audit_event (tool, idx) where tool is not null',
    'create index workload_by_review on workload (status, review_at)',
  ]
  for (const statement of statements) await sql.raw(statement).execute(db)
}
