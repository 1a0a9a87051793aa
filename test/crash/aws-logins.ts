import { randomBytes } from 'node:crypto'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { runAsOwner, type Server } from '../template.ts'
import { logIn } from './lent.ts'

/** Two pairs of users of a real PostgreSQL, of each of which one's password is a secret that Stint replaces. */
export interface Logins {
  /** A source of the URL of the role that may change their passwords. */
  readonly admin: string
  readonly vault: { readonly users: readonly [string, string]; readonly first: string }
  readonly kept: { readonly users: readonly [string, string]; readonly first: string }
  close(): Promise<void>
}

/** Makes the users; the first of each pair may log in. The admin role's URL goes to a file in `folder`. */
export async function createLogins(server: Server, folder: string): Promise<Logins> {
  const id = randomBytes(4).toString('hex')
  const [database, admin] = [`secrets_${id}`, `keeper_${id}`] as const
  const users = { vault: [`vault_a_${id}`, `vault_b_${id}`], kept: [`kept_a_${id}`, `kept_b_${id}`] } as const
  const password = randomBytes(16).toString('hex')
  const urlOf = (user: string): string => `postgres://${user}:${password}@127.0.0.1:${server.port}/${database}?sslmode=disable`
  const all = [...users.vault, ...users.kept]
  await runAsOwner(
    server,
    `create database ${database}`,
    `create role ${admin} login createrole password '${password}'`,
    ...all.map((user) => `create role ${user} login password '${password}'`),
    ...all.map((user) => `grant ${user} to ${admin} with admin true, inherit false, set false`),
    // Nobody has been given these yet.
    ...[users.vault[1], users.kept[1]].map((user) => `alter role ${user} password null`),
  )
  const file = join(folder, 'keeper.url')
  writeFileSync(file, `${urlOf(admin)}\n`, { mode: 0o600 })
  chmodSync(file, 0o600)
  return {
    admin: `file:${file}`,
    vault: { users: users.vault, first: urlOf(users.vault[0]) },
    kept: { users: users.kept, first: urlOf(users.kept[0]) },
    async close() {
      await runAsOwner(server, `drop database ${database} with (force)`, ...[...all, admin].map((name) => `drop role if exists ${pg.escapeIdentifier(name)}`))
    },
  }
}

/** Whether a value that was lent logs in: `undefined`, or the server's word for why not. */
export async function tryLogin(url: string): Promise<string | undefined> {
  const session = await logIn({ connectionString: url })
  if (typeof session === 'string') return session
  await session.end().catch(() => undefined)
  return undefined
}
