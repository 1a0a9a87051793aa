import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { runRecorded } from './recorder.ts'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))

/** Every command of these rooms, as a person types it. */
const commands = [
  'token',
  'token introspect',
  'token revoke',
  'grant',
  'grant show',
  'grant renew',
  'grant give-back',
  'task',
  'task complete',
  'key',
  'key create',
  'key public',
  'key rotate',
  'enroll',
  'workload',
  'workload register',
  'workload show',
  'workload list',
  'workload update',
  'workload suspend',
  'workload resume',
  'workload retire',
  'workload add-key',
  'workload remove-key',
  'workload enroll',
  'workload enrolments',
  'workload cancel-enrolment',
  'operator',
  'operator create',
  'operator show',
  'operator list',
  'operator rotate',
  'operator revoke',
  'whoami',
  'login',
  'logout',
  'session',
  'session list',
  'session end',
  'tool',
  'tool list',
  'tool check',
  'grants',
  'grants show',
  'grants retry',
  'grants write-off',
  'revoke',
  'sweep',
  'audit',
  'audit list',
  'audit show',
  'audit export',
]

describe('help', () => {
  it.each([['--help'], ['-h'], ['help']])('stint %s lists the commands for each kind of person', async (argument) => {
    const { code, out, err } = await runRecorded([argument])
    expect([code, err]).toEqual([0, ''])
    for (const heading of ['For agents:', 'For admins:', 'For auditors:', 'For operators:', 'Examples:']) expect(out).toContain(heading)
    for (const name of ['token', 'grant', 'task', 'key', 'enroll', 'workload', 'tool', 'policy', 'grants', 'revoke', 'sweep', 'audit', 'serve', 'migrate', 'config']) {
      expect(out).toMatch(new RegExp(`^  ${name} +\\S`, 'm'))
    }
  })

  it.each(commands)('stint %s --help gives usage and an example', async (command) => {
    const { code, out, err } = await runRecorded([...command.split(' '), '--help'])
    expect([code, err]).toEqual([0, ''])
    expect(out).toMatch(new RegExp(`^Usage: stint ${command} `))
    expect(out).toMatch(/Examples:\n {2}\S/)
    expect(out).toMatch(/[^\n]\n$/)
    expect(out.split('\n').filter((line) => line.length > 80)).toEqual([])
    expect((await runRecorded(['help', ...command.split(' ')])).out).toBe(out)
  })

  it('is found among other arguments, but not behind --', async () => {
    expect((await runRecorded(['revoke', '--grant', 'g', '--help'])).out).toContain('Usage: stint revoke')
    expect((await runRecorded(['token', 'tickets:read', '-h'])).out).toContain('Usage: stint token')
    expect((await runRecorded(['revoke', '--', '--help'])).code).toBe(2)
    // What stands behind -- is another program's.
    expect((await runRecorded(['grant', 'ledger', 'read', '--', 'psql', '--help'])).err).toContain('--workload NAME or set STINT_WORKLOAD')
    expect((await runRecorded(['grants', 'list', '--help'])).out).toBe((await runRecorded(['grants', '--help'])).out)
  })

  it('says the version', async () => {
    expect(await runRecorded(['--version'])).toEqual({ code: 0, out: `stint ${version}\n`, err: '' })
  })
})

describe('examples', () => {
  it.each([...commands, 'policy apply', 'migrate', 'serve', 'config'])('of stint %s name no day, which would be past one day', async (command) => {
    expect((await runRecorded([...command.split(' '), '--help'])).out).not.toMatch(/\d{4}-\d{2}-\d{2}/)
  })
})

