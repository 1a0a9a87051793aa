import pg from 'pg'
import { expect, test } from 'vitest'
import { ConnectorError } from '../../src/connectors/connector.ts'
import { formatUrl, parseRootUrl } from '../../src/connectors/postgres-url.ts'
import { Secret } from '../../src/kernel/secret.ts'

const parse = (url: string, privateNetwork = true) => parseRootUrl(new Secret(url), { tool: 'ledger', privateNetwork })

test.for<[string, Partial<ReturnType<typeof parse>>]>([
  ['postgres://root:secret@db.example.com/app', { host: 'db.example.com', port: 5432, database: 'app', user: 'root', sslmode: undefined }],
  ['postgresql://root:secret@10.0.0.1:6000/app?sslmode=disable', { host: '10.0.0.1', port: 6000, sslmode: 'disable' }],
  ['postgres://root:secret@[2001:db8::1]:6000/app?sslmode=verify-full&sslrootcert=/etc/ca.pem', { host: '2001:db8::1', sslmode: 'verify-full', sslrootcert: '/etc/ca.pem' }],
  ['postgres://r%40t:s%2Fcret%25@host/my%20app', { user: 'r@t', database: 'my app' }],
])('%s is read', ([url, expected]) => {
  expect(parse(url)).toMatchObject(expected)
  expect(JSON.stringify(parse(url))).not.toContain('cret')
})

test.for([
  ['', 'is not'],
  ['mysql://root:secret@host/app', 'is not'],
  ['host=/tmp user=root password=secret', 'is not'],
  ['postgres://root:secret@/app', 'is not|names no host'],
  ['postgres://root:secret@%2Frun%2Fpostgresql/app', 'Unix socket'],
  ['postgres://root:secret@host/app?host=/run', 'Unix socket'],
  ['postgres://root:secret@a,b/app', 'neither one DNS name'],
  ['postgres://root:secret@h%20st/app', 'is not|neither one DNS name'],
  ['postgres://root@host/app', 'lacks the user or the password'],
  ['postgres://:secret@host/app', 'lacks the user or the password'],
  ['postgres://root:secret@host', 'lacks the database'],
  ['postgres://root:secret@host/', 'lacks the database'],
  ['postgres://root:secret@host/a/b', '"/"'],
  ['postgres://root:secret@host/a%3Fb', '"/"'],
  ['postgres://root:se%ffcret@host/app', 'begins no escape'],
  ['postgres://root:secret@host/app%00', 'control character'],
  ['postgres://root:secret@host/app#x', 'fragment'],
  ['postgres://root:secret@host/app?options=-c%20x', 'parameter "options"'],
  ['postgres://root:secret@host/app?password=secret', 'parameter "password"'],
  ['postgres://root:secret@host/app?sslmode=prefer', 'none of disable, require, verify-full'],
  ['postgres://root:secret@host/app?sslmode=no-verify', 'none of disable, require, verify-full'],
  ['postgres://root:secret@host/app?sslmode=require&sslmode=disable', 'twice'],
  ['postgres://root:secret@host/app?sslrootcert=ca.pem', 'whole path'],
])('%s is refused: %s', ([url = '', why = '']) => {
  expect(() => parse(url)).toThrow(ConnectorError)
  expect(() => parse(url)).toThrow(new RegExp(why))
  expect(() => parse(url)).not.toThrow(/se.{0,3}cret@/)
})

test('without TLS only where the catalog allows a private network', () => {
  expect(() => parse('postgres://root:secret@host/app?sslmode=disable', false)).toThrow(/needs private_network: true/)
  expect(parse('postgres://root:secret@host/app', false).sslmode).toBeUndefined()
})

test.for(['app', 'my app', '100%', 'a%20b', 'ünïcode', 'a\\b', 'a;b:c@d=e&f,g', '"quoted"', `it's`])('a client reads the database %s from the URL as it is', (database) => {
  const whole = { host: '2001:db8::1', port: 6000, user: 'us@r:%/', password: new Secret('p@ss:/?#%'), database, sslmode: 'verify-full' } as const
  const client = new pg.Client(formatUrl(whole).reveal())
  expect(client).toMatchObject({ host: '2001:db8::1', port: 6000, user: 'us@r:%/', database })
  expect(client.password).toBe('p@ss:/?#%')
  expect(parse(formatUrl(whole).reveal())).toMatchObject({ host: '2001:db8::1', port: 6000, user: 'us@r:%/', database, sslmode: 'verify-full' })
})
