import { request } from 'node:http'

/** An answer as the benchmark looks at it. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

/**
 * One request on a connection of its own: a kept one may have been closed while the server stood still. `form` makes it
 * a POST.
 */
export function exchange(url: string, { form, bearer }: { readonly form?: string; readonly bearer?: string } = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, {
      agent: false,
      method: form === undefined ? 'GET' : 'POST',
      headers: {
        ...(form !== undefined && { 'content-type': 'application/x-www-form-urlencoded' }),
        ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
      },
      timeout: 10_000,
    })
    outgoing.once('timeout', () => outgoing.destroy(new Error(`${url} does not answer`)))
    outgoing.once('error', reject)
    outgoing.once('response', (incoming) => {
      incoming.toArray().then(
        (pieces) => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text: Buffer.concat(pieces).toString() }),
        reject,
      )
    })
    outgoing.end(form)
  })
}
