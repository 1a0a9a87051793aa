import type { IncomingMessage } from 'node:http'
import { isIP, SocketAddress } from 'node:net'
import { BrokerError } from '../kernel/errors.ts'

/** What of a request says where it comes from. */
export type Arrival = Pick<IncomingMessage, 'headers'> & { readonly socket: { readonly remoteAddress?: string | undefined } }

/** The address of a request of which nothing is known, as of one whose connection is gone already. */
export const unknownAddress = 'unknown'

/**
 * The address from which a request comes, in its one spelling. That is the connection's own; only where it is one of
 * `proxies`, the configured ones, it is the last address of X-Forwarded-For, or of Forwarded (RFC 7239), that is none of
 * them. Nobody else's forwarded headers are read, for anybody can send them. Throws `invalid_input` for a proxy's headers
 * that tell no address or two stories: what a caller sent may stand in the one, and what the proxy knows in the other
 * (invariant 6).
 */
export function readAddress(arrival: Arrival | undefined, proxies: readonly string[] = []): string {
  const peer = normaliseAddress(arrival?.socket.remoteAddress ?? '')
  if (arrival === undefined || peer === undefined) return unknownAddress
  const trusted = proxies.map((proxy) => normaliseAddress(proxy))
  if (!trusted.includes(peer)) return peer
  const { forwarded, 'x-forwarded-for': forwardedFor } = arrival.headers
  if (forwarded !== undefined && forwardedFor !== undefined) {
    throw refuse('Both Forwarded and X-Forwarded-For were sent: the proxy must remove the one that it does not write itself.')
  }
  const hops = forwarded === undefined ? splitForwardedFor(forwardedFor) : splitForwarded(forwarded)
  for (const hop of hops.toReversed()) {
    const address = normaliseAddress(hop)
    if (address === undefined) throw refuse('The proxy does not say from which address the request comes.')
    if (!trusted.includes(address)) return address
  }
  // Asked from the proxy's own machine, past the proxy or through it.
  return peer
}

/**
 * For whom a request counts: an IPv4 address by itself, an IPv6 address by its /64, of which one host has as many
 * addresses as it likes.
 */
export function groupAddress(address: string): string {
  if (isIP(address) !== 6) return address
  const [head = '', tail] = address.split('::')
  const groups = head === '' ? [] : head.split(':')
  const rest = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - groups.length - rest.length }, () => '0')
  return `${[...groups, ...zeros, ...rest].slice(0, 4).join(':')}::/64`
}

/** An IP address as RFC 5952 writes it, an IPv4-mapped one as IPv4, without zone; `undefined` if it is none. */
export function normaliseAddress(text: string): string | undefined {
  const [address = ''] = text.split('%')
  if (isIP(address) === 4) return address
  if (isIP(address) !== 6) return undefined
  const { address: normal } = new SocketAddress({ address, family: 'ipv6' })
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(normal)?.[1]
  return mapped ?? normal
}

type Header = string | readonly string[] | undefined

function splitForwardedFor(header: Header): string[] {
  return splitList(header).map(stripPort)
}

// RFC 7239 §4: pairs with `;` between them, values as tokens or quoted. A quote inside quotes is nothing an address has.
const pair = /^\s*([\w!#$%&'*+.^`|~-]+)=(?:"([^"\\]*)"|([\w!#$%&'*+.^`|~-]+))\s*$/

function splitForwarded(header: Header): string[] {
  return splitList(header).map((element) => {
    const values = element.split(';').flatMap((part) => {
      const [, name = '', quoted, token] = pair.exec(part) ?? []
      return name.toLowerCase() === 'for' ? [quoted ?? token ?? ''] : []
    })
    return values.length === 1 ? stripPort(values[0] ?? '') : ''
  })
}

function splitList(header: Header): string[] {
  const text = typeof header === 'string' ? header : (header ?? []).join(',')
  return text.trim() === '' ? [] : text.split(',').map((part) => part.trim())
}

/** `192.0.2.1:80` and `[2001:db8::1]:80` without what follows the address. */
function stripPort(text: string): string {
  const [, bracketed, dotted] = /^(?:\[([^\]]*)\]|([\d.]+))(?::\d{1,5})?$/.exec(text) ?? []
  return bracketed ?? dotted ?? text
}

function refuse(publicMessage: string): BrokerError {
  return new BrokerError({ code: 'invalid_input', publicMessage })
}
