import { lookup } from 'node:dns/promises'
import { BlockList, isIP } from 'node:net'
import { ConnectorError } from './connector.ts'

/** An address that was judged: what a caller connects to, instead of the name. */
export interface Address {
  readonly address: string
  readonly family: 4 | 6
}

/** Every address of a host, as the system's resolver has them, in the order in which to try them. */
export type Lookup = (host: string) => Promise<readonly Address[]>

export interface ResolveOptions {
  /** Whether the catalog allows the tool to be within a private network. */
  readonly privateNetwork: boolean
  readonly lookup?: Lookup
}

/** IANA's special-purpose registries (RFC 6890). What no tool can have comes before what the catalog may allow. */
const never: readonly Range[] = [
  { name: 'an unspecified address', ranges: ['0.0.0.0/8', '::/128'] },
  { name: 'a multicast or broadcast address', ranges: ['224.0.0.0/4', '255.255.255.255/32', 'ff00::/8'] },
  { name: 'a reserved address', ranges: ['192.0.0.0/24', '192.88.99.0/24', '240.0.0.0/4', '2001::/23'] },
  { name: 'an address for documentation', ranges: ['192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24', '2001:db8::/32', '3fff::/20'] },
]
const inside: readonly Range[] = [
  { name: 'a loopback address', ranges: ['127.0.0.0/8', '::1/128'] },
  { name: 'a link-local address', ranges: ['169.254.0.0/16', 'fe80::/10'] },
  { name: 'a private address', ranges: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '198.18.0.0/15', 'fc00::/7', 'fec0::/10', '64:ff9b:1::/48'] },
]

interface Range {
  readonly name: string
  readonly ranges: readonly string[]
}

const neverLists = never.map(createList)
const insideLists = inside.map(createList)
/** All of IPv6 that is given out to the world; an IPv4 address is where `never` and `inside` do not hold it. */
const global = createList({ name: 'a public address', ranges: ['2000::/3'] })
const loopback = createList({ name: 'a loopback address', ranges: ['127.0.0.0/8', '::1/128'] })

/**
 * Why nothing must connect to an IP address, as words that follow "is"; `undefined` where it may. `privateNetwork` allows
 * loopback, link-local and private addresses, and nothing else. An IPv6 form of an IPv4 address (mapped, NAT64, 6to4) is
 * judged as the IPv4 address to which it leads.
 */
export function judgeAddress(address: string, { privateNetwork = false }: { readonly privateNetwork?: boolean } = {}): string | undefined {
  // A zone says through which interface, not whither.
  const [bare = ''] = address.split('%')
  const version = isIP(bare)
  if (version === 0) return 'no IP address'
  const embedded = version === 6 ? findEmbedded(bare) : undefined
  if (embedded !== undefined) return judgeAddress(embedded, { privateNetwork })
  const family = version === 4 ? 'ipv4' : 'ipv6'
  const neverAllowed = neverLists.find(({ list }) => list.check(bare, family))
  if (neverAllowed !== undefined) return neverAllowed.name
  const allowable = insideLists.find(({ list }) => list.check(bare, family))
  if (allowable !== undefined) return privateNetwork ? undefined : allowable.name
  return version === 6 && !global.list.check(bare, family) ? 'a reserved address' : undefined
}

/** Whether an address is this machine itself. */
export function isLoopback({ address, family }: Address): boolean {
  return loopback.list.check(address, family === 4 ? 'ipv4' : 'ipv6')
}

/**
 * The addresses of a host, each of which may be connected to: callers connect to these, never to the name, so that no second
 * answer of the DNS can lead elsewhere. A host of which one address must not be called is refused as a whole. Throws
 * `ConnectorError` `nothing_done`, also when the signal ends it.
 */
export async function resolveHost(host: string, { privateNetwork, lookup = lookUp }: ResolveOptions, signal: AbortSignal): Promise<readonly [Address, ...Address[]]> {
  const bare = host.replace(/^\[(.*)\]$/, '$1')
  const version = isIP(bare)
  const addresses = version === 0 ? await look(bare, lookup, signal) : [{ address: bare, family: version === 4 ? 4 : 6 } as const]
  for (const { address } of addresses) {
    const why = judgeAddress(address, { privateNetwork })
    if (why === undefined) continue
    const remedy = judgeAddress(address, { privateNetwork: true }) === undefined ? ' unless its catalog file says private_network: true' : ''
    throw refuse(`The tool's host ${host} has ${why}, which is not called${remedy}.`)
  }
  const [first, ...rest] = addresses
  if (first === undefined) throw refuse(`The tool's host ${host} has no address.`)
  return [first, ...rest]
}

async function look(host: string, lookup: Lookup, signal: AbortSignal): Promise<readonly Address[]> {
  const late = Promise.withResolvers<never>()
  const onAbort = () => late.reject(refuse(`The name of the tool's host ${host} could not be resolved in time.`))
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })
  // The system's resolver cannot be called off; what it answers later concerns nobody.
  const asked = lookup(host).catch((cause: unknown) => {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
    throw refuse(code === 'ENOTFOUND' ? `The tool's host ${host} is not known to the DNS.` : `The name of the tool's host ${host} cannot be resolved at present.`, cause)
  })
  try {
    return await Promise.race([asked, late.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

async function lookUp(host: string): Promise<readonly Address[]> {
  const found = await lookup(host, { all: true, order: 'verbatim' })
  return found.map(({ address, family }) => ({ address, family: family === 6 ? 6 : 4 }))
}

/**
 * The IPv4 address to which an IPv6 one leads: RFC 4291 §2.5.5 (compatible and mapped), RFC 6052 §2.1 (NAT64), RFC 3056 §2
 * (6to4).
 */
function findEmbedded(address: string): string | undefined {
  const groups = expand(address)
  const head = groups.slice(0, 6).map((group) => group.toString(16)).join(':')
  // Compatible ones, of which :: and ::1 are none.
  if (head === '0:0:0:0:0:0') return groups[6] === 0 ? undefined : joinIpv4(groups[6], groups[7])
  if (head === '0:0:0:0:0:ffff' || head === '64:ff9b:0:0:0:0') return joinIpv4(groups[6], groups[7])
  return groups[0] === 0x2002 ? joinIpv4(groups[1], groups[2]) : undefined
}

/** The eight groups of an IPv6 address. */
function expand(address: string): readonly number[] {
  const plain = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a: string, b: string, c: string, d: string) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((group) => group.toString(16)).join(':'),
  )
  const [head = '', tail] = plain.split('::')
  const before = head === '' ? [] : head.split(':')
  const after = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - before.length - after.length }, () => '0')
  return [...before, ...zeros, ...after].map((group) => Number.parseInt(group, 16))
}

function joinIpv4(high = 0, low = 0): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join('.')
}

function createList({ name, ranges }: Range): { readonly name: string; readonly list: BlockList } {
  const list = new BlockList()
  for (const range of ranges) {
    const [network = '', bits = ''] = range.split('/')
    list.addSubnet(network, Number(bits), isIP(network) === 4 ? 'ipv4' : 'ipv6')
  }
  return { name, list }
}

function refuse(publicMessage: string, cause?: unknown): ConnectorError {
  return new ConnectorError({ outcome: 'nothing_done', publicMessage, cause })
}
