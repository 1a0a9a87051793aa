import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { z } from 'zod'
import { configJsonSchema, listOptions, parseConfig, type JsonSchema } from '../src/config-file.ts'
import { configSchema } from '../src/config.ts'
import { BrokerError } from '../src/kernel/errors.ts'
import { createFolder, runRecorded } from './cli/recorder.ts'

const good = `issuer: https://stint.example.com
trust_domain: example.com
proxy: { addresses: [127.0.0.1] }
database: { sqlite: { file: /var/lib/stint.db } }
root_key: { from: "env:ROOT_KEY" }
`

/** What is wrong with the good configuration after these replacements and with these lines behind it. */
function problemsOf(changes: Readonly<Record<string, string>> = {}, more = ''): readonly string[] {
  let text = good
  for (const [from, to] of Object.entries(changes)) {
    expect(text).toContain(from)
    text = text.replace(from, to)
  }
  try {
    parseConfig(text + more, 'stint.yaml')
    return []
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    expect([error.code, error.publicMessage]).toEqual(['config_invalid', expect.stringMatching(/^stint\.yaml: .*`stint config` lists every option\.$/)])
    return error.extra?.['problems'] as string[]
  }
}

describe('A configuration', () => {
  test('has defaults for what may be left out, and nothing made up beside them', () => {
    expect(parseConfig(good, 'stint.yaml')).toEqual({
      issuer: 'https://stint.example.com',
      trust_domain: 'example.com',
      listen: { host: '127.0.0.1', port: 7846 },
      proxy: { addresses: ['127.0.0.1'] },
      database: { sqlite: { file: '/var/lib/stint.db' } },
      root_key: { from: 'env:ROOT_KEY' },
      operators: {},
      token_keys: { rotate_days: 30 },
      sealing_keys: { rotate_days: 90 },
      limits: { refusals_per_minute_per_address: 60, requests_per_second_per_workload: 200, connections_per_address: 500 },
      telemetry: {},
      log: { level: 'info' },
    })
  })

  test('may say everything', () => {
    const text = `issuer: https://stint.example.com:8443
trust_domain: prod.example.com
listen: { host: 0.0.0.0, port: 443 }
tls: { cert_file: /etc/cert.pem, key_file: /etc/key.pem }
database:
  postgres:
    url: { from: "env:URL" }
    migrate_url: { from: "file:/run/secrets/owner" }
root_key:
  kms: { key: "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", endpoint: "https://vpce-1.kms.eu-west-1.vpce.amazonaws.com" }
  previous: { from: "file:/etc/root.key" }
anchors:
  - file: /mnt/stint.checkpoints
  - http: { url: https://checkpoints.example.com/stint, token: { from: "env:TOKEN" } }
  - witness: { url: "http://127.0.0.1:7000/w", key: "w.example/1+1a2b3c4d+BAAAAA==" }
policies: { folder: /etc/policies }
log: { level: debug }
`
    expect(parseConfig(text, 'stint.yaml')).toMatchObject({
      listen: { host: '0.0.0.0', port: 443 },
      database: { postgres: { url: { from: 'env:URL' }, migrate_url: { from: 'file:/run/secrets/owner' } } },
      root_key: {
        kms: { key: 'arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab', endpoint: 'https://vpce-1.kms.eu-west-1.vpce.amazonaws.com' },
        previous: { from: 'file:/etc/root.key' },
      },
      anchors: [
        { file: '/mnt/stint.checkpoints' },
        { http: { url: 'https://checkpoints.example.com/stint', token: { from: 'env:TOKEN' } } },
        { witness: { url: 'http://127.0.0.1:7000/w', key: 'w.example/1+1a2b3c4d+BAAAAA==' } },
      ],
      log: { level: 'debug' },
    })
  })

  const signIn = (changes: string) => `operators: { oidc: { issuer: https://id.example.com/tenant, client_id: stint, roles: { admin: [ops] }${changes} } }\n`

  test('says who may sign in', () => {
    expect(parseConfig(good + signIn(''), 'stint.yaml').operators.oidc).toEqual({
      issuer: 'https://id.example.com/tenant',
      client_id: 'stint',
      scopes: ['openid', 'groups'],
      groups_claim: 'groups',
      roles: { admin: ['ops'], approver: [], auditor: [] },
      session_minutes: 60,
    })
    expect(parseConfig(good + signIn('').replace('https://id.example.com/tenant', 'http://127.0.0.1:9000'), 'stint.yaml').operators.oidc).toBeDefined()
  })

  const command = (changes: string) => `rotation: { commands: [{ name: billing, path: /usr/local/lib/stint/rotate-billing${changes} }] }\n`

  test('says which programs may replace secrets', () => {
    expect(parseConfig(good + command(', args: [--environment, production]'), 'stint.yaml').rotation).toEqual({
      commands: [{ name: 'billing', path: '/usr/local/lib/stint/rotate-billing', args: ['--environment', 'production'] }],
    })
    expect(parseConfig(good, 'stint.yaml').rotation).toBeUndefined()
  })

  test.each([
    [command('').replace('/usr', 'usr'), 'rotation.commands.0.path must be an absolute path'],
    [command('').replace('billing,', '"Billing API",'), 'rotation.commands.0.name must be a name of lower-case letters, digits and dashes'],
    [command(', shell: true'), 'rotation.commands.0.shell is not an option'],
    [command('}, { name: billing, path: /x'), 'rotation.commands must not hold a name twice'],
  ])('refuses %s', (more, problem) => {
    expect(problemsOf({}, more)).toEqual([problem])
  })

  test.each([
    [signIn('').replace('https', 'http'), 'operators.oidc.issuer must be the https URL of the issuer, as its discovery document has it'],
    [signIn('').replace('tenant', 'tenant?a=b'), 'operators.oidc.issuer must be the https URL of the issuer, as its discovery document has it'],
    [signIn('').replace('[ops]', '[]'), 'operators.oidc.roles must name at least one group'],
    [signIn(', scopes: [groups]'), 'operators.oidc.scopes must hold openid'],
    [signIn(', session_minutes: 1440'), 'operators.oidc.session_minutes must be at most 720'],
  ])('refuses %s', (more, problem) => {
    expect(problemsOf({}, more)).toEqual([problem])
  })

  const arn = 'arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab'
  const notArn = "root_key.kms.key must be the ARN of a KMS key, as in arn:aws:kms:eu-west-1:111122223333:key/…, and no alias's"
  const origin = 'issuer must be an https origin such as https://stint.example.com, without a path or a trailing slash'
  const collector = 'telemetry.otlp_url must be an http or https URL without user, query and fragment'
  const both = 'database must name one of sqlite and postgres'
  const source = 'root_key.from must be env:NAME or file:/absolute/path'
  const sqlite = '{ sqlite: { file: /var/lib/stint.db } }'
  const proxy = '{ addresses: [127.0.0.1] }'
  const tls = 'tls: { cert_file: /c, key_file: /k }\n'
  const issuer = 'https://stint.example.com'
  const wrong: readonly (readonly [string, Readonly<Record<string, string>>, string, readonly string[]])[] = [
    ['a plain issuer', { https: 'http' }, '', [origin]],
    ['an issuer with a trailing slash', { [issuer]: `${issuer}/` }, '', [origin]],
    ['an issuer with a path', { [issuer]: `${issuer}/stint` }, '', [origin]],
    ['an issuer with a query', { [issuer]: `${issuer}?a` }, '', [origin]],
    ['an issuer with a fragment', { [issuer]: `"${issuer}#a"` }, '', [origin]],
    ['an issuer with a user', { [issuer]: 'https://a@stint.example.com' }, '', [origin]],
    ['an issuer with the port that https has anyway', { [issuer]: `${issuer}:443` }, '', [origin]],
    ['an issuer in capitals', { [issuer]: 'https://STINT.example.com' }, '', [origin]],
    ['an issuer that is no URL', { [issuer]: 'stint.example.com' }, '', [origin]],
    ['a trust domain in capitals', { 'trust_domain: e': 'trust_domain: E' }, '', ['trust_domain must be a SPIFFE trust domain: lower-case letters, digits, dots, dashes']],
    ['a number for a text', { 'trust_domain: example.com': 'trust_domain: 7' }, '', ['trust_domain must be text, not a number']],
    ['nothing for an object', {}, 'policies:\n', ['policies must be options of its own, not empty']],
    ['a missing option', { 'trust_domain: example.com\n': '' }, '', ['trust_domain is missing']],
    ['a misspelt option', {}, 'lisen: { port: 1 }\n', ['lisen is not an option (did you mean listen?)']],
    ['a misspelt inner option', {}, 'log: { levl: debug }\n', ['log.levl is not an option (did you mean log.level?)']],
    ['an option of another place', {}, 'port: 1\n', ['port is not an option (did you mean listen.port?)']],
    ['a collector with a password', {}, 'telemetry: { otlp_url: "https://a:b@collector.test" }\n', [collector]],
    ['a collector with a query', {}, 'telemetry: { otlp_url: "http://127.0.0.1:4318?key=1" }\n', [collector]],
    ['a collector that is a socket', {}, 'telemetry: { otlp_url: "unix:/run/otel" }\n', [collector]],
    ['an option of no place', {}, 'tracing: true\n', ['tracing is not an option']],
    ['an option that every object has', {}, 'constructor: 1\n__proto__: { a: 1 }\n', ['constructor is not an option', '__proto__ is not an option']],
    ['no kind of database', { [sqlite]: '{}' }, '', [both]],
    ['two kinds of database', { [sqlite]: '{ sqlite: { file: /a }, postgres: { url: { from: "env:A" } } }' }, '', [both]],
    ['a misspelt kind of database', { sqlite: 'sqlit' }, '', ['database.sqlit is not an option (did you mean database.sqlite?)', both]],
    ['a text for the database', { [sqlite]: '{ postgres: "postgres://a@b/c" }' }, '', ['database.postgres must be options of its own, not text']],
    ['a URL where its source belongs', { [sqlite]: '{ postgres: { url: { from: "postgres://a:b@c/d" } } }' }, '', ['database.postgres.url.from must be env:NAME or file:/absolute/path']],
    ['a relative path', { '/var/lib': 'var/lib' }, '', ['database.sqlite.file must be an absolute path']],
    ['a path with a zero byte', { '/var/lib/stint.db': '"/a\\0b"' }, '', ['database.sqlite.file must be an absolute path']],
    ['a key in the configuration itself', { 'env:ROOT_KEY': 'AAAA' }, '', [source]],
    ['a key in a relative file', { 'env:ROOT_KEY': 'file:root.key' }, '', [source]],
    ['a variable of no name', { 'env:ROOT_KEY': 'env:' }, '', [source]],
    ['a root key of no kind', { 'from: "env:ROOT_KEY"': '' }, '', ['root_key must name one of from and kms']],
    ['a root key of two kinds', { 'from: "env:ROOT_KEY"': `from: "env:ROOT_KEY", kms: { key: "${arn}" }` }, '', ['root_key must name one of from and kms']],
    ['a root key of an alias', { 'from: "env:ROOT_KEY"': 'kms: { key: "arn:aws:kms:eu-west-1:111122223333:alias/stint" }' }, '', [notArn]],
    ['a root key by its id alone', { 'from: "env:ROOT_KEY"': 'kms: { key: 1234abcd-12ab-34cd-56ef-1234567890ab }' }, '', [notArn]],
    ['a root key over plain http', { 'from: "env:ROOT_KEY"': `kms: { key: "${arn}", endpoint: "http://kms.example.com" }` }, '', ['root_key.kms.endpoint must be an https URL without user, query and fragment']],
    ['a root key in the configuration itself', { '{ from: "env:ROOT_KEY" }': 'c2VjcmV0' }, '', ['root_key must be options of its own, not text']],
    ['a root key that is its own previous', { 'from: "env:ROOT_KEY"': 'from: "env:ROOT_KEY", previous: { from: "env:ROOT_KEY" }' }, '', ['root_key must not be its own previous']],
    ['a previous root key that is the same one at another address', { 'from: "env:ROOT_KEY"': 'kms: { key: "arn:aws:kms:eu-west-1:111122223333:key/k" }, previous: { kms: { key: "arn:aws:kms:eu-west-1:111122223333:key/k", endpoint: "https://kms.test" } }' }, '', ['root_key must not be its own previous']],
    ['a previous root key of no kind', { 'from: "env:ROOT_KEY"': 'from: "env:ROOT_KEY", previous: {}' }, '', ['root_key.previous must name one of from and kms']],
    ['a previous root key of a previous one', { 'from: "env:ROOT_KEY"': 'from: "env:ROOT_KEY", previous: { from: "env:OLD", previous: { from: "env:OLDER" } }' }, '', ['root_key.previous.previous is not an option (did you mean root_key.previous?)']],
    ['sealing keys that never rotate', {}, 'sealing_keys: { rotate_days: 0 }\n', ['sealing_keys.rotate_days must be at least 1']],
    ['neither TLS nor a proxy', { [`proxy: ${proxy}\n`]: '' }, '', ['tls or proxy is missing: production is reached over TLS, which Stint or a proxy ends']],
    ['both TLS and a proxy', {}, tls, ['tls and proxy exclude each other: name who ends TLS']],
    ['a proxy and an open port', {}, 'listen: { host: 0.0.0.0 }\n', ['listen.host must be a loopback address behind a proxy: others could reach Stint without TLS']],
    ['a proxy and an open port of IPv6', {}, 'listen: { host: "::" }\n', ['listen.host must be a loopback address behind a proxy: others could reach Stint without TLS']],
    ['a proxy of another machine', { '[127.0.0.1]': '[127.0.0.1, 10.0.0.5]' }, '', ['proxy.addresses holds 10.0.0.5, which never reaches a loopback address: give 127.0.0.1 or ::1']],
    ['a proxy of no address', { '[127.0.0.1]': '[]' }, '', ['proxy.addresses must have at least 1 in its list']],
    ['a proxy by name', { '[127.0.0.1]': '[localhost]' }, '', ['proxy.addresses.0 must be an IP address']],
    ['a host by name', {}, 'listen: { host: localhost }\n', ['listen.host must be an IP address']],
    ['a port that is none', {}, 'listen: { port: 65536 }\n', ['listen.port must be at most 65535']],
    ['a port with a fraction', {}, 'listen: { port: 1.5 }\n', ['listen.port must be a whole number, not a fraction']],
    ['a port in quotes', {}, 'listen: { port: "443" }\n', ['listen.port must be a number, not text']],
    ['a level that is none', {}, 'log: { level: trace }\n', ['log.level must be one of debug, info, warn, error']],
    ['an anchor of no kind', {}, 'anchors: [{}]\n', ['anchors.0 must name one of file, http and witness']],
    ['an anchor of two kinds', {}, 'anchors: [{ file: /a, http: { url: "https://a.test" } }]\n', ['anchors.0 must name one of file, http and witness']],
    ['a misspelt kind of anchor', {}, 'anchors: [{ fil: /a }]\n', ['anchors.0.fil is not an option (did you mean anchors[].file?)', 'anchors.0 must name one of file, http and witness']],
    ['an anchor in a relative file', {}, 'anchors: [{ file: a }]\n', ['anchors.0.file must be an absolute path']],
    ['an anchor over plain http', {}, 'anchors: [{ http: { url: "http://a.test" } }]\n', ['anchors.0.http.url must be an https URL without user, query and fragment']],
    ['an anchor with a password', {}, 'anchors: [{ http: { url: "https://a:b@a.test" } }]\n', ['anchors.0.http.url must be an https URL without user, query and fragment']],
    ['a token in the configuration itself', {}, 'anchors: [{ http: { url: "https://a.test", token: secret } }]\n', ['anchors.0.http.token must be options of its own, not text']],
    ['a witness without its key', {}, 'anchors: [{ witness: { url: "https://a.test" } }]\n', ['anchors.0.witness.key is missing']],
    ['a witness with a PEM', {}, 'anchors: [{ witness: { url: "https://a.test", key: "-----BEGIN" } }]\n', ['anchors.0.witness.key must be a verifier key, name+hash+base64']],
    ['the same anchor twice', {}, 'anchors: [{ file: /a }, { file: /a }]\n', ['anchors holds /a twice']],
    [
      'PostgreSQL and no word of anchors',
      { [sqlite]: '{ postgres: { url: { from: "env:A" } } }' },
      '',
      ['anchors is missing, for PostgreSQL has no place beside it: name a file on each machine as in anchors: [{ file: /var/lib/stint/checkpoints }], or anchors: [] if nothing is to notice a restored backup'],
    ],
    ['an option given twice', {}, 'issuer: https://other.example.com\n', ['an option is given twice at line 6, column 1']],
    ['an inner option given twice', {}, 'log: { level: info, level: debug }\n', ['an option is given twice at line 6, column 21']],
    ['an alias', { '/var/lib/stint.db': '&a /var/lib/stint.db', '"env:ROOT_KEY"': '*a' }, '', ['anchors and aliases (&name, *name) are not taken: write the value out']],
    ['an alias of nothing', {}, 'log: *nothing\n', ['anchors and aliases (&name, *name) are not taken: write the value out']],
    ['a merge key', {}, 'log: { <<: { level: debug } }\n', ['log.<< is not an option']],
    ['a tag', {}, 'log: !env { level: debug }\n', ['tags are not taken at line 6, column 6: write the value out']],
    ['two documents', {}, '---\nlog: { level: debug }\n', ['holds more than one document at line 6, column 1: leave the line --- out']],
    ['broken YAML', {}, 'log: { level: debug\n', [expect.stringContaining('at line 7, column 1')]],
  ]

  test.each(wrong)('with %s is refused with what is wrong', (_, changes, more, expected) => {
    expect(problemsOf(changes, more)).toEqual(expected)
  })

  test('is told everything that is wrong at once', () => {
    expect(problemsOf({ https: 'http', 'trust_domain: example.com\n': '', 'env:ROOT_KEY': 'AAAA' }, 'lisen: {}\nlog: { level: loud }\n')).toHaveLength(5)
    expect(problemsOf({ '[127.0.0.1]': '[10.0.0.5]' }, `${tls}listen: { host: 10.0.0.1 }\n`)).toHaveLength(3)
  })

  test.each(['', '# nothing but a comment\n', '- a\n', 'text\n'])('that holds no options (%j) is told so', (text) => {
    expect(() => parseConfig(text, 'stint.yaml')).toThrow('must hold options')
  })
})

