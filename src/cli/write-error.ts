/** Why something could not be written, by the system's code. */
export function describeWriteError(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
  const reason = reasons[code]
  return reason === undefined ? code : `${reason} (${code})`
}

const reasons: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'your share of the disk is used up',
  EFBIG: 'a file may not be that large here',
  EROFS: 'nothing can be written to that disk',
}
