/** How long a process that mints or ends has for it before another one takes over. Longer than any outbound call. */
export const leaseMs = 60_000

/** By how much the clock of an outside system may differ from ours: AWS takes no call whose time is further from its own. */
export const clockMsMax = 300_000

/** How long one call to an outside system may take. */
export const outboundMsMax = 20_000

/** How often the end of a grant is tried before somebody has to look. */
export const endTriesMax = 10

const firstRetryMs = 1_000
const retryMsMax = 600_000

/**
 * How long to wait after a try to end a grant that failed, the first one being 1: three times longer each time, from a second to ten minutes, less
 * up to half of it by chance (`random` of 0 to 1), so that what failed together is not tried again together. Never less than
 * the outside system asked for, if it did, up to ten minutes.
 */
export function retryDelayMs(tries: number, random: number, retryAfterSeconds = 0): number {
  const delayMs = Math.min(retryMsMax, firstRetryMs * 3 ** (tries - 1)) * (1 - random / 2)
  return Math.max(delayMs, Math.min(retryAfterSeconds * 1000, retryMsMax))
}

/**
 * When a grant that is renewed at this time ends: after the seconds asked for, but not later than the tool's longest life
 * counted from the first grant. `undefined` when nothing of that is left.
 */
export function renewedExpiryMs(
  { firstIssuedAtMs, nowMs, ttlSeconds, maxSeconds }: { readonly firstIssuedAtMs: number; readonly nowMs: number; readonly ttlSeconds: number; readonly maxSeconds: number },
): number | undefined {
  const lastMs = firstIssuedAtMs + maxSeconds * 1000
  return lastMs <= nowMs ? undefined : Math.min(lastMs, nowMs + ttlSeconds * 1000)
}
