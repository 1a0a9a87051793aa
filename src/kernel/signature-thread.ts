import { Worker } from 'node:worker_threads'
import { signInput, verifySignature, type SignJob, type VerifyJob } from './signatures.ts'

/** Where signatures are checked and made. */
export interface Signatures {
  verify(job: VerifyJob): Promise<boolean>
  sign(job: SignJob): Promise<Uint8Array>
  close(): Promise<void>
}

/** On the thread that asks. */
export const inlineSignatures: Signatures = {
  verify: async (job) => verifySignature(job),
  sign: async (job) => signInput(job),
  close: async () => undefined,
}

interface Pending {
  readonly job: SignJob | VerifyJob
  resolve(result: boolean | Uint8Array): void
  reject(error: unknown): void
}

/** So many go at once, rather than wait for the end of the turn: the other thread works while this one goes on. */
const handedOverMax = 8

/**
 * On a thread of its own, where several are wanted at once: signatures are a fifth of what a token costs, and to hand over
 * eight of them costs less than to make one. A single one is made where it is asked for. A thread that dies, as for want of
 * memory, is replaced; what it was asked for is made here.
 */
export function createSignatureThread(): Signatures {
  let worker: Worker | undefined
  let waiting: Pending[] = []
  const handedOver: Pending[][] = []
  let closed = false

  function start(): Worker {
    const made = new Worker(new URL('./signature-worker.ts', import.meta.url), { resourceLimits: { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 } })
    made.on('message', (results: readonly (boolean | Uint8Array)[]) => {
      handedOver.shift()?.forEach(({ resolve }, i) => resolve(results[i] ?? false))
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

  function ask(job: SignJob | VerifyJob): Promise<boolean | Uint8Array> {
    return new Promise((resolve, reject) => {
      waiting.push({ job, resolve, reject })
      if (waiting.length >= handedOverMax) flush()
      else if (waiting.length === 1) setImmediate(flush)
    })
  }

  return {
    verify: async (job) => (await ask(job)) === true,
    async sign(job) {
      const signature = await ask(job)
      if (typeof signature === 'boolean') throw new Error('a signature came back as a verdict')
      return signature
    },
    async close() {
      closed = true
      await worker?.terminate()
    },
  }
}

function doHere({ job, resolve, reject }: Pending): void {
  try {
    resolve('signature' in job ? verifySignature(job) : signInput(job))
  } catch (error) {
    reject(error)
  }
}
