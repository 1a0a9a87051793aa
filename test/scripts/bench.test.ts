import { execFile, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createChildren } from '../../scripts/bench/children.ts'
import { takeSample } from '../../scripts/bench/measure.ts'
import { readOptions } from '../../scripts/bench/options.ts'
import { summariseProfile } from '../../scripts/bench/profile.ts'
import { compareCases, formatTable, judgeAims } from '../../scripts/bench/report.ts'
import { createSigners } from '../../scripts/bench/signers.ts'
import { mergeHistograms, medianOf, percentileOf, ratioOf, spreadOf } from '../../scripts/bench/statistics.ts'
import type { Subject } from '../../scripts/bench/subject.ts'
import { findGenerator, ownGenerator, parseResult, sendLoad } from '../../scripts/bench/wrk.ts'
import { createTestFolder } from '../harness.ts'
import { listen } from '../listen.ts'

const script = join(import.meta.dirname, '../../scripts/bench.ts')
const wrk = spawnSync('wrk', ['-v']).error === undefined
const needsWrk = wrk ? '' : ' (skipped: wrk is not installed)'

describe('Statistics', () => {
  const histogram = new Map([
    [300, 1],
    [100, 98],
    [900, 1],
  ])

  test.each([
    [0.5, 100],
    [0.98, 100],
    [0.99, 300],
    [1, 900],
  ])('The percentile %d is the latency that this share was not above', (share, us) => {
    expect(percentileOf(histogram, share)).toBe(us)
  })

  test('Of nothing there is no percentile and no median', () => {
    expect(() => percentileOf(new Map(), 0.5)).toThrow(RangeError)
    expect(() => medianOf([])).toThrow(RangeError)
  })

  test('Merged histograms give the percentiles of all answers, not means of percentiles', () => {
    const merged = mergeHistograms([histogram, new Map([[100, 1], [5_000, 100]])])
    expect(merged).toEqual(new Map([[300, 1], [100, 99], [900, 1], [5_000, 100]]))
    expect(percentileOf(merged, 0.5)).toBe(900)
  })

  test('The median is the middle one, or the mean of the two in the middle', () => {
    expect(medianOf([30, 10, 20])).toBe(20)
    expect(medianOf([40, 10, 20, 30])).toBe(25)
    expect(spreadOf([30, 10, 20])).toEqual({ median: 20, min: 10, max: 30 })
  })

  test('A ratio is taken round by round, so that a slow round of both does not count', () => {
    expect(ratioOf([200, 20, 220], [100, 10, 100])).toEqual({ median: 2, min: 2, max: 2.2 })
  })
})

describe('What the load generator prints', () => {
  const figures = 'bench requests=3 duration_us=2000000 connect=1 read=2 write=3 timeout=4 status=5 exhausted=0'

  test('is read among whatever else stands there', () => {
    expect(parseResult(`Running 1s test\n  99%    1.2ms\n${figures}\nlatency_us 90:1 250:2\n`)).toEqual({
      requests: 3,
      seconds: 2,
      failed: 15,
      exhausted: false,
      latency: new Map([[90, 1], [250, 2]]),
    })
  })

  test.each([
    ['nothing', ''],
    ['no latencies', figures],
    ['no count of the errors', `${figures.replace('status=5 ', '')}\nlatency_us 90:1\n`],
    ['a count that is none', `${figures.replace('=5', '=x')}\nlatency_us 90:1\n`],
  ])('is an error where it has %s', (_, text) => {
    expect(() => parseResult(text)).toThrow('the load generator gave no')
  })
})

