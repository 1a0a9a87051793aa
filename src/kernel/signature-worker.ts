import { parentPort } from 'node:worker_threads'
import { doJob, type SignJob, type VerifyJob } from './signatures.ts'

// The other side of `signature-thread.ts`: a list of jobs comes in, the list of their results goes back.
parentPort?.on('message', (jobs: readonly (SignJob | VerifyJob)[]) => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(jobs.map(doJob))
})
