import { textOf, type Rules } from './verify-event.ts'

interface KnownRotation {
  /** The run that is under way, and the entry that began it. */
  run?: { readonly id: string; readonly index: number }
  /** What was replaced, and does not yet open nothing. */
  readonly replaced: Set<string>
}

/** The rotations of long-lived secrets: one run of each at a time, and an end only of what was begun. */
export function createKnownRotations(): { readonly rules: Rules } {
  const rotations = new Map<string, KnownRotation>()
  const runs = new Set<string>()

  function find(name: string): KnownRotation {
    const known = rotations.get(name) ?? { replaced: new Set<string>() }
    rotations.set(name, known)
    return known
  }

  /** Judges the end of a run, and takes note of it. */
  const endRun: Rules[string] = ({ event }) => {
    const [name, id] = [textOf(event, 'rotation'), textOf(event, 'id')]
    const known = find(name)
    const { run } = known
    delete known.run
    const replaced = textOf(event, 'replaced')
    if (replaced !== '') known.replaced.add(replaced)
    return run?.id === id ? undefined : `ends the run ${id} of the rotation ${name}, which was not under way`
  }

  return {
    rules: {
      'rotation.begun': ({ event, index }) => {
        const [name, id] = [textOf(event, 'rotation'), textOf(event, 'id')]
        const known = find(name)
        const { run: before } = known
        const again = runs.has(id)
        runs.add(id)
        known.run = { id, index }
        if (id === '' || again) return `begins the run ${id} of the rotation ${name} once more`
        return before === undefined ? undefined : `begins a run of the rotation ${name}, where that of entry ${before.index} was under way`
      },
      'rotation.finished': endRun,
      'rotation.failed': endRun,
      'rotation.retired': ({ event }) => {
        const [name, version] = [textOf(event, 'rotation'), textOf(event, 'version')]
        return find(name).replaced.delete(version) ? undefined : `retires version ${version} of the rotation ${name}, which no rotation had replaced, or which was retired before`
      },
    },
  }
}
