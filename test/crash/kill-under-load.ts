import { setTimeout } from 'node:timers/promises'
import { report, type Book } from './book.ts'
import type { Child } from './child.ts'
import { lastWords } from './hooks.ts'
import type { Killer } from './killer.ts'
import { makeDeath, namePlan, type Plan } from './lending-plans.ts'
import type { LendingLoad } from './lending.ts'
import type { Random } from './random.ts'
import { describeEnd, order } from './site.ts'

/** What a run of rounds counts of its kills. */
export interface KillCounts {
  /** SIGKILLs, by what the process was doing. */
  readonly kills: Record<string, number>
  /** Points that were not reached in time; killed all the same, at random. */
  missed: number
  clockMoves: number
}

interface Run {
  readonly random: Random
  readonly killer: Killer
  readonly result: KillCounts
}

interface Life {
  readonly load: Pick<LendingLoad, 'resume' | 'pause' | 'offMs' | 'moveClock'>
  readonly book: Pick<Book, 'problems'>
  readonly broker: Child
}

const pointMsMax = 10_000

/** Lets the load go on until the broker dies as planned; returns when all clients have come to rest. */
export async function killUnderLoad(run: Run, life: Life, plan: Plan): Promise<void> {
  const { random, killer, result } = run
  const { load, broker } = life
  if (plan !== 'at random') await order(broker, { death: makeDeath(random, plan) })
  load.resume(random.chance(0.3))
  const moving = random.chance(0.25) ? moveAhead(run, life) : undefined
  if (plan === 'at random') killer.killAfter(broker.pid, random.between(20, 900))
  const waiting = new AbortController()
  const late = setTimeout(pointMsMax, undefined, { signal: waiting.signal }).then(
    () => result.missed++,
    () => undefined,
  )
  await Promise.race([broker.ended, late])
  waiting.abort()
  await broker.stop('SIGKILL')
  await moving
  await noteKill(result, life, plan)
  await load.pause()
}

/** So that some of what is lent expires while it is in use. */
async function moveAhead({ random, result }: Run, { load, broker }: Life): Promise<void> {
  await setTimeout(random.below(150))
  const offMs = load.offMs + 2_000 + random.below(28_000)
  await load.moveClock(offMs, () => order(broker, { offMs }))
  result.clockMoves++
}

/** Counts a kill by what the process has said of it. */
export async function noteKill({ kills }: Pick<KillCounts, 'kills'>, { broker, book }: Pick<Life, 'broker' | 'book'>, plan: Plan): Promise<void> {
  const ended = await broker.ended
  if (ended.signal !== 'SIGKILL') report(book, `a broker that was not told to ended: ${describeEnd(ended)}`)
  const name = ended.err.includes(lastWords) ? namePlan(plan) : 'at random'
  kills[name] = (kills[name] ?? 0) + 1
}
