import { describe, expect, test } from 'vitest'
import { groupAddress, readAddress } from '../../src/http/address.ts'

const proxies = ['127.0.0.1', '::1']
const arrival = (remoteAddress: string | undefined, headers: Record<string, string> = {}) => ({ headers, socket: { remoteAddress } })

describe('The address of a request', () => {
  test.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:c000:201', '192.0.2.1'],
    ['2001:db8::1', '2001:db8::1'],
    ['2001:0DB8:0:0:0:0:0:1', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::1', '::1'],
    ['', 'unknown'],
    ['/run/stint.sock', 'unknown'],
    [undefined, 'unknown'],
  ])('of a connection from %s is %s', (remote, address) => {
    expect(readAddress(arrival(remote))).toBe(address)
  })

  test('is what a header says for nobody but the configured proxy', () => {
    const headers = { 'x-forwarded-for': '6.6.6.6', forwarded: 'for=6.6.6.6', 'x-real-ip': '6.6.6.6', 'true-client-ip': '6.6.6.6', via: '6.6.6.6' }
    expect(readAddress(arrival('192.0.2.1', headers))).toBe('192.0.2.1')
    expect(readAddress(arrival('127.0.0.1', headers))).toBe('127.0.0.1')
    expect(readAddress(arrival('192.0.2.1', headers), proxies)).toBe('192.0.2.1')
    expect(readAddress(undefined, proxies)).toBe('unknown')
  })

  test.each([
    ['192.0.2.1', '192.0.2.1'],
    // What the caller sent itself stands before what the proxy has added.
    ['6.6.6.6, 192.0.2.1', '192.0.2.1'],
    ['garbage, 192.0.2.1', '192.0.2.1'],
    [', ,192.0.2.1', '192.0.2.1'],
    ['192.0.2.1, 127.0.0.1', '192.0.2.1'],
    ['6.6.6.6, 192.0.2.1, 127.0.0.1, ::1', '192.0.2.1'],
    ['192.0.2.1:4711', '192.0.2.1'],
    ['2001:db8::1', '2001:db8::1'],
    ['[2001:db8::1]:4711', '2001:db8::1'],
    ['[2001:DB8::1]', '2001:db8::1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1'],
    ['unknown', undefined],
    ['192.0.2.1, unknown', undefined],
    ['192.0.2.1, ', undefined],
    ['192.0.2', undefined],
    ['192.0.2.1.5', undefined],
    ['0300.0.2.1', undefined],
    ['::ffff:192.0.2.1x', undefined],
    ['localhost', undefined],
    ['192.0.2.1;6.6.6.6', undefined],
  ])('is, by the X-Forwarded-For %j of the proxy, %j', (header, address) => {
    const read = () => readAddress(arrival('::ffff:127.0.0.1', { 'x-forwarded-for': header }), proxies)
    if (address === undefined) expect(read).toThrow('does not say from which address')
    else expect(read()).toBe(address)
  })

  test.each([
    ['for=192.0.2.1', '192.0.2.1'],
    ['For="192.0.2.1:4711";proto=https;by=127.0.0.1', '192.0.2.1'],
    ['proto=https; for="[2001:db8::1]:4711"', '2001:db8::1'],
    ['for=6.6.6.6, for=192.0.2.1', '192.0.2.1'],
    ['for=6.6.6.6;x="a, for=192.0.2.1', '192.0.2.1'],
    ['for=192.0.2.1, for=127.0.0.1', '192.0.2.1'],
    ['for=unknown', undefined],
    ['for=_hidden', undefined],
    ['for=192.0.2.1;for=6.6.6.6', undefined],
    ['proto=https', undefined],
    ['192.0.2.1', undefined],
    ['for="192.0.2.1', undefined],
    ['for=2001:db8::1', undefined],
  ])('is, by the Forwarded %j of the proxy, %j', (header, address) => {
    const read = () => readAddress(arrival('::1', { forwarded: header }), proxies)
    if (address === undefined) expect(read).toThrow('does not say from which address')
    else expect(read()).toBe(address)
  })

  test('is refused where the proxy passes on the header that it does not write', () => {
    expect(() => readAddress(arrival('127.0.0.1', { forwarded: 'for=6.6.6.6', 'x-forwarded-for': '192.0.2.1' }), proxies)).toThrow('Both Forwarded and X-Forwarded-For')
  })
})

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['2001:db8:0:0:ffff::', '2001:db8:0:0::/64'],
  ['2001:db8:1:2::', '2001:db8:1:2::/64'],
  ['::1', '0:0:0:0::/64'],
  ['::', '0:0:0:0::/64'],
  ['unknown', 'unknown'],
])('%s counts as %s', (address, group) => {
  expect(groupAddress(address)).toBe(group)
})