describe('stint config', () => {
  /** The paths of all options, read off the schema itself and not off what describes it. */
  function pathsOf(schema: z.core.$ZodType, prefix = ''): string[] {
    const { def } = schema._zod
    if ('innerType' in def) return pathsOf(def.innerType as z.core.$ZodType, prefix)
    if (def.type === 'pipe') return pathsOf((def as z.core.$ZodPipeDef).in, prefix)
    if (def.type === 'array') return pathsOf((def as z.core.$ZodArrayDef).element, prefix.replace(/\.$/, '[].'))
    if (def.type !== 'object') return []
    return Object.entries((def as z.core.$ZodObjectDef).shape).flatMap(([name, inner]) => [`${prefix}${name}`, ...pathsOf(inner, `${prefix}${name}.`)])
  }

  test('lists every option of the schema, with a description', async () => {
    const paths = pathsOf(configSchema)
    expect(paths).toEqual(expect.arrayContaining(['database.postgres.migrate_url.from', 'anchors[].witness.key']))
    expect(listOptions().map(({ path }) => path)).toEqual(paths)
    const { code, out, err } = await runRecorded(['config'])
    expect([code, err]).toEqual([0, ''])
    expect(out.match(/^\S+(?= {2}\()/gm)).toEqual(paths)
    for (const { path, description } of listOptions()) expect([path, description]).toEqual([path, expect.stringMatching(/^\S.{10}/)])
    expect(out).toContain('listen.port  (integer, default 7846)\n    The TCP port to listen on.\n')
    expect(out).toContain('issuer  (string, required)\n')
    expect(out).toContain('operators.oidc.scopes  (list of string, default [openid, groups])\n')
    expect(out).toContain('operators.oidc.roles.admin  (list of string, default [])\n')
    expect(out).not.toContain('(object, default')
    expect(out).toContain('log.level  (debug | info | warn | error, default info)\n')
    expect(out).toContain('proxy.addresses  (list of string, required)\n')
    expect(out).toContain('policies  (object, optional)\n')
    expect(out).toContain('anchors  (list of object, optional)\n')
  })

  test('gives a JSON Schema that refuses what the program refuses', async () => {
    const { code, out } = await runRecorded(['config', '--json'])
    expect([code, JSON.parse(out)]).toEqual([0, configJsonSchema()])
    const closed = (schema: JsonSchema & { additionalProperties?: unknown }): boolean =>
      schema.type !== 'object' || (schema.additionalProperties === false && Object.values(schema.properties ?? {}).every(closed))
    expect(closed(configJsonSchema())).toBe(true)
    expect(JSON.parse(out)).toMatchObject({
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      required: ['issuer', 'trust_domain', 'database', 'root_key'],
      properties: { database: { minProperties: 1, maxProperties: 1 }, listen: { properties: { port: { minimum: 1, maximum: 65_535, default: 7846 } } } },
    })
  })

  test('gives an example that is a valid configuration', async () => {
    const file = join(createFolder(), 'stint.yaml')
    writeFileSync(file, (await runRecorded(['config', '--example'])).out)
    expect(await runRecorded(['config', '--check', file])).toEqual({ code: 0, out: `${file} is a valid configuration.\n`, err: '' })
  })

  test('checks a file and says what is wrong with it, as one message', async () => {
    const folder = createFolder()
    const file = join(folder, 'stint.yaml')
    writeFileSync(file, good.replace('https', 'http'))
    const { code, out, err } = await runRecorded(['config', '--check', file])
    expect([code, out, err]).toEqual([1, '', expect.stringMatching(/^stint: .*stint\.yaml: issuer must be an https origin.*\n$/)])
    expect(await runRecorded(['config', '--check', join(folder, 'none.yaml')])).toMatchObject({ code: 1, err: expect.stringContaining('(ENOENT); `stint config --example` prints one') })
    mkdirSync(join(folder, 'sub'))
    expect(await runRecorded(['config', '--check', join(folder, 'sub')])).toMatchObject({ code: 1, err: expect.stringContaining('(EISDIR)') })
  })

  test.each([['x'], ['--json', '--example'], ['--jsn'], ['--check']])('%s is wrong usage', async (...args) => {
    expect(await runRecorded(['config', ...args])).toMatchObject({ code: 2, out: '' })
  })
})