describe('wrong usage', () => {
  it.each([
    [[], 'See: stint --help'],
    [['tokn'], 'Did you mean token?'],
    [['wrkload', 'list'], 'Did you mean workload?'],
    [['--url', 'x'], 'no command "--url"'],
    [['\u001b[2J'], 'no command "\ufffd[2J"'],
    [['workload'], 'which command?'],
    [['workload', 'regster'], 'Did you mean register?'],
    [['audit', 'xyz'], 'One of: list, show'],
    [['key', 'create', 'a', '--algo', 'ES256'], "Unknown option '--algo'. Did you mean --alg? See: stint key create --help"],
    [['key', 'public', 'a', '-x'], "Unknown option '-x'. The options are --json. See: stint key public --help"],
    [['audit', 'list', '--since', '2026-01-01'], '--from, --to, --limit, --json. See: stint audit list --help'],
    [['audit', 'list', '--limt', '5'], 'Did you mean --limit? See'],
    [['audit', 'list', '--from', '2026-02-01', '--to', '2026-01-01'], '--from must not be after --to'],
    [['key', 'create', 'a', '--alg'], 'See: stint key create --help'],
    [['key', 'create', 'a', '--alg', 'RS256'], '--alg must be ES256 or Ed25519'],
    [['key', 'create', 'a', '--alg', 'ES256', '--alg', 'Ed25519'], "'--alg' is given twice"],
    [['key', 'create'], 'the file for the key is missing'],
    [['key', 'public', 'a', 'b'], 'only one argument'],
    [['token'], 'name at least one action'],
    [['token', 'tickets'], '"tickets" is no action'],
    [['token', 'Tickets:Read'], 'is no action'],
    [['token', 'tickets:read'], '--workload NAME or set STINT_WORKLOAD'],
    [['token', 'tickets:read', '--workload', 'bot'], '--key FILE or set STINT_KEY_FILE'],
    [['token', 'tickets:read', '--workload', ''], 'empty value'],
    [['token', 'tickets:read', '--ttl', '10'], '--ttl must be a whole number and a unit'],
    [['token', 'tickets:read', '--ttl', '0m'], '--ttl must be'],
    [['token', 'tickets:read', '--ttl', '-5m'], '--ttl has no value, or one that begins with a dash, which would be written --ttl=…'],
    [['token', 'tickets:read', '--ttl=-5m'], '--ttl must be a whole number and a unit'],
    [['serve', '--dev', '--port', '-1'], '--port has no value, or one that begins with a dash'],
    [['token', 'tickets:read', '--claims', '--json'], 'not both'],
    [['token', 'introspect'], 'the token, or - for standard input is missing'],
    [['grant'], 'which tool, and which actions?'],
    [['grant', 'ledger'], 'name at least one action of ledger: stint grant ledger ACTION…'],
    [['grant', 'Ledger', 'read'], '"Ledger" is no tool or action'],
    [['grant', 'ledger', 'read all'], 'an argument is no tool or action'],
    [['grant', 'ledger:'], '"ledger:" is no tool or action'],
    [['grant', 'ledger', 'read', '--ttl', '10'], '--ttl must be a whole number and a unit'],
    [['grant', 'ledger', 'read', '--env', '--json'], 'not both'],
    [['grant', 'ledger', 'read', '--json', '--', 'psql'], 'with a command nothing is printed'],
    [['grant', 'ledger', 'read', '--no-renew'], '--no-renew goes with a command'],
    [['grant', 'ledger', 'read', '--'], 'which command? It follows behind --'],
    [['grant', 'ledger', 'read', '--', ''], 'which command?'],
    [['grant', 'ledger', 'read'], '--workload NAME or set STINT_WORKLOAD'],
    [['grant', 'show:read'], '--workload NAME or set STINT_WORKLOAD'],
    [['grant', 'show'], "the grant's id is missing"],
    [['grant', 'renew', 'a', 'b'], 'only one argument'],
    [['grant', 'renew', 'a', '--env', '--json'], 'not both'],
    [['grant', 'give-back'], 'the id of a grant is missing'],
    [['grant', 'give-back', ''], 'the id of a grant is missing'],
    [['task'], 'which command?'],
    [['task', 'complete'], 'the name of the task is missing'],
    [['tool', 'check'], "the tool's name is missing"],
    [['grants', 'retri'], 'Did you mean retry?'],
    [['grants', '--limit', '0'], '--limit must be a whole number, 1 to 10000'],
    [['grants', 'show'], "the grant's id is missing"],
    [['grants', 'retry', '--reason', 'r'], 'which grants?'],
    [['grants', 'retry', 'a', '--tool', 'b', '--reason', 'r'], 'which grants?'],
    [['grants', 'retry', '--tool', '', '--reason', 'r'], 'which grants?'],
    [['grants', 'retry', 'a'], '--reason is needed'],
    [['grants', 'write-off', 'a'], '--reason is needed'],
    [['sweep'], 'what shall be swept for? Give --orphans'],
    [['sweep', '--orphans', '--tool', ''], 'nothing was swept'],
    [['sweep', '--orphans', 'ledger'], 'only options'],
    [['revoke', '--suspend'], 'what shall end?'],
    [['revoke', '--suspend', '--owner', 'support'], '--suspend goes with --workload alone'],
    [['revoke', '--suspend', '--workload', 'bot', '--task', 't'], '--suspend goes with --workload alone'],
    [['revoke', '--suspend', '--grant', 'g'], '--suspend goes with --workload alone'],
    [['revoke', '--workload', 'bot', '--owner', ''], 'nothing was revoked'],
    [['revoke', '--tool', ''], 'nothing was revoked'],
    [['revoke'], 'what shall end?'],
    [['revoke', 'grant_1'], 'only options'],
    [['revoke', '--grant', 'g', '--workload', 'w'], 'stands alone'],
    [['revoke', '--workload', ''], 'nothing was revoked'],
    [['revoke', '--workload', 'bot', '--task', ''], 'nothing was revoked'],
    [['revoke', '--grant', ''], 'nothing was revoked'],
    [['revoke', '--before', '2026-02-30'], '--before must be a date'],
    [['revoke', '--before', 'yesterday'], '--before must be a date'],
    [['workload', 'show'], "the workload's name is missing"],
    [['workload', 'register', 'bot', '--environment', 'prod'], '--stage is needed'],
    [['workload', 'update', 'bot'], 'what shall change?'],
    [['workload', 'update', 'bot', '--team', 'support'], '--team and --contact together'],
    [['workload', 'update', 'bot', '--tag', 'a', '--no-tags'], 'not both'],
    [['workload', 'update', 'bot', '--review-at', '1.1.2027'], '--review-at must be a duration from now, such as 90d, or a date'],
    [['workload', 'remove-key', 'bot'], '--kid is needed'],
    [['workload', 'remove-key', 'bot', '--kid', 'zz'], "--kid must be a key's whole id, 43 characters, as stint workload show lists it"],
    [['workload', 'list', '--limit', '0'], '--limit must be a whole number, 1 to 1000'],
    [['workload', 'list', '--limit', '1e3'], '--limit must be'],
    [['audit', 'list', '--limit', '10001'], '--limit must be'],
    [['audit', 'list', '--from', '1h'], '--from must be a date'],
    [['audit', 'show', '-1'], '-1'],
    [['audit', 'show', '1.5'], 'a whole number'],
  ])('%j', async (args, message) => {
    const { code, out, err } = await runRecorded(args)
    expect(err).toContain(message)
    expect([code, out]).toEqual([2, ''])
    expect(err).toMatch(/^stint: .*\n$/)
  })

  it('does not repeat a token that stands in the wrong place', async () => {
    const token = `eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJib3QifQ.${'x'.repeat(86)}`
    for (const args of [['token', token], ['token', 'introspect', token, token], ['revoke', token], ['audit', 'show', token], ['grant', token], ['grant', 'ledger', token], ['task', 'complete', token, token]]) {
      const { code, err } = await runRecorded(args)
      expect(code).toBe(2)
      expect(err).not.toContain('eyJ')
    }
  })
})