describe('A load generator', () => {
  async function startEcho(status: number): Promise<{ url: string; bodies: string[] }> {
    const bodies: string[] = []
    const origin = await listen((request, response) => {
      let body = ''
      request.on('data', (piece) => (body += String(piece)))
      request.on('end', () => {
        bodies.push(body)
        setTimeout(() => response.writeHead(status, { 'content-length': 2 }).end('ok'), 5)
      })
    })
    return { url: `${origin}/token`, bodies }
  }

  function writeBodies(count: number): string[] {
    const folder = createTestFolder()
    const lines = Array.from({ length: count }, (_, i) => `body=${i}\n`)
    const files = [join(folder, 'a'), join(folder, 'b')]
    writeFileSync(files[0] ?? '', lines.slice(0, 10).join(''))
    writeFileSync(files[1] ?? '', lines.slice(10).join(''))
    return files
  }

  async function measureEcho(status: number, check: Subject['check']) {
    const { url } = await startEcho(status)
    const folder = createTestFolder()
    const signersFile = join(folder, 'signers.json')
    writeFileSync(signersFile, JSON.stringify(await createSigners(['agent'])))
    const subject = { name: 'echo', servers: [], urls: [url], audience: url, signersFile, signerCount: 1, form: 'a=b', check, notes: {} }
    const bench = { children: createChildren(), folder, generator: ownGenerator, warmUpSeconds: 1, seconds: 1 }
    return takeSample(bench, subject, { connections: 2, rateMax: 1_000 })
  }

  test('makes a measurement fail where one answer was an error', async () => {
    await expect(measureEcho(400, async () => ({}))).rejects.toThrow(/^\d+ requests to echo were not answered with a token$/)
  })

  test('makes a measurement fail where the log has fewer entries than tokens were given', async () => {
    const indexes = [0, 10, 20]
    await expect(measureEcho(200, async () => ({ index: indexes.shift() ?? 0 }))).rejects.toThrow(/tokens were given, and the log grew by 9 entries$/)
  })

  const both = [
    ['wrk', wrk],
    ['our own', true],
  ] as const
  for (const [name, there] of both) {
    const generator = name === 'wrk' ? { name, command: 'wrk', before: [] } : ownGenerator
    const run = there ? test : test.skip

    run(`${name} sends each body of its share once, and counts every answer${there ? '' : needsWrk}`, async () => {
      const { url, bodies } = await startEcho(200)
      const result = await sendLoad(generator, { url, connections: 2, seconds: 1, files: writeBodies(2_000), first: 4, count: 1_990 })
      expect(result).toMatchObject({ failed: 0, exhausted: false })
      expect(bodies.length).toBeGreaterThanOrEqual(result.requests)
      expect(result.requests).toBeGreaterThan(10)
      expect(new Set(bodies).size).toBe(bodies.length)
      const numbers = bodies.map((body) => Number(body.slice('body='.length)))
      expect(Math.min(...numbers)).toBeGreaterThanOrEqual(4)
      expect(numbers).toContain(12)
      expect(percentileOf(result.latency, 0.5)).toBeGreaterThanOrEqual(5_000)
    })

    run(`${name} counts what is refused, and says when the bodies have run out${there ? '' : needsWrk}`, async () => {
      const { url } = await startEcho(400)
      const result = await sendLoad(generator, { url, connections: 1, seconds: 1, files: writeBodies(30), first: 0, count: 30 })
      expect(result.exhausted).toBe(true)
      expect(result.failed).toBe(result.requests)
    })
  }

  test('is wrk where it is installed, and else our own with the advice how to get wrk', async () => {
    expect((await findGenerator()).command === 'wrk').toBe(wrk)
    const path = process.env['PATH']
    onTestFinished(() => void (process.env['PATH'] = path))
    process.env['PATH'] = createTestFolder()
    expect(await findGenerator()).toMatchObject({ command: process.execPath, advice: expect.stringContaining('apt-get install wrk') })
  })
})

test('A comparison tells whether its aim is met: by the rate, or by the processor time', () => {
  const sample = (tokensPerSecond: number, cpuUsPerToken: number) => ({ tokens: 1, tokensPerSecond, p50Ms: 1, p99Ms: 1, cpuUsPerToken })
  const results = [
    { name: 'a', subject: 'a', connections: 32, samples: [sample(300, 10), sample(100, 13)] },
    { name: 'b', subject: 'b', connections: 32, samples: [sample(100, 10), sample(100, 10)] },
  ]
  const compared = compareCases([{ title: 'rate', of: 'a', to: 'b', rateMin: 2 }, { title: 'cost', of: 'a', to: 'b', costMax: 1.1 }], results)
  expect(compared).toMatchObject([
    { aim: 'rate ≥ 2', met: true, rate: { median: 2, min: 1, max: 3 } },
    { aim: 'cost ≤ 1.1', met: false, cost: { median: 1.15 } },
  ])
})

