import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { z } from 'zod'
import { openRotator } from '../../../src/connectors/rotators/open-rotator.ts'
import type { Rotator } from '../../../src/connectors/rotators/rotator.ts'
import { Secret } from '../../../src/kernel/secret.ts'
import { rotatorSchema } from '../../../src/policy/kinds/rotators.ts'
import { listen } from '../../listen.ts'
import { failure, within } from '../postgres-tool.ts'
import { createToolContext } from '../tool-context.ts'

const run = '0b0e2f6a-6d7c-4c53-9e50-4d6f3a5c9c11'
const admin = 'the-admin-token'
const first = new Secret('the-first-key')

interface Heard {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** An API with keys, each of which is a bearer token: it makes, takes, tries and deletes them. */
async function startApi({ keys = [first.reveal()], onlyOne = false }: { readonly keys?: string[]; readonly onlyOne?: boolean } = {}) {
  const heard: Heard[] = []
  const state = { keys: new Set(keys), made: 0, fault: undefined as ((answer: ServerResponse, request: Heard) => boolean) | undefined }
  const origin = await listen((incoming, answer) => {
    void (async () => {
      const body = Buffer.concat(await incoming.toArray()).toString()
      const request = { method: incoming.method ?? '', url: incoming.url ?? '', headers: incoming.headers, body }
      heard.push(request)
      const done = (status: number, text = '') => (state.fault?.(answer, request) === true ? undefined : answer.writeHead(status, { 'content-type': 'application/json' }).end(text))
      const bearer = incoming.headers.authorization?.replace('Bearer ', '') ?? ''
      const isKnown = state.keys.has(bearer) || bearer === admin
      if (!isKnown) return done(401)
      if (request.method === 'GET') return done(200, '{}')
      const json = JSON.parse(body || '{}') as { key?: string }
      if (request.method === 'PUT') {
        if (onlyOne) state.keys.clear()
        state.keys.add(json.key ?? '')
        return done(204)
      }
      if (request.method === 'DELETE') return done(state.keys.delete(json.key ?? '') ? 204 : 404)
      const key = `made-key-${++state.made}`
      state.keys.add(key)
      return done(201, JSON.stringify({ data: [{ key }], 'a/b': { 'c~d': key } }))
    })()
  })
  return { origin, heard, ...state, state }
}

type Settings = NonNullable<z.input<typeof rotatorSchema>['http']>

function open(http: Settings): Rotator {
  const rotator = openRotator(rotatorSchema.parse({ http: { private_network: true, ...http } }), { tool: { name: 'billing-api' }, context: createToolContext({ readSecret: async () => new Secret(admin) }) })
  onTestFinished(() => rotator.close())
  return rotator
}

const bearer = (name: string) => ({ authorization: `Bearer {${name}}` })
const json = { key: '{pending}' }
const auth = { from: 'env:ADMIN' }

describe('calls of an HTTP API', () => {
  test('a value that Stint makes is set, tried out and the old one revoked', async () => {
    const { origin, heard, state } = await startApi()
    const rotator = open({
      generate: { length: 40, alphabet: 'abcdefghij' },
      set: { method: 'PUT', url: `${origin}/key?api-version=2`, headers: bearer('auth'), json, expect: [204] },
      test: { method: 'GET', url: `${origin}/me`, headers: bearer('pending') },
      revoke: { method: 'DELETE', url: `${origin}/key`, headers: bearer('current'), json: { key: '{retired}', reason: 'replaced' }, expect: [204, 404] },
      auth,
    })
    expect(await rotator.check?.(first, within())).toEqual([{ ok: true, sentence: `GET ${origin} knows the value in force, by the call that tries new ones out.` }])
    expect(await rotator.check?.(new Secret('unknown'), within())).toEqual([{ ok: false, sentence: expect.stringContaining(`GET ${origin}/me answered 401 to the value in force`) }])
    heard.length = 0
    const next = await rotator.create(run, first, within())
    expect(next.reveal()).toMatch(/^[a-j]{40}$/)
    expect((await rotator.create(run, first, within())).reveal()).not.toBe(next.reveal())
    expect(heard).toEqual([])
    expect(await rotator.test(next, within())).toEqual({ ok: false, why: `GET ${origin}/me answered 401 to the new value.` })
    for (let i = 0; i < 2; i++) await rotator.set(run, next, first, within())
    expect(await rotator.test(next, within())).toEqual({ ok: true })
    expect([...state.keys]).toEqual([first.reveal(), next.reveal()])
    for (let i = 0; i < 2; i++) await rotator.retire?.(first, next, { cutOff: false }, within())
    expect([...state.keys]).toEqual([next.reveal()])
    const [, put] = heard
    expect(put).toMatchObject({ method: 'PUT', url: '/key?api-version=2', headers: { authorization: `Bearer ${admin}`, 'content-type': 'application/json', 'idempotency-key': `${run}-set` }, body: JSON.stringify({ key: next.reveal() }) })
    expect(heard.at(-1)).toMatchObject({ headers: { authorization: `Bearer ${next.reveal()}` }, body: JSON.stringify({ key: first.reveal(), reason: 'replaced' }) })
    expect(heard.at(-1)?.headers['idempotency-key']).toBeUndefined()
    for (const { url } of heard) for (const secret of [next.reveal(), first.reveal(), admin]) expect(url).not.toContain(secret)
  })

  test('a value that the API makes is read from its answer', async () => {
    const { origin, heard, state } = await startApi()
    const settings = (answer: string): Settings => ({
      create: { call: { method: 'POST', url: `${origin}/keys`, headers: bearer('current') }, answer },
      test: { method: 'GET', url: `${origin}/me`, headers: bearer('pending') },
      revoke: { method: 'DELETE', url: `${origin}/key`, headers: bearer('current'), json: { key: '{retired}' }, expect: [204, 404] },
    })
    const rotator = open(settings('/data/0/key'))
    const next = await rotator.create(run, first, within())
    expect(next.reveal()).toBe('made-key-1')
    expect(heard[0]?.headers['idempotency-key']).toBe(`${run}-create`)
    await rotator.set(run, next, first, within())
    expect(heard).toHaveLength(1)
    expect(await rotator.test(next, within())).toEqual({ ok: true })
    await rotator.retire?.(first, next, { cutOff: true }, within())
    expect([...state.keys]).toEqual(['made-key-1'])
    expect((await open(settings('/a~1b/c~0d')).create(run, next, within())).reveal()).toBe('made-key-2')
    for (const pointer of ['/data', '/data/1/key', '/nowhere', '/data/length', '/data/0/constructor']) {
      expect(await failure(open(settings(pointer)).create(run, next, within()))).toMatchObject({
        outcome: 'unknown',
        publicMessage: `POST ${origin}/keys answered 201, and its answer has no text at ${pointer}. A value that nobody holds may be left behind there: an admin looks for it and deletes it.`,
      })
    }
  })

  test('set again after its answer was lost is known by the new value being good, where the old one is no more', async () => {
    const { origin, state } = await startApi({ onlyOne: true })
    const rotator = open({
      generate: {},
      set: { method: 'PUT', url: `${origin}/key`, headers: bearer('current'), json },
      test: { method: 'GET', url: `${origin}/me`, headers: bearer('pending') },
    })
    expect(rotator.retire).toBeUndefined()
    const next = await rotator.create(run, first, within())
    state.fault = (answer) => {
      state.fault = undefined
      answer.destroy()
      return true
    }
    expect(await failure(rotator.set(run, next, first, within()))).toMatchObject({ outcome: 'unknown' })
    await rotator.set(run, next, first, within())
    expect(await failure(rotator.set(run, new Secret('another'), first, within()))).toMatchObject({
      outcome: 'nothing_done',
      publicMessage: `PUT ${origin}/key answered 401, which its catalog file does not expect: the value in force is as it was, as far as is known.`,
    })
  })

  test.for([
    ['"quoted" \\ {current} & = 100%\u2028', 'in JSON and in a form'],
    ['","admin":true,"x":"', 'that would add a member'],
    ['a=b&admin=1', 'that would add a field'],
  ] as const)('%s: a value %s is escaped as its place asks for', async ([text]) => {
    const bodies: Heard[] = []
    const origin = await listen((incoming, answer) => {
      void (async () => {
        bodies.push({ method: '', url: '', headers: incoming.headers, body: Buffer.concat(await incoming.toArray()).toString() })
        answer.end()
      })()
    })
    const call = { method: 'POST' as const, url: `${origin}/x` }
    const rotator = open({
      generate: {},
      set: { ...call, json: { key: '{pending}', list: ['old {current}', 1, null], inner: { '{current}': '{pending}' } } },
      test: { ...call, form: { key: '{pending}', fixed: 'a b' } },
    })
    await rotator.set(run, new Secret(text), first, within())
    await rotator.test(new Secret(text), within())
    expect(JSON.parse(bodies[0]?.body ?? '')).toEqual({ key: text, list: ['old the-first-key', 1, null], inner: { '{current}': text } })
    expect([...new URLSearchParams(bodies[1]?.body)]).toEqual([['key', text], ['fixed', 'a b']])
    expect(bodies[1]?.headers['content-type']).toBe('application/x-www-form-urlencoded')
  })

  test('HTTP Basic, and headers that a value cannot break out of', async () => {
    const { origin, heard } = await startApi()
    const rotator = open({
      generate: {},
      set: { method: 'PUT', url: origin, headers: { 'x-key': '{pending}' } },
      test: { method: 'GET', url: origin, basic: { user: 'stint', password: '{pending}' }, expect: [401] },
    })
    expect(await rotator.test(new Secret('a:b ü'), within())).toEqual({ ok: true })
    expect(heard[0]?.headers.authorization).toBe(`Basic ${Buffer.from('stint:a:b ü').toString('base64')}`)
    for (const text of ['a\r\nx-admin: 1', 'a\nb', 'ü', '\0']) {
      const error = await failure(rotator.set(run, new Secret(text), first, within()))
      expect(error).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('in the header x-key') })
      expect(error.publicMessage).not.toContain(text)
    }
    expect(heard).toHaveLength(1)
  })