describe('failures', () => {
  it('end with 1 and one sentence; with STINT_DEBUG=1 with the stack', async () => {
    const args = ['key', 'public', '/nonexistent/key']
    const plain = await runRecorded(args)
    expect(plain).toEqual({ code: 1, out: '', err: 'stint: there is no key file /nonexistent/key: make one with stint key create /nonexistent/key\n' })
    expect((await runRecorded(args, { env: { STINT_DEBUG: '1' } })).err).toMatch(/\n +at /)
  })

  it.each([
    [{}, 'set STINT_OPERATOR_TOKEN or give --operator-token-file'],
    [{ STINT_OPERATOR_TOKEN: '' }, 'set STINT_OPERATOR_TOKEN'],
    [{ STINT_OPERATOR_TOKEN: 'hunter2' }, "STINT_OPERATOR_TOKEN holds no operator's credential"],
    [{ STINT_OPERATOR_TOKEN: 'stint_op_a b' }, 'holds no operator'],
    [{ STINT_OPERATOR_TOKEN: 'stint_op_x', STINT_URL: 'http://stint.example.com' }, 'use https, or allow it explicitly (--allow-insecure)'],
    [{ STINT_OPERATOR_TOKEN: 'stint_op_x', STINT_URL: 'nowhere' }, 'is no URL'],
    [{ STINT_OPERATOR_TOKEN: 'stint_op_x', STINT_URL: 'http://127.0.0.1:1' }, '127.0.0.1:1'],
  ])('of the connection: %j', async (env, message) => {
    const { code, out, err } = await runRecorded(['workload', 'list'], { env })
    expect(err).toContain(message)
    expect(err).not.toContain('hunter2')
    expect([code, out]).toEqual([1, ''])
  })
})