test('The aims of the sample set are judged by the latency and the memory of 32 connections', () => {
  const samples = [10, 14, 30].map((p99Ms) => ({ tokens: 1, tokensPerSecond: 1, p50Ms: 1, p99Ms, residentBytesMax: p99Ms * 10_000_000 }))
  expect(judgeAims([{ name: 'sqlite ×32', subject: 'sqlite', connections: 32, samples }])).toMatchObject([
    { measured: '14.0 ms', met: true },
    { measured: '300 MB', met: false },
  ])
  expect(judgeAims([{ name: 'oidc ×32', subject: 'oidc', connections: 32, samples }])).toEqual([])
})

test('A table has its first column to the left and figures to the right', () => {
  expect(formatTable(['case', 'n'], [['a', '10'], ['long', '5']])).toBe('case   n\n----  --\na     10\nlong   5')
})

test('A profile gives self times within a span, what is idle apart', () => {
  const node = (id: number, functionName: string, url = '', lineNumber = 4) => ({ id, callFrame: { functionName, url, lineNumber } })
  const profile = {
    nodes: [node(1, '(root)'), node(2, 'sign', 'file:///x/a.ts'), node(3, 'read', 'file:///x/a.ts', 9), node(4, '(idle)'), node(5, '(garbage collector)')],
    startTime: 1_000,
    samples: [2, 2, 3, 4, 5, 2],
    timeDeltas: [0, 10, 20, 30, 40, 50],
  }
  const { functions, files, idleUs } = summariseProfile(profile, 1_005, 2_000)
  expect(idleUs).toBe(40)
  expect(functions.map(({ name, us }) => [name, us])).toEqual([['(garbage collector)', 50], ['read /x/a.ts:10', 30], ['sign /x/a.ts:5', 20]])
  expect(files.map(({ name, us }) => [name, us])).toEqual([['/x/a.ts', 50], ['(garbage collector)', 50]])
})

describe('The command line', () => {
  test('has defaults, shorter for a quick run', () => {
    expect(readOptions([], ['sqlite'])).toEqual({ help: false, quick: false, profile: false, only: [], seconds: 4, rounds: 3 })
    expect(readOptions(['--quick', '--only', 'a,b', '--only', 'c', '--json', 'f'], ['a', 'b', 'c'])).toEqual({
      help: false, quick: true, profile: false, only: ['a', 'b', 'c'], seconds: 1, rounds: 1, json: 'f',
    })
  })

  test.each([
    [['--only', 'sqlight'], 'there are no cases "sqlight": --only takes sqlite, oidc'],
    [['--seconds', '0'], '--seconds takes a whole number from 1 to 60'],
    [['--rounds', 'three'], '--rounds takes a whole number from 1 to 50'],
    [['--fast'], "Unknown option '--fast'"],
  ])('%j is refused', (args, message) => {
    expect(() => readOptions(args, ['sqlite', 'oidc'])).toThrow(message)
  })
})

test.skipIf(!wrk)(`A quick run measures a real broker, verifies what it gave, and leaves nothing behind${needsWrk}`, { timeout: 180_000 }, async () => {
  const folder = createTestFolder()
  const json = join(createTestFolder(), 'figures.json')
  const args = [script, '--quick', '--only', 'sqlite', '--json', json]
  const { stdout } = await promisify(execFile)(process.execPath, args, { env: { ...process.env, TMPDIR: folder } })
  expect(stdout).toMatch(/^sqlite ×1 +\d/m)
  expect(stdout).toMatch(/^sqlite ×32 +\d/m)
  expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({
    generator: expect.stringMatching(/^wrk /),
    cases: [1, 32].map((connections) => ({
      connections,
      samples: [{ tokens: expect.any(Number), tokensPerSecond: expect.any(Number), cpuUsPerToken: expect.any(Number), residentBytesMax: expect.any(Number) }],
    })),
  })
  expect(readdirSync(folder)).toEqual([])
})
