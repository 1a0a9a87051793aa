import { describe, expect, it } from 'vitest'
import { isLoopback, readBrokerUrl } from '../../src/client/url.ts'

describe('readBrokerUrl', () => {
  it.each([
    ['https://stint.example.com', 'https://stint.example.com'],
    ['https://stint.example.com/', 'https://stint.example.com'],
    ['https://stint.example.com:443', 'https://stint.example.com'],
    ['http://127.0.0.1:7846', 'http://127.0.0.1:7846'],
    ['http://localhost:7846/', 'http://localhost:7846'],
    ['http://[::1]:7846', 'http://[::1]:7846'],
    ['http://127.1:80', 'http://127.0.0.1'],
  ])('takes %s', (text, origin) => {
    expect(readBrokerUrl(text, false)).toBe(origin)
  })

  it.each([
    ['', 'no URL'],
    ['stint.example.com', 'no URL'],
    ['file:///etc/passwd', 'https://'],
    ['javascript:alert(1)', 'https://'],
    ['https://admin:hunter2@stint.example.com', 'user or password'],
    ['https://stint.example.com/base', 'an origin alone'],
    ['https://stint.example.com?x=1', 'an origin alone'],
    ['https://stint.example.com#x', 'an origin alone'],
    ['http://stint.example.com', 'plain http'],
    ['http://localhost.example.com', 'plain http'],
    ['http://127.0.0.1.example.com', 'plain http'],
    ['http://10.0.0.1', 'plain http'],
    ['http://[::2]', 'plain http'],
    ['http://0.0.0.0:7846', 'plain http'],
  ])('refuses %s', (text, reason) => {
    expect(() => readBrokerUrl(text, false)).toThrow(reason)
  })

  it('does not repeat a password', () => {
    expect(() => readBrokerUrl('https://admin:hunter2@stint.example.com', false)).not.toThrow(/hunter2/)
  })

  it('takes plain http elsewhere only when told so', () => {
    expect(readBrokerUrl('http://stint:7846', true)).toBe('http://stint:7846')
    expect(() => readBrokerUrl('http://stint:7846', false)).toThrow('(allowInsecure)')
  })
})

describe('isLoopback', () => {
  it.each(['127.0.0.1', '127.255.255.254', 'localhost', '[::1]'])('%s is', (host) => {
    expect(isLoopback(host)).toBe(true)
  })
  it.each(['128.0.0.1', 'xlocalhost', 'localhost.', '127.0.0.1x', '1127.0.0.1', '[::ffff:127.0.0.1]', ''])('%j is not', (host) => {
    expect(isLoopback(host)).toBe(false)
  })
})
