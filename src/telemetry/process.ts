import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Counter, Gauge, type Registry } from 'prom-client'

/**
 * What the process itself takes up, read at each scrape, under the names that Prometheus's own clients use. Written here
 * because the collectors of the library leave observers behind that nothing stops. Returns what stops these.
 */
export function watchProcess(registry: Registry): () => void {
  const registers = [registry]
  // Once per turn of the loop: a timer of its own would wake an idle process up to a hundred times a second.
  const delay = monitorEventLoopDelay({ samplePerIteration: true })
  delay.enable()

  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'Processor time in user and system mode.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage()
      this.reset()
      this.inc((user + system) / 1e6)
    },
  })
  new Gauge({ name: 'process_resident_memory_bytes', help: 'Resident memory.', registers, collect: setTo(() => process.memoryUsage.rss()) })
  new Gauge({ name: 'nodejs_heap_size_used_bytes', help: 'What is in use of the heap.', registers, collect: setTo(() => process.memoryUsage().heapUsed) })
  new Gauge({ name: 'process_start_time_seconds', help: 'When the process began, since the epoch.', registers }).set(
    Math.floor(performance.timeOrigin / 1000),
  )
  new Gauge({
    name: 'stint_event_loop_delay_seconds',
    help: 'How long a turn of the event loop held up the next one, since the scrape before.',
    labelNames: ['quantile'],
    registers,
    collect() {
      for (const quantile of [0.5, 0.99, 1]) this.set({ quantile: String(quantile) }, delay.count === 0 ? 0 : delay.percentile(quantile * 100) / 1e9)
      delay.reset()
    },
  })
  return () => delay.disable()
}

function setTo(read: () => number) {
  return function set(this: Gauge): void {
    this.set(read())
  }
}
