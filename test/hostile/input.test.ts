import { describe, expect, test } from 'vitest'
import { routes } from '../../src/http/app.ts'
import type { Route } from '../../src/http/route.ts'
import { bodyBytesMax } from '../../src/http/body.ts'
import { pathOf } from '../http/admin-requests.ts'
import { createAgent, issuer, startBroker, type TestBroker } from '../broker.ts'

const json = routes.filter(({ body }) => body?.type === 'json')
const forms = routes.filter(({ body }) => body?.type === 'form')
const utf8 = (text: string) => new Uint8Array(Buffer.from(text))
const latin1 = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'))
const depth = (levels: number, inner = '1') => `${'{"a":'.repeat(levels)}${inner}${'}'.repeat(levels)}`

type Proof = Readonly<Record<string, string>>

/** What gets a request as far as its input: an admin's credential, or where workloads call an assertion, which is looked at later. */
function proofFor({ access }: Pick<Route, 'access'>, { adminCredential }: TestBroker): Proof {
  return access === 'agent' ? { 'client-assertion': 'made-up' } : { authorization: `Bearer ${adminCredential}` }
}

/** Sends exactly these bytes, and gives the answer's status and text. */
async function send(broker: TestBroker, method: string, path: string, body: Uint8Array<ArrayBuffer>, type: string, proof: Proof = {}) {
  const response = await broker.app.request(path, {
    method,
    headers: { 'content-type': type, 'content-length': String(body.length), ...proof },
    body,
  })
  return { status: response.status, text: await response.text() }
}

/** What is wrong with a JSON body whatever the route, and what the answer says of it. */
const badJson: Readonly<Record<string, readonly [Uint8Array<ArrayBuffer>, RegExp]>> = {
  'nothing': [utf8(''), /is not valid JSON/],
  'half an object': [utf8('{"a":'), /is not valid JSON/],
  'something behind it': [utf8('{} x'), /is not valid JSON/],
  'a comment': [utf8('{/* a */}'), /is not valid JSON/],
  'single quotes': [utf8("{'a':1}"), /is not valid JSON/],
  'a trailing comma': [utf8('{"a":1,}'), /is not valid JSON/],
  'NaN': [utf8('{"a":NaN}'), /is not valid JSON/],
  'a control character in text': [utf8('{"a":"\u0001"}'), /is not valid JSON/],
  'a line feed in text': [utf8('{"a":"\n"}'), /is not valid JSON/],
  'a byte order mark': [utf8('\ufeff{}'), /is not valid JSON/],
  'a number with a leading zero': [utf8('{"a":01}'), /is not valid JSON/],
  'invalid UTF-8': [latin1('{"a":"\xff"}'), /is not UTF-8/],
  'overlong UTF-8': [latin1('{"a":"\xc0\xaf"}'), /is not UTF-8/],
  'a surrogate in UTF-8': [latin1('{"a":"\xed\xa0\x80"}'), /is not UTF-8/],
  'UTF-16': [new Uint8Array(Buffer.from('{"a":1}', 'utf16le')), /is not valid JSON/],
  'UTF-16 with its mark': [latin1('\xff\xfe{\0}\0'), /is not UTF-8/],
  'half of a surrogate pair': [utf8('{"a":"\\ud800"}'), /surrogate/],
  'half of a pair in a name': [utf8('{"\\udc00":1}'), /surrogate/],
  'a member twice': [utf8('{"a":1,"a":1}'), /twice/],
  'a member twice, once escaped': [utf8('{"a":1,"\\u0061":1}'), /twice/],
  'a member twice, deep inside': [utf8('{"a":[{"b":{"c":1,"c":1}}]}'), /twice/],
  '__proto__ twice': [utf8('{"__proto__":1,"__proto__":1}'), /twice/],
  '33 levels': [utf8(depth(33)), /32 levels/],
  '10,000 levels': [utf8(depth(5_000)), /32 levels/],
  '10,000 open brackets': [utf8('['.repeat(10_000)), /32 levels/],
  'a list': [utf8('[]'), /one JSON object/],
  'a text': [utf8('"{}"'), /one JSON object/],
  'null': [utf8('null'), /one JSON object/],
}

/** What fits no schema: an unknown member is named in the answer, but for what a verb reads itself. */
const misfits: Readonly<Record<string, string>> = {
  'an unknown member': '{"zz":1}',
  '__proto__': '{"__proto__":{"role":"admin"}}',
  'constructor': '{"constructor":{"prototype":{"role":"admin"}}}',
  'a method of every object': '{"toString":1,"hasOwnProperty":1}',
  'the empty name': '{"":1}',
  'NUL in a name': '{"a\\u0000":1}',
  'a name with markup': '{"<script>alert(1)</script>":1}',
  'a name of 60,000 characters': `{"${'a'.repeat(60_000)}":1}`,
  '5,000 members': `{${Array.from({ length: 5_000 }, (_, i) => `"a${i}":1`).join(',')}}`,
  '32 levels': depth(32),
}

