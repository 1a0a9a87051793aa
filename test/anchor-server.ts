import { listen } from './listen.ts'

/** An endpoint that keeps what is posted to it, and gives the newest back. */
export interface AnchorServer {
  readonly url: string
  readonly notes: string[]
  readonly requests: { readonly method: string; readonly headers: Readonly<Record<string, unknown>> }[]
  /** From now on answers like this instead; without a status, as usual again. */
  answer(status?: number, text?: string, headers?: Readonly<Record<string, string>>): void
  /** From now on does not answer at all, or does again. */
  hang(hangs: boolean): void
}

export async function startAnchorServer(): Promise<AnchorServer> {
  const notes: string[] = []
  const requests: AnchorServer['requests'] = []
  let other: { status: number; text: string; headers: Readonly<Record<string, string>> } | undefined
  let hanging = false
  const origin = await listen((request, response) => {
    requests.push({ method: request.method ?? '', headers: request.headers })
    const pieces: Buffer[] = []
    request.on('data', (piece: Buffer) => pieces.push(piece))
    request.on('end', () => {
      if (hanging) return
      if (other !== undefined) return response.writeHead(other.status, other.headers).end(other.text)
      if (request.method === 'POST') {
        notes.push(Buffer.concat(pieces).toString())
        return response.writeHead(204).end()
      }
      const newest = notes.at(-1)
      if (newest === undefined) return response.writeHead(404).end('nothing yet')
      return response.writeHead(200, { 'content-type': 'text/plain' }).end(newest)
    })
  })
  return {
    url: `${origin}/stint`,
    notes,
    requests,
    answer(status, text = '', headers = {}) {
      other = status === undefined ? undefined : { status, text, headers }
    },
    hang(hangs) {
      hanging = hangs
    },
  }
}
