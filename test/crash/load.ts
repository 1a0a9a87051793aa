import { setTimeout } from 'node:timers/promises'
import { applyPolicy, register, revokeTask, revokeWorkload, rotateKeys, turnStanding, type Admin } from './admin-steps.ts'
import { createAgent, type Agent } from './agents.ts'
import { stateOf, type Book, type HeldToken } from './book.ts'
import { createGate } from './gate.ts'
import { createClient, type Client } from './http.ts'
import type { Random } from './random.ts'
import { askToken, introspect, release, type Loading } from './workload-steps.ts'

/** Clients that use a broker as hard as they can, and note what they learn. They outlive the broker. */
export interface Load extends Loading {
  readonly admin: Admin
  /** By name. */
  readonly agents: Map<string, Agent>
  /** Registers what the load works with. */
  prepare(): Promise<void>
  /** Lets the clients go on; resolves at the first answer. They try on where nobody listens. */
  resume(): Promise<void>
  /** Waits until every client has come to the end of what it does. */
  pause(): Promise<void>
  /** For good. */
  end(): Promise<void>
  /** Follows the broker's clock: `move` moves it, and it is off by that much from then on. */
  moveClock(offMs: number, move: () => Promise<void>): Promise<void>
  /** How far the clock of a broker is off that was started, and the time in the head of its log. */
  setClock(offMs: number, logMs: number): void
  /** Takes in an agent whose registration was found in the log. */
  admit(agent: Agent): void
  /** The workloads that the admin suspends and resumes. */
  readonly standing: ReadonlyMap<string, Agent>
  /** Agents whose registration was not answered. */
  readonly waiting: Map<string, Agent>
}

export interface LoadOptions {
  readonly port: number
  readonly book: Book
  readonly random: Random
  readonly credential: string
  readonly connections?: number
  readonly mayFail?: boolean
  /** Works as the same agents, at another broker of the same database. */
  readonly beside?: Pick<Load, 'agents'>
  /** Whether an admin changes things meanwhile; yes unless it says otherwise. */
  readonly withAdmin?: boolean
  /** Whether the broker serves checkpoints to be collected; yes unless it says otherwise. */
  readonly withCheckpoints?: boolean
}

/** Of these an admin revokes what they were given, and they themselves do not. */
const sweptAgents = ['agent-0', 'agent-1']
const firstAgents = 12
const agentsMax = 48

export function createLoad(options: LoadOptions): Load {
  const { port, book, random, credential, connections = 24, mayFail = false, withAdmin = true, withCheckpoints = true } = options
  const client: Client = createClient(port)
  const clock = { offMs: 0, logMs: 0, moves: 0 }
  const agents = options.beside?.agents ?? new Map<string, Agent>()
  const waiting = new Map<string, Agent>()
  const standing = new Map<string, Agent>()
  const admin: Admin = { credential, standing: new Map() }
  const gate = createGate()
  const nowMs = (): number => Math.max(Date.now() + clock.offMs, clock.logMs, book.tokens.at(-1)?.issuedAtMs ?? 0)
  const loading: Loading = { client, book, random, nowMs, clockMoves: () => clock.moves, mayFail }
  const isSwept = (name: string): boolean => sweptAgents.includes(name)

  /** One of the newest tokens: older ones have mostly expired. */
  function pickToken(of: (token: HeldToken) => boolean): HeldToken | undefined {
    const { tokens } = book
    const token = tokens[tokens.length - 1 - random.below(Math.min(tokens.length, 2_000))]
    return token !== undefined && of(token) ? token : undefined
  }

  async function workAsAgent(): Promise<void> {
    const chance = random.next()
    const token = chance < 0.3 ? pickToken(({ workload }) => agents.has(workload)) : undefined
    const agent = token === undefined ? random.pick([...agents.values()]) : agents.get(token.workload)
    if (agent === undefined) return
    if (token === undefined) await askToken(loading, agent)
    else if (chance < 0.16 || isSwept(agent.name)) await introspect(loading, agent, token)
    else await release(loading, agent, token)
  }

  let registered = 0
  async function workAsAdmin(): Promise<void> {
    const chance = random.next()
    if (chance < 0.15 && agents.size < agentsMax) await registerAgent(`agent-${++registered + firstAgents}`)
    else if (chance < 0.4) await turnStanding(loading, admin, `standing-${random.below(2)}`)
    else if (chance < 0.55) await applyPolicy(loading, admin)
    else if (chance < 0.65) await rotateKeys(loading, admin, random.chance(0.3))
    else if (chance < 0.7) await revokeWorkload(loading, admin, random.pick(sweptAgents) ?? '')
    else {
      const token = pickToken((one) => isSwept(one.workload) && stateOf(book, one, nowMs()) === 'active')
      if (token !== undefined) await revokeTask(loading, admin, token)
    }
    // Each change makes every decision that is under way begin again.
    await setTimeout(random.below(60))
  }

  async function registerAgent(name: string): Promise<void> {
    const agent = createAgent(name)
    waiting.set(name, agent)
    if ((await register(loading, admin, name, agent)) === undefined) return
    waiting.delete(name)
    agents.set(name, agent)
  }

  async function collectCheckpoint(): Promise<void> {
    const answer = await client.send({ method: 'GET', path: '/log/checkpoint' })
    if (answer?.status === 200 && answer.text !== book.checkpoints.at(-1)) {
      book.checkpoints.push(answer.text)
      book.counts.checkpoints++
    }
    await setTimeout(40)
  }

  for (let i = 0; i < connections; i++) gate.run(() => tryOn(workAsAgent))
  if (withAdmin) gate.run(() => tryOn(workAsAdmin))
  if (withCheckpoints) gate.run(() => tryOn(collectCheckpoint))

  /** Without haste while nobody answers. */
  async function tryOn(step: () => Promise<void>): Promise<void> {
    const before = book.counts.answered
    await step()
    if (book.counts.answered === before) await setTimeout(3)
  }

  return {
    ...loading,
    admin,
    agents,
    standing,
    waiting,
    async prepare() {
      await applyPolicy(loading, admin)
      for (let i = 0; i < firstAgents; i++) await registerAgent(`agent-${i}`)
      for (const name of ['standing-0', 'standing-1']) {
        const agent = await register(loading, admin, name)
        if (agent === undefined) continue
        admin.standing.set(name, 'active')
        standing.set(name, agent)
      }
    },
    async resume() {
      const before = book.counts.answered
      gate.open()
      while (book.counts.answered === before && gate.isOpen()) await setTimeout(1)
    },
    async pause() {
      await gate.close()
      client.drop()
    },
    end: () => gate.end(),
    async moveClock(offMs, move) {
      clock.moves++
      try {
        await move()
        clock.offMs = offMs
      } finally {
        clock.moves++
      }
    },
    setClock(offMs, logMs) {
      clock.offMs = offMs
      clock.logMs = logMs
    },
    admit(agent) {
      waiting.delete(agent.name)
      agents.set(agent.name, agent)
    },
  }
}

