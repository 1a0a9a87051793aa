import { describe, expect, test } from 'vitest'
import { ConnectorError } from '../../src/connectors/connector.ts'
import { isLoopback, judgeAddress, resolveHost, type Address, type Lookup } from '../../src/connectors/network.ts'

const within = [
  ['127.0.0.1', 'a loopback address'],
  ['127.255.255.254', 'a loopback address'],
  ['::1', 'a loopback address'],
  ['0:0:0:0:0:0:0:1', 'a loopback address'],
  ['10.0.0.1', 'a private address'],
  ['172.16.0.1', 'a private address'],
  ['172.31.255.255', 'a private address'],
  ['192.168.1.1', 'a private address'],
  ['100.64.0.1', 'a private address'],
  ['100.127.255.255', 'a private address'],
  ['198.18.0.1', 'a private address'],
  ['fc00::1', 'a private address'],
  ['fd00:ec2::254', 'a private address'],
  ['fec0::1', 'a private address'],
  ['64:ff9b:1::a00:1', 'a private address'],
  ['169.254.169.254', 'a link-local address'],
  ['fe80::1', 'a link-local address'],
  ['fe80::1%eth0', 'a link-local address'],
  ['febf::1', 'a link-local address'],
  // IPv4 in IPv6: mapped, compatible, NAT64, 6to4.
  ['::ffff:127.0.0.1', 'a loopback address'],
  ['::ffff:7f00:1', 'a loopback address'],
  ['::ffff:a9fe:a9fe', 'a link-local address'],
  ['::10.0.0.1', 'a private address'],
  ['64:ff9b::169.254.169.254', 'a link-local address'],
  ['64:ff9b::7f00:1', 'a loopback address'],
  ['2002:7f00:1::', 'a loopback address'],
  ['2002:c0a8:101::1', 'a private address'],
] as const

const never = [
  ['0.0.0.0', 'an unspecified address'],
  ['0.1.2.3', 'an unspecified address'],
  ['::', 'an unspecified address'],
  ['::ffff:0.0.0.0', 'an unspecified address'],
  ['224.0.0.1', 'a multicast or broadcast address'],
  ['239.255.255.255', 'a multicast or broadcast address'],
  ['255.255.255.255', 'a multicast or broadcast address'],
  ['ff02::1', 'a multicast or broadcast address'],
  ['240.0.0.1', 'a reserved address'],
  ['192.0.0.8', 'a reserved address'],
  ['192.88.99.1', 'a reserved address'],
  ['2001::1', 'a reserved address'],
  ['2001:1ff::1', 'a reserved address'],
  ['::0.0.1.2', 'a reserved address'],
  ['100::1', 'a reserved address'],
  ['4000::1', 'a reserved address'],
  ['192.0.2.1', 'an address for documentation'],
  ['198.51.100.7', 'an address for documentation'],
  ['203.0.113.255', 'an address for documentation'],
  ['2001:db8::1', 'an address for documentation'],
  ['3fff::1', 'an address for documentation'],
  ['2002:e000:1::', 'a multicast or broadcast address'],
  ['64:ff9b::192.0.2.1', 'an address for documentation'],
  ['', 'no IP address'],
  ['example.com', 'no IP address'],
  ['127.1', 'no IP address'],
] as const

const open = [
  '1.1.1.1', '8.8.8.8', '9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '126.255.255.255', '128.0.0.1', '169.253.255.255',
  '169.255.0.0', '172.15.255.255', '172.32.0.0', '192.167.255.255', '192.169.0.0', '198.17.255.255', '198.20.0.0', '223.255.255.255',
  '2606:4700:4700::1111', '2001:200::1', '2a00:1450:4001:831::200e', '::ffff:8.8.8.8', '64:ff9b::8.8.8.8', '2002:808:808::1',
] as const

describe('an address', () => {
  test.each(within)('%s is called only where private networks are allowed', (address, why) => {
    expect(judgeAddress(address)).toBe(why)
    expect(judgeAddress(address, { privateNetwork: true })).toBeUndefined()
  })

  test.each(never)('%s is never called', (address, why) => {
    expect(judgeAddress(address)).toBe(why)
    expect(judgeAddress(address, { privateNetwork: true })).toBe(why)
  })

  test.each(open)('%s is called', (address) => {
    expect(judgeAddress(address)).toBeUndefined()
  })

  test('is this machine, or it is not', () => {
    const here: Address[] = [{ address: '127.0.0.1', family: 4 }, { address: '::1', family: 6 }, { address: '::ffff:127.0.0.1', family: 6 }]
    const elsewhere: Address[] = [{ address: '10.0.0.1', family: 4 }, { address: '8.8.8.8', family: 4 }, { address: '::2', family: 6 }]
    expect(here.map(isLoopback)).toEqual([true, true, true])
    expect(elsewhere.map(isLoopback)).toEqual([false, false, false])
  })
})

