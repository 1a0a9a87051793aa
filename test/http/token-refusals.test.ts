import { describe, expect, test } from 'vitest'
import { startBroker } from '../broker.ts'
import { countGrants, details, post } from './oauth-requests.ts'

const good = { actions: ['tickets:read'] }
const payment = { actions: ['payments:read'], target: 'acct-1' }
const scopeForm = /one space between/
const noAction = /^There is no action/
const wrongTarget = /matches acct-\[0-9\]\+/
const wrongTtl = /^The ttl_seconds are a whole number, at least 1\.$/
const oneObject = /array of exactly one object/
const wrongTask = /^The task is a name of 1 to 128/

/** What a proven workload asks for, and why it is refused: parameters, error code, description. */
const requests: Record<string, [Record<string, string>, string, RegExp]> = {
  'neither scope nor details': [{}, 'invalid_request', /either in scope or in authorization_details/],
  'both': [{ scope: 'tickets:read', authorization_details: details(good) }, 'invalid_request', /in exactly one of them/],

  'scope in other case': [{ scope: 'Tickets:Read' }, 'invalid_scope', /no action Tickets:Read;.*exactly that case/],
  'scope of another verb': [{ scope: 'tickets:write' }, 'invalid_scope', noAction],
  'wildcard': [{ scope: 'tickets:*' }, 'invalid_scope', noAction],
  'everything': [{ scope: '*' }, 'invalid_scope', noAction],
  'a group by sensitivity': [{ scope: 'sensitivity:high' }, 'invalid_scope', noAction],
  'a tool alone': [{ scope: 'tickets' }, 'invalid_scope', noAction],
  'a tool and a colon': [{ scope: 'tickets:' }, 'invalid_scope', noAction],
  'a colon and a verb': [{ scope: ':read' }, 'invalid_scope', noAction],
  'a prototype\'s member': [{ scope: '__proto__:constructor' }, 'invalid_scope', noAction],
  'trailing space': [{ scope: 'tickets:read ' }, 'invalid_scope', scopeForm],
  'leading space': [{ scope: ' tickets:read' }, 'invalid_scope', scopeForm],
  'double space': [{ scope: 'tickets:read  tickets:comment' }, 'invalid_scope', scopeForm],
  'only a space': [{ scope: ' ' }, 'invalid_scope', scopeForm],
  'tab': [{ scope: 'tickets:read\ttickets:comment' }, 'invalid_scope', noAction],
  'newline': [{ scope: 'tickets:read\n' }, 'invalid_scope', noAction],
  'comma': [{ scope: 'tickets:read,tickets:comment' }, 'invalid_scope', noAction],
  'NUL': [{ scope: 'tickets:read\0' }, 'invalid_scope', noAction],
  'a letter that looks alike': [{ scope: 'tіckets:read' }, 'invalid_scope', noAction],
  'quotes and control characters come back tamed': [{ scope: '"\\\r\nset-cookie:x' }, 'invalid_scope', /no action \?\?\?\?set-cookie:x;/],
  'two tools': [{ scope: 'tickets:read payments:read' }, 'invalid_scope', /one tool, but this one names tickets and payments/],
  'an action twice': [{ scope: 'tickets:read tickets:read' }, 'invalid_scope', /tickets:read is named twice/],
  'names longer than a token': [{ scope: Array.from({ length: 32 }, (_, i) => `tickets:${String(i).padStart(63, 'a')}`).join(' ') }, 'invalid_scope', /2048 characters together/],
  '33 actions': [{ scope: Array.from({ length: 33 }, (_, i) => `tickets:a${i}`).join(' ') }, 'invalid_scope', /^At most 32 actions/],
  'a scope that needs a target': [{ scope: 'payments:read' }, 'invalid_request', /^The tool payments needs a target.*authorization_details/],

  'a relative resource': [{ scope: 'tickets:read', resource: '/tickets' }, 'invalid_target', /not the audience of any tool/],
  'an unknown resource': [{ scope: 'tickets:read', resource: 'https://elsewhere.test' }, 'invalid_target', /not the audience of any tool/],
  'a resource with a slash more': [{ scope: 'tickets:read', resource: 'https://tickets.test/' }, 'invalid_target', /not the audience/],
  'a resource in other case': [{ scope: 'tickets:read', resource: 'https://TICKETS.test' }, 'invalid_target', /not the audience/],
  'a resource with a fragment': [{ scope: 'tickets:read', resource: 'https://tickets.test#x' }, 'invalid_target', /not the audience/],
  'another tool\'s resource': [
    { scope: 'tickets:read', resource: 'https://payments.test' },
    'invalid_target',
    /audience of payments, but the actions are of tickets/,
  ],

  ...ofDetails({
    'no JSON': ['[{', oneObject],
    'JSON with something after it': [`${details(good)}x`, oneObject],
    'a byte order mark': [`\ufeff${details(good)}`, oneObject],
    'a member twice': ['[{"type":"stint","actions":["tickets:read"],"actions":["tickets:purge"]}]', /no member named twice/],
    'a member twice, once in escapes': ['[{"type":"stint","actions":["tickets:read"],"acti\\u006fns":["tickets:purge"]}]', /no member named twice/],
    'a lone surrogate': ['[{"type":"stint","actions":["tickets:read"],"task":"\\ud800"}]', oneObject],
    'null': ['null', oneObject],
    'a number': ['1', oneObject],
    'text': ['"stint"', oneObject],
    'an object': [JSON.stringify({ type: 'stint', ...good }), oneObject],
    'an empty array': ['[]', oneObject],
    'an array of null': ['[null]', oneObject],
    'an array of text': ['["stint"]', oneObject],
    'an array of arrays': [`[${details(good)}]`, oneObject],
    'two objects': [JSON.stringify([{ type: 'stint', ...good }, { type: 'stint', ...good }]), oneObject],
    'an unknown member': [details({ ...good, locations: ['https://tickets.test'] }), /unknown member locations; it takes type, actions,/],
    'a member named __proto__': ['[{"type":"stint","actions":["tickets:read"],"__proto__":{}}]', /unknown member __proto__/],
    'a member with a name of controls': ['[{"type":"stint","actions":["tickets:read"],"a\\r\\n\\"b":1}]', /unknown member a\?\?\?b;/],
    'no type': [JSON.stringify([good]), /type .stint./],
    'another type': [JSON.stringify([{ ...good, type: 'payment' }]), /type .stint./],
    'a type in other case': [JSON.stringify([{ ...good, type: 'Stint' }]), /type .stint./],
    'a type in a list': [JSON.stringify([{ ...good, type: ['stint'] }]), /type .stint./],
    'no actions': [details({}), /^The actions are a list/],
    'actions as text': [details({ actions: 'tickets:read' }), /^The actions are a list/],
    'actions as an object': [details({ actions: { 0: 'tickets:read', length: 1 } }), /^The actions are a list/],
    'an empty list of actions': [details({ actions: [] }), /^The actions are a list/],
    'an action that is a number': [details({ actions: ['tickets:read', 1] }), /^The actions are a list/],
    'an action that is null': [details({ actions: [null] }), /^The actions are a list/],
    'an action that is empty': [details({ actions: [''] }), noAction],
    'two actions in one text': [details({ actions: ['tickets:read tickets:comment'] }), noAction],
    'a wildcard': [details({ actions: ['*'] }), noAction],
    'actions of two tools': [details({ actions: ['tickets:read', 'payments:read'] }), /names tickets and payments/],
    'an action twice': [details({ actions: ['tickets:read', 'tickets:read'] }), /named twice/],
    'a target for a tool without': [details({ ...good, target: 'x' }), /^The tool tickets has no targets/],
    'a target missing': [details({ actions: ['payments:read'] }), /^The tool payments needs a target/],
    'a target that is null': [details({ ...payment, target: null }), /^The target is a non-empty string/],
    'a target that is a list': [details({ ...payment, target: ['acct-1'] }), /^The target is a non-empty string/],
    'a target that is empty': [details({ ...payment, target: '' }), /^The target is a non-empty string/],
    'a target of another form': [details({ ...payment, target: 'account-1' }), wrongTarget],
    'a target with more before': [details({ ...payment, target: 'x acct-1' }), wrongTarget],
    'a target in quotes': [details({ ...payment, target: '"acct-1"' }), wrongTarget],
    'a target with digits of another script': [details({ ...payment, target: 'acct-١' }), wrongTarget],
    'a target and a newline': [details({ ...payment, target: 'acct-1\n' }), /no control characters/],
    'a target of two lines': [details({ ...payment, target: 'acct-1\nacct-2' }), /no control characters/],
    'a target of 10 KB': [details({ ...payment, target: `acct-${'1'.repeat(10_240)}` }), /targets of at most 1024 characters/],
    'a task that is a number': [details({ ...good, task: 7 }), wrongTask],
    'a task that is null': [details({ ...good, task: null }), wrongTask],
    'a task that is empty': [details({ ...good, task: '' }), wrongTask],
    'a task with a newline': [details({ ...good, task: 'a\nb' }), wrongTask],
    'a task that ends in a newline': [details({ ...good, task: 'a\n' }), wrongTask],
    'a task with NUL': [details({ ...good, task: 'a\0' }), wrongTask],
    'a task with a space': [details({ ...good, task: 'a b' }), wrongTask],
    'a task with a quote': [details({ ...good, task: 'a"b' }), wrongTask],
    'a task that turns the line round': [details({ ...good, task: 'a\u202eb' }), wrongTask],
    'a task of 129 characters': [details({ ...good, task: 'a'.repeat(129) }), wrongTask],
    'a task with a doubled slash': [details({ ...good, task: 'https://tickets.example.com/7' }), wrongTask],
    'a task that ends in a slash': [details({ ...good, task: 'tickets/' }), wrongTask],
    'a task with a dot between slashes': [details({ ...good, task: 'tickets/./7' }), wrongTask],
    'a task with two dots between slashes': [details({ ...good, task: 'tickets/../7' }), wrongTask],
    'a task that ends in two dots': [details({ ...good, task: 'tickets/..' }), wrongTask],
    'a time below zero': [details({ ...good, ttl_seconds: -1 }), wrongTtl],
    'no time at all': [details({ ...good, ttl_seconds: 0 }), wrongTtl],
    'half a second': [details({ ...good, ttl_seconds: 0.5 }), wrongTtl],
    'a time with a fraction': [details({ ...good, ttl_seconds: 60.5 }), wrongTtl],
    'a time as text': [details({ ...good, ttl_seconds: '600' }), wrongTtl],
    'a time that is null': [details({ ...good, ttl_seconds: null }), wrongTtl],
    'a time that is true': [details({ ...good, ttl_seconds: true }), wrongTtl],
    'a time in a list': [details({ ...good, ttl_seconds: [60] }), wrongTtl],
    'a time without end': ['[{"type":"stint","actions":["tickets:read"],"ttl_seconds":1e400}]', wrongTtl],
    'a time that no number holds': [details({ ...good, ttl_seconds: 2 ** 53 }), wrongTtl],
    'a time beyond the tool\'s': [details({ ...good, ttl_seconds: 3601 }), /^The ttl_seconds of 3601 are too many: tickets gives at most 3600\.$/],
  }),
}

