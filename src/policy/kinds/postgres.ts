import { z } from 'zod'
import type { ConnectorKind } from './kind.ts'
import { privateNetwork, secretSource } from './parts.ts'

/** Longer names PostgreSQL cuts short, and others than these no client can be trusted to show. */
function isName(name: string): boolean {
  return name.isWellFormed() && !/\p{Cc}/u.test(name) && Buffer.byteLength(name) <= 63
}

const roleName = z.string().min(1).refine(isName, 'must be the name of a role, at most 63 bytes')
const schemaName = z.string().min(1).refine(isName, 'must be the name of a schema, at most 63 bytes')

const config = z.strictObject({
  /** `postgres://user:password@host:port/database` of a role with CREATEROLE and ADMIN OPTION on the roles that actions name. */
  url: secretSource,
  /** Who owns afterwards what an agent has made: a role that cannot log in and has no rights of its own. */
  reassign_to: roleName,
  connections_max: z.int().min(1).max(100).default(3),
  search_path: z.array(schemaName).max(16).default([]),
  private_network: privateNetwork,
})

const action = { roles: z.array(roleName).min(1).max(16) }

export type PostgresConfig = z.output<typeof config>
export type PostgresAction = { readonly roles: readonly string[] }

/** A role per grant, member of the group roles that its actions name. Those alone say what it may do: there is no target. */
export const postgresKind: ConnectorKind = { audience: 'optional', lendsToken: false, actionShape: action, config, target: 'refused' }
