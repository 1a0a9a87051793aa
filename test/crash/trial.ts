import { inject, onTestFinished } from 'vitest'
import type { Engine } from '../../src/storage/engine.ts'
import { createTestFolder } from '../harness.ts'
import { runAsOwner, type Server } from '../template.ts'
import { beginLifetime, type Lifetime, type LifetimeOptions } from './lifetime.ts'
import type { Child } from './child.ts'
import { createRandom } from './random.ts'

/** A lifetime for one test: everything that it started is ended with the test, and what it made is gone. */
export interface Trial extends Lifetime {
  broker: Child
  /** Starts a broker in place of the one before, and compares everything once it answers; beside another one, whose sessions go on. */
  startAgain(beside?: Child): Promise<void>
  /** Lets the load go on until so many more tokens were received. */
  untilTokens(more: number): Promise<void>
}

export async function beginTrial(engine: Engine, options: Partial<LifetimeOptions> = {}): Promise<Trial> {
  const life = await beginLifetime({
    folder: createTestFolder(),
    engine,
    random: createRandom(1),
    ...(engine === 'postgres' && { server: sharedServer() }),
    ...options,
    load: { connections: 8, ...options.load },
  })
  const trial: Trial = {
    ...life,
    get log() {
      return life.log
    },
    async startAgain(beside) {
      const startedAtMs = beside === undefined ? Date.now() : 0
      trial.broker = life.site.serve()
      await life.open(trial.broker)
      await life.verify(startedAtMs)
    },
    async untilTokens(more) {
      const { counts, problems } = life.book
      const wanted = counts.tokens + more
      const beganMs = performance.now()
      while (counts.tokens < wanted && problems.length === 0) {
        if (trial.broker.hasEnded() || performance.now() - beganMs > 60_000) throw new Error(`no ${more} tokens were received: ${trial.broker.said()}`)
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    },
  }
  onTestFinished(async () => {
    await Promise.all([life.load.end(), trial.broker.stop('SIGKILL')])
    if (options.server !== undefined || engine === 'sqlite') return
    await runAsOwner(sharedServer(), `drop database ${new URL(life.site.database).pathname.slice(1)} with (force)`)
  })
  return trial
}

function sharedServer(): Server {
  const server = inject('postgres')
  if (server.missing !== undefined) throw new Error(server.missing)
  return server
}