  test('what says nothing of the value is no verdict on it', async () => {
    const { origin, state } = await startApi()
    const call = { method: 'GET' as const, url: `${origin}/me`, headers: bearer('pending') }
    const rotator = open({ generate: {}, set: { method: 'PUT', url: `${origin}/key`, headers: bearer('current'), json }, test: call })
    const answerWith = (status: number, headers = {}) => {
      state.fault = (answer) => {
        answer.writeHead(status, headers).end('the-first-key')
        return true
      }
    }
    answerWith(503, { 'retry-after': '7' })
    expect(await failure(rotator.test(first, within()))).toMatchObject({ outcome: 'unknown', retryAfterSeconds: 7, publicMessage: `GET ${origin}/me answered 503: it is worth another try.` })
    answerWith(429)
    expect(await failure(rotator.set(run, first, first, within()))).toMatchObject({ outcome: 'nothing_done' })
    answerWith(302, { location: `${origin}/elsewhere` })
    expect(await rotator.test(first, within())).toEqual({ ok: false, why: `GET ${origin}/me answered 302 to the new value.` })
    answerWith(403)
    expect(await rotator.test(first, within())).toEqual({ ok: false, why: `GET ${origin}/me answered 403 to the new value.` })
    state.fault = () => true
    const slow = await failure(rotator.set(run, first, first, within(300)))
    expect(slow).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('did not answer in time') })
    const down = open({ generate: {}, set: { ...call, method: 'PUT', url: 'http://127.0.0.1:1/' }, test: call })
    expect(await failure(down.set(run, first, first, within()))).toMatchObject({ outcome: 'nothing_done', publicMessage: expect.stringContaining('cannot be reached') })
    expect(`${slow.stack}${JSON.stringify(slow)}`).not.toContain(first.reveal())
  })

  test('a lost answer to the making of a key says what may be left behind', async () => {
    const { origin, state } = await startApi()
    const rotator = open({
      create: { call: { method: 'POST', url: `${origin}/keys`, headers: bearer('current') }, answer: '/data/0/key' },
      test: { method: 'GET', url: `${origin}/me`, headers: bearer('pending') },
      revoke: { method: 'DELETE', url: `${origin}/key`, headers: bearer('current'), json: { key: '{retired}' } },
    })
    state.fault = (answer) => {
      answer.destroy()
      return true
    }
    expect(await failure(rotator.create(run, first, within()))).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('A value that nobody holds may be left behind there') })
    state.fault = undefined
    const refused = await failure(rotator.create(run, new Secret('unknown-key'), within()))
    expect(refused).toMatchObject({ outcome: 'nothing_done', publicMessage: `POST ${origin}/keys answered 401, which its catalog file does not expect: nothing was made, as far as is known.` })
  })

  test('what is revoked already is no failure, and what only seems so is one', async () => {
    const { origin, state } = await startApi()
    const rotator = open({
      create: { call: { method: 'POST', url: `${origin}/keys`, headers: bearer('current') }, answer: '/data/0/key' },
      test: { method: 'GET', url: `${origin}/me`, headers: bearer('pending') },
      revoke: { method: 'DELETE', url: `${origin}/key`, headers: bearer('current'), json: { key: '{retired}' }, expect: [204] },
    })
    const next = await rotator.create(run, first, within())
    const retire = () => rotator.retire?.(first, next, { cutOff: false }, within()) ?? Promise.resolve()
    state.fault = (answer, { method }) => {
      if (method === 'DELETE') answer.destroy()
      return method === 'DELETE'
    }
    expect(await failure(retire())).toMatchObject({ outcome: 'unknown' })
    state.fault = undefined
    // The API answers 404.
    await retire()
    await rotator.abandon?.(first, next, { kept: false }, within())
    state.keys.add(first.reveal())
    state.fault = (answer, { method }) => {
      if (method !== 'DELETE') return false
      state.keys.add(first.reveal())
      answer.writeHead(403).end()
      return true
    }
    expect((await failure(retire())).publicMessage).toContain('answered 403, which its catalog file does not expect: the value that was replaced, or given up, may still be good.')
    // The call that tries values out tells none from another.
    state.fault = (answer) => {
      answer.writeHead(403).end()
      return true
    }
    expect((await failure(retire())).publicMessage).toContain('may still be good')
  })

  test('given up, a value that took the place of the one in force gives it back', async () => {
    const { origin, state, heard } = await startApi({ onlyOne: true })
    const rotator = open({
      generate: {},
      set: { method: 'PUT', url: `${origin}/key`, headers: bearer('current'), json },
      test: { method: 'GET', url: `${origin}/me`, headers: bearer('pending') },
    })
    const next = await rotator.create(run, first, within())
    const giveUp = (kept = true) => rotator.abandon?.(next, first, { kept }, within()) ?? Promise.resolve()
    // It was never set: by it nothing can be asked.
    await giveUp()
    expect([...state.keys]).toEqual([first.reveal()])
    await rotator.set(run, next, first, within())
    heard.length = 0
    await giveUp(false)
    expect(heard).toEqual([])
    state.fault = (answer) => {
      answer.writeHead(403).end()
      return true
    }
    expect(await failure(giveUp())).toMatchObject({ outcome: 'unknown', publicMessage: expect.stringContaining('to the value in force, which may have been replaced there by the new one, and could not be put back: both are kept') })
    state.fault = undefined
    state.keys.clear()
    state.keys.add(next.reveal())
    for (let i = 0; i < 2; i++) await giveUp()
    expect([...state.keys]).toEqual([first.reveal()])
  })

  test('only hosts within the rules for all outbound calls are called', async () => {
    const { origin, heard } = await startApi()
    const rotator = open({ generate: {}, set: { method: 'PUT', url: origin, json }, test: { method: 'GET', url: origin, headers: bearer('pending') }, private_network: false })
    expect((await failure(rotator.set(run, first, first, within()))).publicMessage).toContain('private_network: true')
    expect(heard).toEqual([])
  })
})

