/**
 * The bytes of canonical base64url (RFC 4648 §5, RFC 7515 §2): no padding, no whitespace, no other alphabet, unused bits
 * zero. `undefined` otherwise. Two texts for the same bytes would be two tokens with one meaning.
 */
export function decodeBase64url(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}

/** Base64url without padding. */
export function encodeBase64url(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64url')
}
