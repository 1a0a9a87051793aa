/** Lets at most so many tasks run at once, and at most so many of one kind. */
export interface Places {
  run<T>(kind: string, task: () => Promise<T>): Promise<T>
}

export function createPlaces(max: number, perKindMax: number): Places {
  let running = 0
  const perKind = new Map<string, number>()
  const waiting: { readonly kind: string; readonly start: () => void }[] = []

  const isFree = (kind: string): boolean => running < max && (perKind.get(kind) ?? 0) < perKindMax

  function take(kind: string): void {
    running++
    perKind.set(kind, (perKind.get(kind) ?? 0) + 1)
  }

  function leave(kind: string): void {
    running--
    perKind.set(kind, (perKind.get(kind) ?? 1) - 1)
    const next = waiting.findIndex((one) => isFree(one.kind))
    if (next === -1) return
    const [one] = waiting.splice(next, 1)
    if (one === undefined) return
    take(one.kind)
    one.start()
  }

  return {
    async run(kind, task) {
      if (isFree(kind)) take(kind)
      else await new Promise<void>((start) => waiting.push({ kind, start }))
      try {
        return await task()
      } finally {
        leave(kind)
      }
    },
  }
}
