import { clientError, StintError } from './errors.ts'
import { createSender, type ConnectionOptions } from './http.ts'

/** The log as anyone may follow it, without a credential (https://c2sp.org/tlog-tiles). What it answers is not checked here. */
export interface LogClient {
  readonly origin: string
  /** The newest checkpoint: a signed note. */
  readCheckpoint(): Promise<string>
  /** The public key of its checkpoints, `name+hash+key`: worth something once it was compared with what an admin reads out. */
  readKey(): Promise<string>
  /**
   * The first `width` hashes of a tile, 1 to 256, each of 32 bytes. Level 0 has the leaves, each further level the roots of
   * 256 hashes of the one below; the tile of index N begins with hash 256 N of its level.
   */
  readTile(level: number, index: number, width: number): Promise<Buffer>
}

/** How many hashes a whole tile has. */
export const tileWidth = 256
const hashBytes = 32
// As much as a note with many witnesses has.
const noteBytesMax = 64 * 1024
const keyBytesMax = 1024
const timeoutMsDefault = 10_000

/** Makes a client of one broker's log. Throws `invalid_option` at once for options that cannot work. */
export function createLogClient(options: ConnectionOptions): LogClient {
  const sender = createSender(options)
  const msMax = options.timeoutMs ?? timeoutMsDefault

  /** All of an answer, counted while it arrives. What comes drop by drop ends too. */
  async function read(path: string, bytesMax: number): Promise<Buffer> {
    const begunAt = performance.now()
    const { pieces } = await sender.open({ method: 'GET', path })
    const chunks: Uint8Array[] = []
    let length = 0
    for await (const piece of pieces) {
      length += piece.byteLength
      if (length > bytesMax) throw clientError('answer_too_large', `${sender.origin} answered ${path} with more than ${bytesMax} bytes.`)
      if (performance.now() - begunAt > msMax) {
        throw clientError('timed_out', `no whole answer from ${sender.origin} within ${msMax / 1000} s.`)
      }
      chunks.push(piece)
    }
    return Buffer.concat(chunks)
  }

  async function readHashes(path: string, count: number): Promise<Buffer> {
    const bytes = await read(path, count * hashBytes)
    if (bytes.length === count * hashBytes) return bytes
    const message = `${sender.origin} answered ${path} with ${bytes.length} bytes, not with the ${count * hashBytes} of ${count} hashes.`
    throw clientError('bad_answer', message)
  }

  return {
    origin: sender.origin,
    readCheckpoint: async () => (await read('/log/checkpoint', noteBytesMax)).toString(),
    async readKey() {
      const key = (await read('/log/key', keyBytesMax)).toString().trimEnd()
      if (/^[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+={0,2}$/.test(key)) return key
      throw clientError('bad_answer', `${sender.origin} answered /log/key with something that is no key of a log.`)
    },
    async readTile(level, index, width) {
      const path = tilePath(level, index)
      if (width === tileWidth) return readHashes(path, width)
      try {
        return await readHashes(`${path}.p/${width}`, width)
      } catch (error) {
        // A log may drop what it had of a tile once it has the whole one.
        if (!(error instanceof StintError) || error.status !== 404) throw error
        return (await readHashes(path, tileWidth)).subarray(0, width * hashBytes)
      }
    },
  }
}

/** The index in groups of three digits, all but the last marked with an x: 1234067 is `x001/x234/067`. */
function tilePath(level: number, index: number): string {
  const groups = [String(index % 1000).padStart(3, '0')]
  for (let rest = Math.floor(index / 1000); rest > 0; rest = Math.floor(rest / 1000)) {
    groups.unshift(`x${String(rest % 1000).padStart(3, '0')}`)
  }
  return `/log/tile/${level}/${groups.join('/')}`
}
