import { z } from 'zod'

/**
 * Where a root credential comes from: `env:NAME` of the broker's environment, `file:/path` that nobody else can read, or
 * `sealed:name`, which an admin handed to the broker. What is the broker's own is nobody's root credential.
 */
export const secretSource = z.strictObject({
  from: z
    .string()
    .max(512)
    .regex(/^(?:env:[A-Za-z_][A-Za-z0-9_]*|file:\/[^\p{Cc}]+|sealed:[a-z][a-z0-9-]{0,62})$/u, 'must be env:NAME, file:/path or sealed:name')
    .refine((from) => !/^env:STINT_/i.test(from), 'must not name a variable of Stint itself'),
})

/** Whether the tool may be within a private network; without it no such address is called. */
export const privateNetwork = z.boolean().default(false)

/** A host as the catalog allows it: a DNS name or an IP address, with a port where it is not the usual one. */
export const allowedHost = z.string().max(255).refine(isHost, 'must be a host, or host:port where the port is not the usual one')

/** An https URL without user, query and fragment; plain http only for a loopback address, for trying things out. */
export const serviceUrl = z.string().max(512).refine(isServiceUrl, 'must be an https URL without user, query and fragment (http only on 127.0.0.1)')

function isServiceUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname, search, hash, username, password } = new URL(text)
  const plain = protocol === 'http:' && ['127.0.0.1', '[::1]', 'localhost'].includes(hostname)
  return (protocol === 'https:' || plain) && search === '' && hash === '' && username === '' && password === ''
}

function isHost(text: string): boolean {
  return URL.canParse(`https://${text}`) && new URL(`https://${text}`).host === text
}