/** Values that no member takes, or only some. */
const values: Readonly<Record<string, string>> = {
  'a number beyond 2^53': '9007199254740993',
  'a number beyond all numbers': '1e999',
  'a negative zero': '-0',
  'a fraction': '0.1',
  'null': 'null',
  'true': 'true',
  'a list': '[[],{}]',
  'an object': '{"__proto__":1}',
  'the empty text': '""',
  'NUL': '"a\\u0000b"',
  'an escape sequence': '"\\u001b[2J"',
  'a line separator': '"a\\u2028b"',
  'a right-to-left mark': '"\\u202egnp"',
  'a long text': `"${'a'.repeat(50_000)}"`,
}

async function setUp() {
  const broker = await startBroker('sqlite')
  await broker.register('bot')
  // So that what happens to take an acceptable shape does not end the only credential.
  return { broker, path: (route: { path: string }) => pathOf({ path: route.path.replace(':id', '0123456789abcdef').replace(':name', 'none') }) }
}

function expectClear(call: readonly unknown[], { status, text }: { status: number; text: string }): void {
  expect([...call, status, text, status >= 400 && status < 500]).toEqual([...call, status, text, true])
  const answer = JSON.parse(text) as Record<string, unknown>
  expect([...call, typeof (answer['detail'] ?? answer['error_description'])]).toEqual([...call, 'string'])
  // No stack, nothing of the machine; nor is what was sent given back at length.
  expect(text).not.toMatch(/node_modules|\.ts\b|\n\s+at |SQLITE|ZodError/)
  expect([...call, text.length < 8_000]).toEqual([...call, true])
}

describe('Every route that takes JSON', () => {
  test('says of a body that is none what is wrong with it', async () => {
    const { broker, path } = await setUp()
    for (const route of json) {
      for (const [name, [body, message]] of Object.entries(badJson)) {
        const answer = await send(broker, route.method, path(route), body, 'application/json', proofFor(route, broker))
        expectClear([route.path, name], answer)
        expect([route.path, name, answer.status, answer.text]).toEqual([route.path, name, 400, expect.stringMatching(message)])
      }
      for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=a', 'application/json; charset=latin1', 'application/jsonx', '']) {
        const answer = await send(broker, route.method, path(route), utf8('{}'), type, proofFor(route, broker))
        expect([route.path, type, answer.status]).toEqual([route.path, type, 415])
      }
    }
    expect(broker.logLines.filter((line) => line.includes('"level":"error"'))).toEqual([])
  })

  test('refuses what does not fit, and never fails over it', async () => {
    const { broker, path } = await setUp()
    for (const route of json) {
      for (const [name, body] of Object.entries(misfits)) {
        const answer = await send(broker, route.method, path(route), utf8(body), 'application/json', proofFor(route, broker))
        expectClear([route.path, name], answer)
        expect([route.path, name, [400, 401, 422].includes(answer.status), answer.status]).toEqual([route.path, name, true, answer.status])
      }
      // Each member by itself takes each value, or refuses it.
      for (const member of Object.keys(route.body?.schema.shape ?? {})) {
        for (const [name, value] of Object.entries(values)) {
          const call = [route.path, member, name]
          const { status, text } = await send(broker, route.method, path(route), utf8(`{"${member}":${value}}`), 'application/json', proofFor(route, broker))
          expect([...call, status, text.slice(0, 300), status < 500]).toEqual([...call, status, text.slice(0, 300), true])
          expect(text).not.toMatch(/node_modules|\.ts\b|\n\s+at |SQLITE|ZodError/)
        }
      }
    }
    expect(({} as Record<string, unknown>)['role']).toBeUndefined()
    expect(broker.logLines.filter((line) => line.includes('"level":"error"'))).toEqual([])
  }, 60_000)
})

