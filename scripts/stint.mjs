#!/usr/bin/env node
// The `stint` program. Stint's code is TypeScript that Node runs as it is from 22.18 on; an older Node, with which many
// machines still come, hands over to the one that was installed with the package. So this file is plain JavaScript.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
const program = new URL('../src/cli/main.ts', import.meta.url)

if (major > 22 || (major === 22 && minor >= 18)) {
  if (existsSync(new URL('../node_modules/jose/', import.meta.url))) {
    const { runProgram } = await import(program.href)
    await runProgram()
  } else {
    refuse()
  }
} else {
  const node = fileURLToPath(new URL('../node_modules/.bin/node', import.meta.url))
  if (existsSync(node)) handOver(node)
  else refuse()
}

function refuse() {
  console.error('stint: its packages are not installed: run npm ci first')
  process.exitCode = 1
}

/** Runs the program under another Node: the same arguments, terminal, signals and end. */
function handOver(node) {
  // Ctrl-C and the closing of a terminal reach the child from the terminal itself: sent on as well, they would arrive
  // twice, and the second one cuts short what the first one ends in order.
  const onTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP']
  const forward = (signal) => {
    if (signal === 'SIGTERM' || !onTerminal) child.kill(signal)
  }
  // Before the child is there, so that no signal finds this process without it and leaves the child behind.
  for (const signal of signals) process.on(signal, forward)
  const child = spawn(node, [fileURLToPath(program), ...process.argv.slice(2)], { stdio: 'inherit' })
  child.on('error', (error) => {
    console.error(`stint: cannot run ${node} (${error.code}): run npm ci again`)
    process.exitCode = 1
  })
  child.on('exit', (code, signal) => {
    for (const name of signals) process.off(name, forward)
    if (signal === null) process.exitCode = code ?? 1
    else process.kill(process.pid, signal)
  })
}
