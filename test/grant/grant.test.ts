import { describe, expect, test } from 'vitest'
import { grantState, grantStates, isOver, nextState, type GrantState, type GrantStep } from '../../src/grant/grant.ts'

test.for<[string, number, number | undefined, number, GrantState]>([
  ['before its end', 1000, undefined, 999, 'active'],
  ['at its end', 1000, undefined, 1000, 'expired'],
  ['after its end', 1000, undefined, 1001, 'expired'],
  ['revoked before its end', 1000, 3, 0, 'revoked'],
  ['revoked by the first entry of all', 1000, 0, 0, 'revoked'],
  ['revoked, and past its end', 1000, 3, 2000, 'revoked'],
])('A grant %s', ([, expiresAtMs, revokedIndex, nowMs, state]) => {
  expect(grantState({ expiresAtMs, ...(revokedIndex !== undefined && { revokedIndex }) }, nowMs)).toBe(state)
})

describe('A grant whose credential lives outside', () => {
  const alive = { expiresAtMs: 1000 }
  const revoked = { expiresAtMs: 1000, revokedIndex: 3 }

  test.each(grantStates)('is %s, as its credential is, while it is not to end', (state) => {
    expect(grantState(alive, 999, state)).toBe(state)
  })

  test.each(grantStates)('is to end from then on that it is revoked or expired, unless its credential (%s) says more', (state) => {
    const ending = state === 'active' ? 'ending' : state
    expect([grantState(revoked, 0, state), grantState(alive, 1000, state), grantState(revoked, 1000, state)]).toEqual([ending, ending, ending])
  })
})

// DESIGN's drawing, as a table: a step that is not in it has no place there.
const arrows: Readonly<Record<GrantState, Partial<Record<GrantStep, GrantState>>>> = {
  minting: { minted: 'active', mint_failed: 'failed', mint_lost: 'unknown', end_ordered: 'ending' },
  active: { end_ordered: 'ending' },
  unknown: { end_ordered: 'ending' },
  ending: { end_revoked: 'revoked', end_expired: 'expired', given_up: 'stuck' },
  stuck: { retried: 'ending', written_off: 'written_off' },
  failed: {},
  revoked: {},
  expired: {},
  written_off: {},
}

const steps: readonly GrantStep[] = ['minted', 'mint_failed', 'mint_lost', 'end_ordered', 'end_revoked', 'end_expired', 'given_up', 'retried', 'written_off']

describe('The step', () => {
  test.each(grantStates.flatMap((state) => steps.map((step) => [step, state, arrows[state][step] ?? 'nowhere'] as const)))('%s leads from %s to %s', (step, state, next) => {
    expect(nextState(state, step) ?? 'nowhere').toBe(next)
  })
})

test('A grant is over from where no step leads on', () => {
  expect(grantStates.filter(isOver)).toEqual(['failed', 'revoked', 'expired', 'written_off'])
})

test('What was never over or alive again: no way leads from an end, nor back to a credential that could be given out', () => {
  const reached = (from: GrantState): Set<GrantState> => {
    const found = new Set<GrantState>()
    const walk = (state: GrantState) => {
      for (const next of Object.values(arrows[state])) if (!found.has(next)) walk(found.add(next) && next)
    }
    walk(from)
    return found
  }
  for (const state of grantStates) {
    if (state === 'minting') continue
    expect(reached(state).has('active'), state).toBe(false)
    expect(reached(state).has('minting'), state).toBe(false)
  }
  expect([...reached('minting')].sort()).toEqual(grantStates.filter((state) => state !== 'minting').sort())
})
