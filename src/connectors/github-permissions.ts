import type { ToolAction } from '../policy/catalog.ts'
import type { GithubAppAction } from '../policy/kinds/github-app.ts'

/** Rights by name: what may be read or written with each. */
export type Permissions = Readonly<Record<string, string>>

const ranks: ReadonlyMap<string, number> = new Map([['read', 1], ['write', 2], ['admin', 3]])

/** All that any of the actions needs, each right at the highest level that one of them names. */
export function joinPermissions(actions: Iterable<ToolAction>): Permissions {
  const joined = new Map<string, string>()
  for (const { settings } of actions) {
    // The catalog has parsed them by the schema of this kind.
    const { permissions } = settings as unknown as GithubAppAction
    for (const [name, level] of Object.entries(permissions)) {
      if (rank(level) > rank(joined.get(name))) joined.set(name, level)
    }
  }
  return Object.fromEntries(joined)
}

/** What of `wanted` goes beyond `held`, as `name:level`; in order, so that a sentence is always the same. */
export function subtractPermissions(wanted: Permissions, held: Permissions): readonly string[] {
  return Object.entries(wanted)
    .filter(([name, level]) => rank(level) > rank(Object.hasOwn(held, name) ? held[name] : undefined))
    .map(([name, level]) => `${name}:${level}`)
    .sort()
}

/** What GitHub gives that was not asked for, but for reading metadata, which is part of every right on a repository. */
export function findExcess(given: Permissions, asked: Permissions): readonly string[] {
  return subtractPermissions(given, { metadata: 'read', ...asked })
}

/** A level that nobody knows is above all others: nothing passes for less than it may be. */
function rank(level: string | undefined): number {
  return level === undefined ? 0 : (ranks.get(level) ?? 4)
}
