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
  const { status } = spawnSync(command, [...before, 'ci', '--no-fund', '--no-audit', '--loglevel=error'], { cwd: root, stdio: 'inherit' })
  if (status !== 0) {
    console.error('The installation failed; npm said why above. Once that is mended, run the same command again.')
    process.exit(1)
  }
  writeFileSync(marker, wanted)
}

/** Runs a program of the project in its Node; passes signals on and resolves with its exit code. */
export function runInNode(args) {
  const child = spawn(node, args, { cwd: root, stdio: 'inherit' })
  const pass = (signal) => child.kill(signal)
  // A terminal sends Ctrl-C to both; the child decides when it is done.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => pass('SIGTERM'))
  return new Promise((resolve) => {
    child.on('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 130)))
  })
}
