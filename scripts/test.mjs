// `npm test`: types, lint and all tests, on whatever Node 20 or later the machine has. `npm test -- policy` runs the test
// files with `policy` in their path.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { installWhatIsMissing, node, root } from './install.mjs'

installWhatIsMissing()
const modules = join(root, 'node_modules')
const filters = process.argv.slice(2)

/** Runs one step and says how it went; returns whether it went well. */
function runStep(name, args) {
  const beganMs = Date.now()
  const { status } = spawnSync(node, args, { cwd: root, stdio: 'inherit' })
  console.log(`${status === 0 ? 'ok' : 'FAILED'}: ${name} (${((Date.now() - beganMs) / 1000).toFixed(1)} s)`)
  return status === 0
}

const folder = mkdtempSync(join(tmpdir(), 'stint-results-'))
const results = join(folder, 'results.json')
const checks = [
  runStep('types', [join(modules, 'typescript/bin/tsc'), '--noEmit']),
  runStep('lint', [join(modules, 'oxlint/bin/oxlint'), '--deny-warnings']),
]
const testsRan = runStep('tests', [
  join(modules, 'vitest/vitest.mjs'),
  'run',
  '--root', root,
  '--config', join(root, 'test/vitest.config.ts'),
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${results}`,
  ...filters,
])

let counts = { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, numFailedTestSuites: 0 }
try {
  counts = { ...counts, ...JSON.parse(readFileSync(results, 'utf8')) }
} catch {
  console.error('The test runner left no results.')
}
rmSync(folder, { recursive: true, force: true })

const passed = counts.numPassedTests + checks.filter(Boolean).length
const failedChecks = checks.filter((went) => !went).length
// A file that does not even load fails the run without failing a test.
const failed = counts.numFailedTests + failedChecks + (!testsRan && counts.numFailedTests === 0 ? 1 : 0)
const skipped = counts.numPendingTests + counts.numTodoTests
console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
process.exitCode = failed === 0 && passed > checks.length ? 0 : 1