function ofDetails(cases: Record<string, [string, RegExp]>): typeof requests {
  return Object.fromEntries(
    Object.entries(cases).map(([name, [text, description]]) => {
      return [`details: ${name}`, [{ authorization_details: text }, 'invalid_authorization_details', description]]
    }),
  )
}

describe('A request that cannot be honoured', () => {
  test('is refused with the reason, on record, and its assertion is spent', async () => {
    const broker = await startBroker('sqlite')
    const agent = await broker.register('triage-bot')
    const before = (await broker.events()).length
    const outcomes = await Promise.all(
      Object.entries(requests).map(async ([name, [parameters, code, description]]) => {
        const form = agent.form({ grant_type: 'client_credentials', ...parameters })
        const answer = await post(broker, 'token', { form })
        expect(answer, name).toMatchObject({ status: 400, body: { error: code, error_description: expect.stringMatching(description) } })
        const good = agent.form({ grant_type: 'client_credentials', scope: 'tickets:read' })
        const again = { ...good, client_assertion: form['client_assertion'] ?? '' }
        expect(await post(broker, 'token', { form: again }), name).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
        return { name, code, description, answer }
      }),
    )
    const events = (await broker.events()).slice(before)
    for (const { name, code, description, answer } of outcomes) {
      expect(events.filter((event) => event.request_id === answer.requestId), name).toMatchObject([
        { type: 'grant.refused', workload: 'triage-bot', proof_kid: agent.kid, code, detail: expect.stringMatching(description) },
      ])
      // Each says what is wrong, short enough to be read.
      expect(answer.body['error_description'], name).toMatch(/^[A-Z].{10,300}\.$/)
    }
    expect(events).toHaveLength(outcomes.length)
    expect(await countGrants(broker)).toBe(0)
  })
})
