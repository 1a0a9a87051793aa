const secondsPerUnit = { s: 1, m: 60, h: 3600, d: 86_400 } as const

/** Seconds in a duration such as `45s`, `10m`, `1h` or `90d`: one positive whole number and one unit. `undefined` otherwise. */
export function parseDuration(text: string): number | undefined {
  const match = /^([1-9]\d{0,8})([smhd])$/.exec(text)
  if (match === null) return undefined
  return Number(match[1]) * secondsPerUnit[match[2] as keyof typeof secondsPerUnit]
}

/** The shortest exact form of a number of whole seconds: 600 is `10m`, 90 is `90s`. */
export function formatDuration(seconds: number): string {
  for (const unit of ['d', 'h', 'm'] as const) {
    if (seconds >= secondsPerUnit[unit] && seconds % secondsPerUnit[unit] === 0) {
      return `${seconds / secondsPerUnit[unit]}${unit}`
    }
  }
  return `${seconds}s`
}
