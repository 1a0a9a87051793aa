/** What every answer says, whatever it answers. `issuer` is the broker's own address. */
export function headersOfAll(issuer: string): Readonly<Record<string, string>> {
  return {
    'x-content-type-options': 'nosniff',
    // A route whose answer may be kept says so.
    'cache-control': 'no-store',
    // Nothing here is a page, whatever a browser takes it for.
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    ...(issuer.startsWith('https:') && { 'strict-transport-security': 'max-age=31536000' }),
  }
}
