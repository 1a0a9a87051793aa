import { once } from 'node:events'
import { writeSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import type { Waypoint } from '../../src/broker/waypoints.ts'
import { createStderrLog, readConfig } from '../../src/cli/serve.ts'
import { startProduction } from '../../src/main.ts'
import { lastWords, type Death, type Order } from './hooks.ts'

/**
 * A broker in production that does what its parent says. Its arguments are the configuration, and modules that it is going to
 * need; it starts with its first message, the orders for the start, so that it can be loaded before it is needed.
 */
const [, , file = '', ...modules] = process.argv
for (const module of modules) await import(module)
// It may not live to do so at its end.
flushCompileCache()
const [first] = (await once(process, 'message')) as [readonly Exclude<Order, 'tick'>[]]
let offMs = 0
let death: Death | undefined
let passed = 0

function die(point: Waypoint): void {
  writeSync(2, `${lastWords}${point}\n`)
  process.kill(process.pid, 'SIGKILL')
}

function pass(point: Waypoint, grant: string): void {
  if (death?.point !== point || (death.ofMany === true) !== (grant === '') || ++passed !== death.times) return
  if (death.afterMs === undefined) die(point)
  else setTimeout(die, death.afterMs, point)
}

async function obey(order: Order): Promise<void> {
  if (order === 'tick') await running.composition.scheduler.tick()
  else if ('offMs' in order) offMs = order.offMs
  else [death, passed] = [order.death, 0]
}

for (const order of first) {
  if ('offMs' in order) offMs = order.offMs
  else death = order.death
}
const config = readConfig(file)
const log = createStderrLog({ err: (text) => void process.stderr.write(text) }, config.log.level)
const running = await startProduction(config, process.env, log, { nowMs: () => Date.now() + offMs }, pass)
process.on('message', (order) => {
  // Its parent sends no others.
  void obey(order as Order).then(() => process.send?.('done'))
})
process.once('SIGTERM', () => {
  void running.close().then(() => process.disconnect?.())
})