describe('Every route that takes a form', () => {
  const bad: Readonly<Record<string, string>> = {
    'no value': 'grant_type',
    'no name': '=x',
    'an empty value': 'client_id=',
    'an empty pair': 'client_id=a&&client_assertion=b',
    'bad percent-encoding': 'client_id=%zz',
    'half a percent-encoding': 'client_id=%a',
    'invalid UTF-8': 'client_id=%ff',
    'overlong UTF-8': 'client_id=%c0%af',
    'an unknown name': 'zz=1',
    'an unknown name, escaped': '%7a=1',
    '__proto__': '__proto__=1',
    'constructor': 'constructor=1',
    'a name with a bracket': 'client_id[]=1',
    'a name twice': 'client_id=a&client_id=a',
    'a name twice, once escaped': 'client_id=a&client%5fid=a',
    'semicolons': 'client_id=a;client_assertion=b',
    '8,000 names': Array.from({ length: 8_000 }, (_, i) => `a${i}=1`).join('&'),
    'JSON': '{"client_id":"a"}',
  }

  test('refuses what does not fit, and never fails over it', async () => {
    const { broker } = await setUp()
    for (const { method, path } of forms) {
      for (const [name, body] of Object.entries(bad)) {
        const answer = await send(broker, method, path, utf8(body), 'application/x-www-form-urlencoded')
        expectClear([path, name], answer)
        expect([path, name, answer.status, answer.text]).toEqual([path, name, 400, expect.stringContaining('"error":"invalid_request"')])
      }
      for (const body of [latin1('client_id=\xff'), new Uint8Array(10)]) {
        expect((await send(broker, method, path, body, 'application/x-www-form-urlencoded')).status).toBe(400)
      }
      for (const type of ['application/json', 'text/plain', 'multipart/form-data; boundary=a', 'application/x-www-form-urlencoded; charset=utf-16']) {
        expect([type, (await send(broker, method, path, utf8('{}'), type)).status]).toEqual([type, 400])
      }
    }
    expect(broker.logLines.filter((line) => line.includes('"level":"error"'))).toEqual([])
  })

  test('takes any value that it can read, and refuses it for what it means', async () => {
    const { broker } = await setUp()
    const agent = await createAgent('bot', issuer, broker.clock)
    for (const { method, path, body } of forms) {
      for (const member of Object.keys(body?.schema.shape ?? {})) {
        for (const value of ['\0', 'a\0b', '\u001b[2J', '\ud83d\ude00', 'ｂｏｔ', "' or 1=1 --", '../../etc/passwd', '{"a":', '[{"type":"stint"}]', 'x'.repeat(50_000)]) {
          const form = new URLSearchParams({ ...(path.endsWith('token') ? agent.form({ grant_type: 'client_credentials' }) : agent.form({ token: 'x' })), [member]: value })
          const { status, text } = await send(broker, method, path, utf8(form.toString()), 'application/x-www-form-urlencoded')
          expect([path, member, value.slice(0, 20), [400, 401].includes(status), status]).toEqual([path, member, value.slice(0, 20), true, status])
          expect([path, member, text.length < 1_000]).toEqual([path, member, true])
        }
      }
    }
    expect(broker.logLines.filter((line) => line.includes('"level":"error"'))).toEqual([])
  }, 60_000)
})

describe('Every query', () => {
  test('is refused where it cannot be read, is too much, or is not taken', async () => {
    const { broker } = await setUp()
    const queries = ['%zz=1', 'a=%zz', 'a=%ff', 'a=%c0%af', 'a', '=a', '&', 'a=1&&b=2', 'zz=1', '__proto__=1', 'constructor=1', '%00=1', `${'a=1&'.repeat(40)}b=2`, 'limit=1&limit=2', 'limit=1&l%69mit=2', `zz=${'a'.repeat(10_000)}`, 'limit[]=1', 'limit=1;zz=2']
    for (const route of routes.filter(({ method, body }) => method === 'GET' || body?.type === 'form')) {
      for (const query of queries) {
        const response = await broker.sendAsAdmin(route.method, `${pathOf(route)}?${query}`)
        const text = await response.text()
        expect([route.path, query.slice(0, 40), response.status, text.slice(0, 300)]).toEqual([route.path, query.slice(0, 40), 400, text.slice(0, 300)])
        expect(text.length).toBeLessThan(4_000)
      }
      for (const member of Object.keys(route.query?.shape ?? {})) {
        for (const value of ['%00', '%0a', '%1b[2J', '%e2%80%ae', '9007199254740993', '-1', '1e9', '%2e%2e', 'a'.repeat(5_000), '+', '%F0%9F%98%80', '']) {
          const { status } = await broker.sendAsAdmin(route.method, `${pathOf(route)}?${member}=${value}`)
          expect([route.path, member, value.slice(0, 20), status < 500]).toEqual([route.path, member, value.slice(0, 20), true])
        }
      }
    }
    expect(broker.logLines.filter((line) => line.includes('"level":"error"'))).toEqual([])
  })
})

test('A body at the limit is read, and one byte more is not', async () => {
  const { broker } = await setUp()
  const asAdmin = proofFor({ access: ['admin'] }, broker)
  const body = (bytes: number) => utf8(`{"zz":"${'a'.repeat(bytes - 9)}"}`)
  expect((await send(broker, 'POST', '/v1/workloads', body(bodyBytesMax), 'application/json', asAdmin)).status).toBe(400)
  expect((await send(broker, 'POST', '/v1/workloads', body(bodyBytesMax + 1), 'application/json', asAdmin)).status).toBe(413)
})
