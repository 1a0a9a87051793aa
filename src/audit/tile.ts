/** Hashes in one full tile, and how many times wider a hash's part of the tree is on the next level (https://c2sp.org/tlog-tiles). */
export const tileWidth = 256

/** Consecutive hashes of a level, or at level 0 the entries that they are of. */
export interface Tile {
  /** From 0, where each hash is of one leaf; at level L of 256^L leaves. */
  readonly level: number
  /** The tile's number within its level: it begins at hash `index · 256`. */
  readonly index: number
  /** How many hashes it has: from 1 to 256, which is a full one. */
  readonly width: number
}

/** A level in an address. */
export const levelPattern = /^(?:[0-9]|[1-5][0-9]|6[0-3])$/

/**
 * A tile's number and width in an address, as in `x001/x234/067.p/8`: groups of three digits, all but the last behind an
 * `x`, none at the front that is zero; and the width of one that is not full. One spelling for each.
 */
export const placePattern =
  /^(?:x(?:[1-9][0-9]{2}|0[1-9][0-9]|00[1-9])\/(?:x[0-9]{3}\/){0,3})?[0-9]{3}(?:\.p\/(?:[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?$/

/** Reads what fits `placePattern`. */
export function parseTilePlace(text: string): Pick<Tile, 'index' | 'width'> {
  const [digits = '', width = tileWidth] = text.split('.p/')
  return { index: Number(digits.replaceAll(/[x/]/g, '')), width: Number(width) }
}

/** Whether a tree of that size has all hashes of the tile. */
export function hasTile(size: number, { level, index, width }: Tile): boolean {
  return index * tileWidth + width <= Math.floor(size / tileWidth ** level)
}

/** Entries as a bundle: the bytes of each behind their number, 16 bits with the high ones first. */
export function encodeBundle(bodies: readonly string[]): Buffer<ArrayBuffer> {
  return Buffer.concat(
    bodies.flatMap((body) => {
      const bytes = Buffer.from(body)
      const length = Buffer.alloc(2)
      length.writeUInt16BE(bytes.length)
      return [length, bytes]
    }),
  )
}