describe('a host', () => {
  const answer = (...addresses: string[]): Lookup => async () => addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
  const forever = new AbortController().signal

  async function readRefusal(promise: Promise<unknown>): Promise<string> {
    const error: unknown = await promise.catch((thrown: unknown) => thrown)
    if (!(error instanceof ConnectorError)) throw new Error('not refused by a ConnectorError', { cause: error })
    expect(error.outcome).toBe('nothing_done')
    return error.publicMessage
  }

  test('resolves to all of its addresses, in their order', async () => {
    const lookup = answer('2606:4700:4700::1111', '1.1.1.1')
    expect(await resolveHost('tool.test', { privateNetwork: false, lookup }, forever)).toEqual([
      { address: '2606:4700:4700::1111', family: 6 },
      { address: '1.1.1.1', family: 4 },
    ])
  })

  test('of this machine resolves by the system where that is allowed', async () => {
    const addresses = await resolveHost('localhost', { privateNetwork: true }, forever)
    expect(addresses.every(isLoopback)).toBe(true)
    expect(await readRefusal(resolveHost('localhost', { privateNetwork: false }, forever))).toBe(
      "The tool's host localhost has a loopback address, which is not called unless its catalog file says private_network: true.",
    )
  })

  test('is refused as a whole for one address that must not be called', async () => {
    expect(await readRefusal(resolveHost('tool.test', { privateNetwork: false, lookup: answer('1.1.1.1', '169.254.169.254') }, forever))).toContain('a link-local address')
  })

  test('is not advised to allow what cannot be allowed', async () => {
    expect(await readRefusal(resolveHost('tool.test', { privateNetwork: false, lookup: answer('0.0.0.0') }, forever))).toBe(
      "The tool's host tool.test has an unspecified address, which is not called.",
    )
  })

  test('that is an address is judged without asking anybody', async () => {
    const lookup: Lookup = () => Promise.reject(new Error('was asked'))
    expect(await resolveHost('8.8.8.8', { privateNetwork: false, lookup }, forever)).toEqual([{ address: '8.8.8.8', family: 4 }])
    expect(await resolveHost('[::1]', { privateNetwork: true, lookup }, forever)).toEqual([{ address: '::1', family: 6 }])
    expect(await readRefusal(resolveHost('[::ffff:10.0.0.1]', { privateNetwork: false, lookup }, forever))).toContain('a private address')
  })

  test('in another spelling of an address is judged by where it leads', async () => {
    for (const host of ['127.1', '0x7f000001', '2130706433']) {
      expect(await readRefusal(resolveHost(host, { privateNetwork: false }, forever))).not.toBe('')
    }
  })

  test('without addresses, or unknown, or with a resolver that fails, is refused in words', async () => {
    const broken = (code: string): Lookup => () => Promise.reject(Object.assign(new Error(code), { code }))
    expect(await readRefusal(resolveHost('tool.test', { privateNetwork: false, lookup: answer() }, forever))).toBe("The tool's host tool.test has no address.")
    expect(await readRefusal(resolveHost('tool.test', { privateNetwork: false, lookup: broken('ENOTFOUND') }, forever))).toContain('is not known to the DNS')
    expect(await readRefusal(resolveHost('tool.test', { privateNetwork: false, lookup: broken('EAI_AGAIN') }, forever))).toContain('cannot be resolved at present')
  })

  test('whose resolver does not answer is given up with the signal', async () => {
    const lookup: Lookup = () => new Promise(() => undefined)
    expect(await readRefusal(resolveHost('tool.test', { privateNetwork: false, lookup }, AbortSignal.timeout(20)))).toContain('could not be resolved in time')
    expect(await readRefusal(resolveHost('tool.test', { privateNetwork: false, lookup }, AbortSignal.abort()))).toContain('could not be resolved in time')
  })
})
