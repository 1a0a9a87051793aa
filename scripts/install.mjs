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
