/**
 * The points between the steps of lending and ending, at each of which a process may die. What is there to be recovered
 * from is the same whichever it is: a test stops a broker at them.
 */
export const waypoints = [
  'intent_stored',
  'outside_called',
  'outside_answered',
  'outcome_stored',
  'answer_sent',
  'end_ordered',
  'end_claimed',
  'end_called',
  'end_answered',
  'end_stored',
] as const

/** The same of rotations: `begun` once, the others at each step. */
export const rotationWaypoints = ['rotation_begun', 'rotation_called', 'rotation_answered', 'rotation_stored'] as const

export type Waypoint = (typeof waypoints)[number] | (typeof rotationWaypoints)[number]

/** Told of every point that is passed, and for which grant or rotation. */
export type Pass = (point: Waypoint, of: string) => Promise<void> | void
