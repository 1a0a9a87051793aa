import { expect, test } from 'vitest'
import { streamPages, type PageStream } from '../../src/http/stream.ts'

/** A stream of pages that the test can look into. */
function open(pages: readonly string[], options: Partial<PageStream<string>> = {}) {
  const seen = { made: 0, ended: 0, cut: 0, errors: [] as unknown[], checks: 0, signal: new AbortController().signal }
  let nowMs = 0
  const stream = streamPages<string>({
    async *readPages(signal) {
      seen.signal = signal
      for (const page of pages) {
        seen.made++
        yield page
      }
    },
    begin: '',
    format: (page) => page,
    mayGoOn: async () => void seen.checks++,
    nowMs: () => nowMs,
    end: () => void seen.ended++,
    log: (error) => void seen.errors.push(error),
    ...options,
  })
  return { stream, seen, reader: () => stream.getReader(), advance: (ms: number) => (nowMs += ms) }
}

const text = (value: Uint8Array | undefined) => Buffer.from(value ?? []).toString()
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

test('makes a page when the one before has been taken, and no earlier', async () => {
  const { seen, reader } = open(['a', 'b', 'c'], { begin: '#' })
  const own = reader()
  await sleep(5)
  expect(seen.made).toBe(0)
  expect(text((await own.read()).value)).toBe('#a')
  await sleep(5)
  expect([seen.made, seen.ended]).toEqual([1, 0])
  expect(text((await own.read()).value)).toBe('b')
  expect(text((await own.read()).value)).toBe('c')
  expect(await own.read()).toEqual({ done: true, value: undefined })
  expect(seen).toMatchObject({ made: 3, ended: 1, errors: [] })
})

test('without a page is what it begins with', async () => {
  expect(await new Response(open([], { begin: 'header' }).stream).text()).toBe('header')
  expect(await new Response(open([]).stream).text()).toBe('')
})

test('ends when the reader goes away, also while a page is being made', async () => {
  let release: ((value: string) => void) | undefined
  const page = new Promise<string>((resolve) => (release = resolve))
  const { seen, reader } = open([], {
    async *readPages(signal) {
      seen.signal = signal
      yield await page
    },
  })
  const own = reader()
  const read = own.read()
  await sleep(1)
  await own.cancel()
  expect(seen).toMatchObject({ ended: 1, errors: [] })
  expect(seen.signal.aborted).toBe(true)
  release?.('late')
  expect((await read).done).toBe(true)
  await sleep(1)
  expect(seen).toMatchObject({ ended: 1, errors: [] })
})

test('is an error from where a page could not be made', async () => {
  const failure = new Error('the disk is gone')
  const failing: Partial<PageStream<string>> = {
    async *readPages() {
      yield 'a'
      throw failure
    },
  }
  const { seen, reader } = open([], failing)
  const own = reader()
  expect(text((await own.read()).value)).toBe('a')
  await expect(own.read()).rejects.toBe(failure)
  expect(seen).toMatchObject({ ended: 1, errors: [failure] })

  const behindServer = open([], { ...failing, cut: () => void behindServer.seen.cut++ })
  const other = behindServer.reader()
  await other.read()
  void other.read()
  await sleep(1)
  expect(behindServer.seen).toMatchObject({ cut: 1, ended: 1, errors: [failure] })
})

test.each(['before the first page', 'in the middle'])('is cut off under a reader that takes nothing, %s', async (when) => {
  const { seen, reader } = open(['a', 'b'], { readMsMax: 20, cut: () => void seen.cut++ })
  const own = reader()
  if (when === 'in the middle') await own.read()
  await sleep(60)
  expect(seen).toMatchObject({ cut: 1, ended: 1, errors: [expect.objectContaining({ message: 'the reader took no more' })] })
})

test('asks now and then whether it may go on', async () => {
  const { seen, reader, advance } = open(['a', 'b', 'c', 'd', 'e'], {
    mayGoOn: async () => {
      if (++seen.checks > 1) throw new Error('no longer')
    },
  })
  const own = reader()
  await own.read()
  advance(4_999)
  await own.read()
  expect(seen.checks).toBe(0)
  advance(1)
  await own.read()
  await own.read()
  expect(seen.checks).toBe(1)
  advance(5_000)
  await expect(own.read()).rejects.toThrow('no longer')
  expect(seen.ended).toBe(1)
})
