import { readConfig, createStderrLog } from '../../src/cli/serve.ts'
import { startProduction } from '../../src/main.ts'

/**
 * A broker in production with a clock that is off by as many milliseconds as its parent says, for a test moves no machine's
 * clock. Its arguments are the configuration and how far the clock is off at first; each message is a number from then on.
 */
const [, , file = '', first = '0'] = process.argv
let offMs = Number(first)
process.on('message', (ms) => {
  offMs = Number(ms)
  process.send?.('moved')
})
const config = readConfig(file)
const log = createStderrLog({ err: (text) => void process.stderr.write(text) }, config.log.level)
const running = await startProduction(config, process.env, log, { nowMs: () => Date.now() + offMs })
process.once('SIGTERM', () => {
  void running.close().then(() => process.disconnect?.())
})
