import { z } from 'zod'
import { encodeBundle, hasTile, levelPattern, parseTilePlace, placePattern, tileWidth, type Tile } from '../audit/tile.ts'
import { BrokerError } from '../kernel/errors.ts'
import { readWindow } from '../storage/audit-windows.ts'
import { findNewestCheckpoint, listCosignatures } from '../storage/checkpoints.ts'
import { readTileHashes } from '../storage/tree.ts'
import { defineRoute, type Route, type RouteContext } from './route.ts'

// The log as every follower of transparency logs reads it: https://c2sp.org/tlog-tiles.

const bytes = z.string().meta({ format: 'binary' })

const level = z.string().regex(levelPattern, 'must be a level from 0 to 63').transform(Number)

const place = z
  .string()
  .regex(placePattern, 'must be the number of a tile, as in 067, x001/x234/067 or 067.p/8')
  .transform(parseTilePlace)
  .describe('Number and width of the tile, as in `067`, `x001/x234/067` or `067.p/8`: its slashes stand in the address as they are.')

export const logRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/log/checkpoint',
    access: 'anyone',
    summary: "The log's newest checkpoint, with what witnesses said to it",
    answers: { 200: { description: 'A signed note (https://c2sp.org/tlog-checkpoint)', type: 'text/plain', schema: z.string() } },
    async handle(c) {
      const { read } = c.get('broker').database
      const { size, note } = await requireNewest(c)
      return answerText(c, [note, ...(await listCosignatures(read, size))].join(''))
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/log/key',
    access: 'anyone',
    summary: "The public key of the log's checkpoints; whoever verifies by it makes sure of it elsewhere, once",
    answers: { 200: { description: 'A verifier key (https://c2sp.org/signed-note)', type: 'text/plain', schema: z.string() } },
    handle: async (c) => answerText(c, `${c.get('broker').checkpointKey.verifierKey}\n`),
  }),
  defineRoute({
    method: 'GET',
    path: '/log/tile/entries/:index{.+}',
    access: ['admin', 'auditor'],
    summary: 'Up to 256 entries of the log, as a bundle',
    params: z.strictObject({ index: place }),
    answers: { 200: { description: 'Each entry behind its length, 16 bits with the high ones first', type: 'application/octet-stream', schema: bytes } },
    async handle(c, { params: { index: place } }) {
      const { index, width } = await requireTile(c, { level: 0, ...place })
      c.header('cache-control', 'private, no-store')
      const range = { after: index * tileWidth - 1, before: index * tileWidth + width }
      const { entries } = await readWindow(c.get('broker').database.read, {}, range, 'asc', tileWidth)
      if (entries.length < width) throw new Error(`the log lacks ${width - entries.length} of ${width} entries from ${range.after + 1} on`)
      return answerBytes(c, encodeBundle(entries.map(({ body }) => body)))
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/log/tile/:level/:index{.+}',
    access: 'anyone',
    summary: "Up to 256 hashes of a level of the log's tree",
    params: z.strictObject({ level, index: place }),
    answers: { 200: { description: 'The hashes, 32 bytes each', type: 'application/octet-stream', schema: bytes } },
    async handle(c, { params: { level, index: place } }) {
      const { index, width } = await requireTile(c, { level, ...place })
      const hashes = await readTileHashes(c.get('broker').database.read, level, index * tileWidth, width)
      // What a checkpoint covers never changes.
      c.header('cache-control', 'public, max-age=31536000, immutable')
      return answerBytes(c, Buffer.concat(hashes))
    },
  }),
]

async function requireNewest(c: RouteContext) {
  const newest = await findNewestCheckpoint(c.get('broker').database.read)
  if (newest === undefined) throw new BrokerError({ code: 'unavailable', publicMessage: 'The log has no checkpoint yet: see /readyz.' })
  return newest
}

/** The tile, if the newest checkpoint covers all of it. Throws `not_found`. */
async function requireTile(c: RouteContext, tile: Tile): Promise<Tile> {
  const { size } = await requireNewest(c)
  if (hasTile(size, tile)) return tile
  throw new BrokerError({ code: 'not_found', publicMessage: `The log's newest checkpoint, of ${size} entries, does not reach that far.` })
}

function answerBytes(c: RouteContext, body: Uint8Array<ArrayBuffer>): Response {
  return c.body(body, 200, { 'content-type': 'application/octet-stream' })
}

function answerText(c: RouteContext, text: string): Response {
  return c.body(text, 200, { 'content-type': 'text/plain; charset=utf-8' })
}
