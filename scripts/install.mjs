// Plain JavaScript for Node 20: it runs before anything is installed.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))
const modules = join(root, 'node_modules')
const marker = join(modules, '.stint-installed')

/** The Node that Stint runs on: the `node` package's, whatever is on the PATH. */
export const node = join(modules, '.bin', process.platform === 'win32' ? 'node.cmd' : 'node')

/** Runs `npm ci` unless the lock file's packages are all there already. */
export function installWhatIsMissing() {
  const wanted = createHash('sha256').update(readFileSync(join(root, 'package-lock.json'))).digest('hex')
  if (existsSync(marker) && existsSync(node) && readFileSync(marker, 'utf8') === wanted) return
  console.log('Installing what is missing (this run only; about half a minute) …')
  const npm = process.env.npm_execpath
  const [command, before] = npm === undefined ? ['npm', []] : [process.execPath, [npm]]
  // Node comes by an install script, which package.json allows by name; a machine's `ignore-scripts=true` would leave it out.
  const options = ['--ignore-scripts=false', '--no-fund', '--no-audit', '--loglevel=error']
  const { status } = spawnSync(command, [...before, 'ci', ...options], { cwd: root, stdio: 'inherit' })
  if (status !== 0) {
    console.error('The installation failed; npm said why above. Once that is mended, run the same command again.')
    process.exit(1)
  }
  // Only what can be run is marked as installed, so that the next run tries again.
  const tried = spawnSync(node, ['--version'], { encoding: 'utf8' })
  if (tried.status !== 0) {
    const why = tried.error?.code ?? (tried.stderr.trim() || `it ended with ${tried.signal ?? tried.status}`)
    console.error(`The packages are installed, but their Node cannot be run (${node}): ${why}`)
    console.error('See that npm runs the install scripts that package.json allows, then run the same command again.')
    process.exit(1)
  }
  writeFileSync(marker, wanted)
}

/** Runs a program of the project in its Node; passes signals on and resolves with its exit code. */
export function runInNode(args) {
  // A terminal sends Ctrl-C and its end to both; sent on as well, the second one would cut short what the first one ends.
  const onTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      if (signal === 'SIGTERM' || !onTerminal) child.kill(signal)
    })
  }
  const child = spawn(node, args, { cwd: root, stdio: 'inherit' })
  return new Promise((resolve) => {
    child.on('error', (error) => {
      console.error(`${node} cannot be run (${error.code}): remove node_modules and run the same command again.`)
      resolve(1)
    })
    child.on('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 130)))
  })
}
