import { Worker } from 'node:worker_threads'
import { doJob, type SignJob, type Signatures, type VerifyJob } from './signatures.ts'

/** Signatures on another thread. */
export interface SignatureThread extends Signatures {
  /** Ends the thread. Whoever still waits is answered. */
  close(): Promise<void>
}

interface Pending {
  readonly job: SignJob | VerifyJob
  /** Takes what its own job comes to. */
  resolve(result: boolean | Uint8Array | undefined): void
  reject(error: unknown): void
}

/** So many go at once, rather than wait for the end of the turn: the other thread works while this one goes on. */
const handedOverMax = 8

/**
 * On a thread of its own, where several are wanted at once: signatures are a fifth of what a token costs, and to hand over
 * eight of them costs less than to make one. A single one is made where it is asked for. A thread that dies, as for want of
 * memory, is replaced; what it was asked for is made here.
 */
export function createSignatureThread(): SignatureThread {
  let worker: Worker | undefined
  let waiting: Pending[] = []
  const handedOver: Pending[][] = []
  let closed = false

  function start(): Worker {
    const made = new Worker(new URL('./signature-worker.ts', import.meta.url), { resourceLimits: { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 } })
    made.on('message', (results: readonly (boolean | Uint8Array)[]) => {
      handedOver.shift()?.forEach(({ resolve }, i) => resolve(results[i]))
      // Nobody waits for it any more: it alone must not keep the program running.
      if (handedOver.length === 0) made.unref()
    })
    made.on('error', () => giveUp(made))
    made.on('exit', () => giveUp(made))
    return made
  }

  function giveUp(dead: Worker): void {
    if (worker !== dead) return
    worker = undefined
    for (const pending of handedOver.splice(0).flat()) doHere(pending)
  }

  function flush(): void {
    const jobs = waiting
    waiting = []
    if (jobs.length <= 1 || closed) return jobs.forEach(doHere)
    worker ??= start()
    handedOver.push(jobs)
    worker.ref()
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    worker.postMessage(jobs.map(({ job }) => job))
  }

  function ask<R extends boolean | Uint8Array>(job: SignJob | VerifyJob, isResult: (result: unknown) => result is R): Promise<R> {
    return new Promise((resolve, reject) => {
      waiting.push({
        job,
        resolve: (result) => (isResult(result) ? resolve(result) : reject(new Error('the thread for signatures answered something else than it was asked'))),
        reject,
      })
      if (waiting.length >= handedOverMax) flush()
      else if (waiting.length === 1) setImmediate(flush)
    })
  }

  return {
    verify: (job) => ask(job, (result) => typeof result === 'boolean'),
    sign: (job) => ask(job, (result) => result instanceof Uint8Array),
    async close() {
      closed = true
      await worker?.terminate()
    },
  }
}

function doHere({ job, resolve, reject }: Pending): void {
  try {
    resolve(doJob(job))
  } catch (error) {
    reject(error)
  }
}