describe('the settings of an HTTP rotator', () => {
  const call = { method: 'PUT', url: 'https://api.test/key' }
  const good = { generate: {}, set: { ...call, json }, test: { ...call, method: 'GET', headers: bearer('pending') } }
  const made = { create: { call: { ...call, method: 'POST' }, answer: '/key' }, test: good.test }
  const wrong: Record<string, unknown> = {
    'a secret in the URL': { ...good, set: { ...call, url: 'https://api.test/key/{pending}', json } },
    'an escaped one': { ...good, set: { ...call, url: 'https://api.test/key?k=%7Bpending%7D', json } },
    'plain http': { ...good, set: { ...call, url: 'http://api.test/key', json } },
    'a password in the URL': { ...good, set: { ...call, url: 'https://a:b@api.test/key', json } },
    'an unknown name': { ...good, set: { ...call, json: { key: '{pending}', other: '{password}' } } },
    'the pending value where there is none yet': { ...made, create: { call: { ...call, json }, answer: '/key' }, revoke: { ...call, json: { key: '{retired}' } } },
    'no set for what Stint generates': { generate: {}, test: good.test },
    'a set that says nothing of the new value': { ...good, set: { ...call, json: { key: 'x' } } },
    'a test that tries nothing out': { ...good, test: { ...call, method: 'GET' } },
    'a value that the API makes and nobody revokes': made,
    'both ways to a value': { ...good, ...made },
    'no way to a value': { set: good.set, test: good.test },
    'too few bits': { ...good, generate: { length: 16, alphabet: '0123456789' } },
    'a character twice': { ...good, generate: { length: 64, alphabet: '00123456789' } },
    '{auth} without auth': { ...good, set: { ...call, headers: bearer('auth'), json } },
    'the new value as the name of a member': { ...good, set: { ...call, json: { '{pending}': 'x' } } },
    'a body with GET': { ...good, test: { method: 'GET', url: call.url, json } },
    'two bodies': { ...good, set: { ...call, json, form: json } },
    'a header that is none': { ...good, set: { ...call, json, headers: { 'a b': 'c' } } },
    'something unknown': { ...good, hosts: ['api.test'] },
  }
  test.for(Object.entries(wrong))('with %s are refused', ([, http]) => {
    expect(rotatorSchema.safeParse({ http: good }).success).toBe(true)
    expect(rotatorSchema.safeParse({ http: { ...made, revoke: { ...call, json: { key: '{retired}' } } } }).success).toBe(true)
    expect(rotatorSchema.safeParse({ http }).success).toBe(false)
  })

  test('name exactly one rotator', () => {
    expect(rotatorSchema.safeParse({}).success).toBe(false)
    expect(rotatorSchema.safeParse({ http: good, command: { name: 'x' } }).success).toBe(false)
    expect(rotatorSchema.safeParse({ command: { name: 'x' } }).success).toBe(true)
  })
})
