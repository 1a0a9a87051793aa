// What Stint gives out (also cut short), a compact JWS, and a private key in PEM. Built so that what is replaced never ends
// a JSON text, and in time that grows with the text alone.
const secretForms = /stint_[a-z]{2,10}_[0-9a-f]{16}_[\w-]+|\beyJ[\w-]{8,}(?:\.[\w-]*)*|-----BEGIN[ ?A-Z]{0,40}PRIVATE[ ?]KEY-----(?:[\w\s+/=?-]|\\{1,2}(?:[nr]|u[0-9a-f]{4}))*/gi

/**
 * The text without what has the form of a credential, a code, a token or a private key: for what callers said in a wrong
 * place and messages say back (invariant 7). What has no form of its own is not found.
 */
export function redactSecrets(text: string): string {
  return text.replaceAll(secretForms, '[redacted]')
}
