/** A long answer that is made page by page. */
export interface PageStream<T> {
  readPages(signal: AbortSignal): AsyncGenerator<T, void>
  /** What stands before the first page. */
  readonly begin: string
  format(page: T): string
  /** Throws when whoever asked may no longer have the rest; asked every `recheckMs`. */
  mayGoOn(): Promise<void>
  nowMs(): number
  /** Called once, however the stream ends. */
  end(): void
  log(error: unknown): void
  /** Cuts the connection under the answer, where there is one. */
  cut?(): void
  readonly recheckMs?: number
  /** How long the reader may take over one page. */
  readonly readMsMax?: number
}

/**
 * The body of such an answer. A page is read when the one before has been taken, so that a slow reader holds one page and
 * nothing else. What goes wrong in the middle cuts the transfer, so that it cannot be taken for a whole one.
 */
export function streamPages<T>(source: PageStream<T>): ReadableStream<Uint8Array> {
  const { recheckMs = 5_000, readMsMax = 120_000 } = source
  const ended = new AbortController()
  const pages = source.readPages(ended.signal)
  let begin = source.begin
  let checkedMs = source.nowMs()
  let stalled: NodeJS.Timeout | undefined

  function end(): void {
    clearTimeout(stalled)
    if (ended.signal.aborted) return
    ended.abort()
    source.end()
  }

  function fail(error: unknown, controller: ReadableStreamDefaultController<Uint8Array>): void {
    end()
    source.log(error)
    // The server's own way with a body that fails writes to standard error and to the client.
    if (source.cut === undefined) controller.error(error)
    else source.cut()
  }

  function expectRead(controller: ReadableStreamDefaultController<Uint8Array>): void {
    stalled = setTimeout(() => fail(new Error('the reader took no more'), controller), readMsMax)
    stalled.unref()
  }

  async function readNext(): Promise<string | undefined> {
    if (source.nowMs() - checkedMs >= recheckMs) {
      await source.mayGoOn()
      checkedMs = source.nowMs()
    }
    const { done, value } = await pages.next()
    return done === true ? undefined : source.format(value)
  }

  return new ReadableStream(
    {
      start: expectRead,
      async pull(controller) {
        clearTimeout(stalled)
        try {
          const text = await readNext()
          // Meanwhile the reader has gone away.
          if (ended.signal.aborted) return
          if (begin !== '' || text !== undefined) controller.enqueue(Buffer.from(begin + (text ?? '')))
          begin = ''
          if (text === undefined) {
            end()
            controller.close()
          } else {
            expectRead(controller)
          }
        } catch (error) {
          if (!ended.signal.aborted) fail(error, controller)
        }
      },
      cancel: end,
    },
    // Nothing is read ahead.
    { highWaterMark: 0 },
  )
}
