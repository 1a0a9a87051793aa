import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { TestBroker } from '../broker.ts'

/** Every column of every table. */
export async function dumpDatabase({ broker: { database } }: TestBroker): Promise<Record<string, Buffer>> {
  const tables = await database.read.introspection.getTables()
  const dumps: Record<string, Buffer> = {}
  for (const { name } of tables) {
    // The names are the database's own.
    const rows = (await database.read.selectFrom(name as 'audit_event').selectAll().execute()) as Record<string, unknown>[]
    const values = rows.flatMap((row) => Object.entries(row).map(([column, value]) => Buffer.concat([Buffer.from(`\n${column}=`), toBytes(value)])))
    dumps[`table ${name}`] = Buffer.concat(values)
  }
  return dumps
}

function toBytes(value: unknown): Buffer {
  return value instanceof Uint8Array ? Buffer.from(value) : Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
}

/** The SQLite file and what lies beside it. */
export function readFiles({ database: { engine, location } }: TestBroker): Record<string, Buffer> {
  if (engine !== 'sqlite') return {}
  const folder = dirname(location)
  const names = readdirSync(folder).filter((name) => name.startsWith(basename(location)))
  return Object.fromEntries(names.map((name) => [`file ${name}`, readFileSync(join(folder, name))]))
}
