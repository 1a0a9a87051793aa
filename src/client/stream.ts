/** Ends what nothing comes of. */
export interface Silence {
  /** To be given to whatever is waited for. */
  readonly signal: AbortSignal
  /** Waits for something to come, and aborts the signal when that takes too long. */
  limit<T>(something: Promise<T>): Promise<T>
}

/** A limit on how long nothing may come, in milliseconds, however long the whole takes. */
export function watchSilence(msMax: number): Silence {
  const controller = new AbortController()
  return {
    signal: controller.signal,
    async limit(something) {
      const timer = setTimeout(() => controller.abort(new DOMException('nothing came', 'TimeoutError')), msMax)
      try {
        return await something
      } finally {
        clearTimeout(timer)
      }
    },
  }
}

/** The body as it arrives. Throws what `explain` makes of an error; one that is cut off is an error too. */
export async function* readPieces({ body }: Response, silence: Silence, explain: (error: unknown) => Error): AsyncGenerator<Uint8Array, void> {
  const reader = body?.getReader()
  try {
    for (;;) {
      const read = await silence.limit(reader?.read() ?? Promise.resolve({ value: undefined }))
      if (read.value === undefined) return
      yield read.value
    }
  } catch (error) {
    throw explain(error)
  } finally {
    // Whoever stops reading in the middle wants no more of it.
    void reader?.cancel().catch(() => undefined)
  }
}
