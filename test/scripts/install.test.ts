import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { createTestFolder } from '../harness.ts'

const script = fileURLToPath(new URL('../../scripts/install.mjs', import.meta.url))

/** A checkout whose npm notes its arguments and installs a Node that ends with this code. */
function createCheckout() {
  const folder = createTestFolder()
  mkdirSync(join(folder, 'scripts'))
  cpSync(script, join(folder, 'scripts/install.mjs'))
  writeFileSync(join(folder, 'package-lock.json'), '{}')
  writeFileSync(join(folder, 'scripts/run.mjs'), `import { installWhatIsMissing } from './install.mjs'\ninstallWhatIsMissing()\n`)
  const bin = join(folder, 'node_modules/.bin')
  mkdirSync(bin, { recursive: true })
  writeFileSync(join(folder, 'npm.cjs'), `require('node:fs').appendFileSync(${JSON.stringify(join(folder, 'said'))}, process.argv.slice(2).join(' ') + '\\n')`)
  return {
    installs: (code: number) => {
      writeFileSync(join(bin, 'node'), `#!/bin/sh\nexit ${code}\n`)
      chmodSync(join(bin, 'node'), 0o755)
    },
    run: () => spawnSync(process.execPath, [join(folder, 'scripts/run.mjs')], { encoding: 'utf8', env: { ...process.env, npm_execpath: join(folder, 'npm.cjs') } }),
    calls: () => readFileSync(join(folder, 'said'), 'utf8').trimEnd().split('\n'),
    isMarked: () => existsSync(join(folder, 'node_modules/.stint-installed')),
  }
}

test('What is missing is installed with its install scripts, once, and only what runs counts as installed', () => {
  const { installs, run, calls, isMarked } = createCheckout()
  installs(1)
  expect(run()).toMatchObject({ status: 1, stderr: expect.stringContaining('their Node cannot be run') })
  expect(isMarked()).toBe(false)
  installs(0)
  expect(run()).toMatchObject({ status: 0, stderr: '' })
  expect(isMarked()).toBe(true)
  expect(run()).toMatchObject({ status: 0, stdout: '' })
  expect(calls()).toEqual([1, 2].map(() => expect.stringMatching(/^ci --ignore-scripts=false /)))
})
