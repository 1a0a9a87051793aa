import { rotationWaypoints, waypoints, type Waypoint } from '../../src/broker/waypoints.ts'
import type { Death } from './hooks.ts'
import type { Random } from './random.ts'

/** How the next broker is killed: at a point, a little after it while the tool is at work, at a point of many grants, or at random. */
export type Plan = { readonly point: Waypoint; readonly later?: boolean; readonly ofMany?: boolean } | 'at random'

/** At every point between the steps. */
export const pointPlans: readonly Exclude<Plan, string>[] = waypoints.map((point) => ({ point }))

export const allPlans: readonly Plan[] = [
  ...pointPlans,
  { point: 'outside_called', later: true },
  { point: 'end_called', later: true },
  { point: 'end_ordered', ofMany: true },
  ...Array.from({ length: 3 }, () => 'at random' as const),
]

/** At every point between the steps of a rotation. */
export const rotationPlans: readonly Exclude<Plan, string>[] = rotationWaypoints.map((point) => ({ point }))

/** While sessions of a cloud are lent and denied, and secrets replaced. */
export const allAwsPlans: readonly Plan[] = [
  ...allPlans,
  ...rotationPlans,
  { point: 'rotation_called', later: true },
  { point: 'rotation_called', later: true },
  { point: 'rotation_stored' },
]

export function namePlan(plan: Plan): string {
  if (plan === 'at random') return plan
  const { point, later = false, ofMany = false } = plan
  return `${later ? 'after ' : ''}${point}${ofMany ? ' of many' : ''}`
}

/** Takes one after another, each as often as any other, in an order of chance. */
export function createPlanner(random: Random, plans: readonly Plan[]): () => Plan {
  let left: Plan[] = []
  return () => {
    if (left.length === 0) left = [...plans]
    const [plan = 'at random'] = left.splice(random.below(left.length), 1)
    return plan
  }
}

export function makeDeath(random: Random, { point, later = false, ofMany = false }: Exclude<Plan, string>): Death {
  // Orders to end many are few, and so are rotations.
  const timesMax = ofMany || point === 'rotation_begun' ? 2 : 6
  return { point, times: 1 + random.below(timesMax), ...(ofMany && { ofMany }), ...(later && { afterMs: random.between(0.5, 40) }) }
}
