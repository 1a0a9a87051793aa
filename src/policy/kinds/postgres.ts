import { z } from 'zod'
import type { ConnectorKind } from '../catalog.ts'
import { privateNetwork, secretSource } from './parts.ts'

const roleName = z.string().min(1).max(63).refine((name) => !/\p{Cc}/u.test(name) && Buffer.byteLength(name) <= 63, 'must be the name of a role, at most 63 bytes')
const schemaName = z.string().min(1).max(63).refine((name) => !/\p{Cc}/u.test(name) && Buffer.byteLength(name) <= 63, 'must be the name of a schema, at most 63 bytes')

const config = z.strictObject({
  /** `postgres://user:password@host:port/database` of a role that may create roles. */
  url: secretSource,
  /** Who owns afterwards what an agent has made. */
  reassign_to: roleName,
  connections_max: z.int().min(1).max(100).default(3),
  search_path: z.array(schemaName).max(16).default([]),
  private_network: privateNetwork,
})

const action = { roles: z.array(roleName).min(1).max(16) }

export type PostgresConfig = z.output<typeof config>
export type PostgresAction = { readonly roles: readonly string[] }

/** A role per grant, member of the group roles that its actions name. */
export const postgresKind: ConnectorKind = { audience: 'optional', actionShape: action, config }
