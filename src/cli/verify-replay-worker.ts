import { parentPort, workerData } from 'node:worker_threads'
import { createReplayer, type PolicySetPlaces } from './verify-replay.ts'

// Replays pieces of one file, apart from the thread that reads it.
const { file, places } = workerData as { file: string; places: PolicySetPlaces }
const replay = createReplayer(file, places)
parentPort?.on('message', (bytes: Uint8Array) => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(replay(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)))
})
