import { setTimeout } from 'node:timers/promises'
import { createAgent, type Agent } from './agents.ts'
import { report } from './book.ts'
import { createGate } from './gate.ts'
import { createClient } from './http.ts'
import { drop, type Lent, type LentBook } from './lent.ts'
import { borrow, complete, giveBack, makeAsked, renew, revoke, type Lending, type Wielding } from './lending-steps.ts'
import type { Random } from './random.ts'

/** Agents that are lent credentials and use them, and an admin who ends some. They outlive the broker. */
export interface LendingLoad extends Lending {
  /** Registers the agents, and puts the policy in force. */
  prepare(): Promise<void>
  /** Lets them go on; with `cutting` somebody disturbs the broker's calls to its tools now and then. */
  resume(cutting: boolean): void
  /** Waits until all have come to the end of what they do. */
  pause(): Promise<void>
  /** For good. */
  end(): Promise<void>
  /** Follows the broker's clock, which `move` moves. */
  moveClock(offMs: number, move: () => Promise<void>): Promise<void>
  /** How far the clock of the broker that is about to start is off. */
  setClock(offMs: number): void
  readonly offMs: number
}

export interface LendingOptions {
  readonly port: number
  readonly book: LentBook
  readonly random: Random
  readonly adminCredential: string
  /** The files of a policy set that lends to the team `support`. */
  readonly policies: Readonly<Record<string, string>>
  wield(lending: () => Lending): Wielding
  /** What else happens, each again and again. */
  others(lending: Lending): readonly (() => Promise<void>)[]
}

const agentCount = 6
const liveMax = 40

export function createLendingLoad({ port, book, random, adminCredential, policies, wield, others }: LendingOptions): LendingLoad {
  const client = createClient(port)
  const clock = { stateOffMs: 0, proofOffMs: 0 }
  const agents: Agent[] = Array.from({ length: agentCount }, (_, i) => createAgent(`agent-${i}`))
  const gate = createGate()
  const lending: Lending = {
    ...wield(() => lending),
    client,
    book,
    random,
    adminCredential,
    agents,
    nowMs: () => Date.now() + clock.stateOffMs,
    proofMs: () => Date.now() + clock.proofOffMs,
  }

  function pickLent(of: (lent: Lent) => boolean): Lent | undefined {
    const fitting = [...book.lent.values()].filter(of)
    return random.pick(fitting)
  }
  const isOpen = ({ ended, expiresAtMs }: Lent): boolean => ended === 'no' && expiresAtMs > lending.nowMs()

  async function workAsAgent(): Promise<void> {
    const agent = random.pick(agents)
    if (agent === undefined) return
    const own = ({ workload }: Lent): boolean => workload === agent.name
    const [again] = book.toRepeat
    if (again !== undefined && random.chance(0.3)) return repeat(again)
    const live = [...book.lent.values()].filter(isOpen).length
    const chance = live > liveMax ? 0.6 + 0.4 * random.next() : random.next()
    if (chance < 0.38) return borrow(lending, makeAsked(lending, agent, random.chance(0.4)))
    if (chance < 0.41) return borrowTwice(agent)
    if (chance < 0.44) return repeat(pickLent((lent) => own(lent) && lent.asked.key !== undefined)?.asked)
    const lent = pickLent((one) => own(one) && isOpen(one))
    if (lent === undefined) return borrow(lending, makeAsked(lending, agent, false))
    if (chance < 0.62) return lending.use(lent)
    if (chance < 0.7) return lending.renews ? renew(lending, lent) : lending.use(lent)
    if (chance < 0.96) return giveBack(lending, lent)
    return complete(lending, agent, lent.task)
  }

  /** As a client does that was not patient. */
  async function borrowTwice(agent: Agent): Promise<void> {
    const asked = makeAsked(lending, agent, true)
    await Promise.all([borrow(lending, asked), setTimeout(random.below(30)).then(() => borrow(lending, asked))])
  }

  async function repeat(asked: Lent['asked'] | undefined): Promise<void> {
    if (asked === undefined) return
    if (book.toRepeat.delete(asked)) book.counts.repeated++
    await borrow(lending, asked)
  }

  async function workAsAdmin(): Promise<void> {
    const lent = pickLent(isOpen)
    const chance = random.next()
    if (lent !== undefined) {
      if (chance < 0.7) await revoke(lending, { grant: lent.grant })
      else if (chance < 0.88) await revoke(lending, { task: lent.task })
      else if (chance < 0.97) await revoke(lending, { workload: lent.workload })
      else await revoke(lending, { tool: lent.asked.body.tool })
    }
    await setTimeout(20 + random.below(120))
  }

  for (let i = 0; i < 8; i++) gate.run(() => tryOn(workAsAgent))
  gate.run(() => tryOn(workAsAdmin))
  for (const step of others(lending)) gate.run(() => tryOn(step))

  /** Without haste while nobody answers. */
  async function tryOn(step: () => Promise<void>): Promise<void> {
    const before = book.counts.answered
    try {
      await step()
    } catch (error) {
      report(book, `a step of the load failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    }
    if (book.counts.answered === before) await setTimeout(3)
  }

  async function change(method: 'POST' | 'PUT', path: string, json: unknown): Promise<void> {
    const answer = await client.send({ method, path, json, bearer: adminCredential })
    if (answer === undefined || answer.status >= 300) throw new Error(`${method} ${path} was answered ${String(answer?.status)} ${String(answer?.text)}`)
  }

  return {
    ...lending,
    async prepare() {
      await change('PUT', '/v1/policy', { files: policies })
      for (const { name, jwks } of agents) {
        const owner = { team: 'support', contact: 'oncall:support' }
        const reviewAt = new Date(lending.proofMs() + 300 * 86_400_000).toISOString()
        await change('POST', '/v1/workloads', { name, environment: 'test', stage: 'pilot', owner, purpose: 'Works until the broker is killed', tags: [], review_at: reviewAt, jwks })
      }
    },
    resume(cutting) {
      book.cutting = cutting
      gate.open()
    },
    async pause() {
      await gate.close()
      client.drop()
      book.cutting = false
    },
    async end() {
      await gate.end()
      await Promise.all([...book.lent.values()].map(drop))
    },
    async moveClock(offMs, move) {
      clock.stateOffMs = offMs
      await move()
      clock.proofOffMs = offMs
    },
    setClock(offMs) {
      clock.stateOffMs = offMs
      clock.proofOffMs = offMs
    },
    get offMs() {
      return clock.stateOffMs
    },
  }
}
