import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, cpSync, writeFileSync, chmodSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { createFolder } from './recorder.ts'

const program = fileURLToPath(new URL('../../scripts/stint.mjs', import.meta.url))

/** Runs the program as a shell would, and returns what it said and how it ended. */
async function run(node: string, args: readonly string[], file = program) {
  const child = spawn(node, [file, ...args], { env: { ...process.env, STINT_OPERATOR_TOKEN: '' }, stdio: ['pipe', 'pipe', 'pipe'] })
  const [out, err, [code, signal]] = await Promise.all([child.stdout.toArray(), child.stderr.toArray(), once(child, 'close')])
  return { code, signal, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }
}

/** A Node on this machine that cannot run TypeScript itself. */
function findOldNode(): string | undefined {
  const places = [...(process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'node')), '/usr/bin/node', '/usr/local/bin/node']
  return places.find((node) => {
    if (node.includes('node_modules') || !existsSync(node)) return false
    const [major = 0, minor = 0] = execFileSync(node, ['-p', 'process.versions.node']).toString().split('.').map(Number)
    return major < 22 || (major === 22 && minor < 18)
  })
}

const oldNode = findOldNode()
const nodes = [
  { what: 'this Node', node: process.execPath },
  ...(oldNode === undefined ? [] : [{ what: 'an older Node', node: oldNode }]),
]

describe.each(nodes)('stint under $what', ({ node }) => {
  it('runs the command line and ends with its exit code', async () => {
    expect(await run(node, ['--version'])).toMatchObject({ code: 0, out: expect.stringMatching(/^stint \d/), err: '' })
    expect(await run(node, ['revoke'])).toMatchObject({ code: 2, out: '', err: expect.stringMatching(/^stint: what shall end/) })
    expect(await run(node, ['workload', 'list'])).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^stint: this needs an operator/) })
  })

  it('reads standard input', async () => {
    const key = join(createFolder(), 'key')
    const made = await run(node, ['key', 'create', key])
    expect(made.code).toBe(0)
    const child = spawn(node, [program, 'token', 'revoke', '-', '--workload', 'bot', '--key', key], { stdio: ['pipe', 'pipe', 'pipe'] })
    child.stdin.end(' \n')
    const [err, [code]] = await Promise.all([child.stderr.toArray(), once(child, 'close')])
    expect([code, Buffer.concat(err).toString()]).toEqual([1, 'stint: standard input holds no token\n'])
  })

  it('is silent when its reader goes away', async () => {
    const child = spawn('/bin/sh', ['-c', `"${node}" "${program}" --help | true; "${node}" "${program}" --help >&-`])
    const [err, [code]] = await Promise.all([child.stderr.toArray(), once(child, 'close')])
    expect(Buffer.concat(err).toString()).not.toMatch(/EPIPE|at /)
    expect(code).not.toBe(null)
  })

  it('says what to do where nothing is installed', async () => {
    const folder = createFolder()
    mkdirSync(join(folder, 'scripts'))
    cpSync(program, join(folder, 'scripts/stint.mjs'))
    expect(await run(node, ['--help'], join(folder, 'scripts/stint.mjs'))).toMatchObject({
      code: 1,
      err: 'stint: its packages are not installed: run npm ci first\n',
    })
  })
})

describe.skipIf(oldNode === undefined)('handing over to the installed Node (skipped where no older Node is)', () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('%s reaches it, and so does its end', async (signal) => {
    const folder = createFolder()
    mkdirSync(join(folder, 'scripts'))
    mkdirSync(join(folder, 'node_modules/.bin'), { recursive: true })
    cpSync(program, join(folder, 'scripts/stint.mjs'))
    // Stands for the installed Node: ends with a code of its own for the signal, or by it.
    const stub = join(folder, 'node_modules/.bin/node')
    for (const [end, expected] of [
      ['exit 7', [7, null]],
      [`trap - ${signal.slice(3)}; kill -${signal.slice(3)} $$`, [null, signal]],
    ] as const) {
      writeFileSync(stub, `#!/bin/sh\ntrap '${end}' ${signal.slice(3)}\necho "$@"\nwhile :; do sleep 0.02; done\n`)
      chmodSync(stub, 0o755)
      const child = spawn(oldNode ?? '', [join(folder, 'scripts/stint.mjs'), 'a b', '--c'], { stdio: ['ignore', 'pipe', 'pipe'] })
      const [line] = await once(child.stdout, 'data')
      expect(String(line)).toMatch(/src\/cli\/main\.ts a b --c\n$/)
      child.kill(signal)
      expect(await once(child, 'exit')).toEqual(expected)
    }
  })
})
