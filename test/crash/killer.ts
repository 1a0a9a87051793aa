import { once } from 'node:events'
import { parentPort, Worker } from 'node:worker_threads'

/**
 * Kills a process after a time, from a thread of its own: a timer of the thread that reads answers would fire between
 * answers only, and so always at the same places of the process that gives them.
 */
export interface Killer {
  /** Sends SIGKILL after that many milliseconds, a fraction too. The process must be a child that has not been waited for. */
  killAfter(pid: number, delayMs: number): void
  end(): Promise<void>
}

export async function startKiller(): Promise<Killer> {
  const worker = new Worker(new URL(import.meta.url))
  await once(worker, 'online')
  return {
    killAfter: (pid, delayMs) => worker.postMessage({ pid, delayMs }, []),
    async end() {
      await worker.terminate()
    },
  }
}

parentPort?.on('message', ({ pid, delayMs }: { pid: number; delayMs: number }) => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, delayMs)
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended by itself, which whoever waits for its end finds.
  }
})
