import { z } from 'zod'
import { privateNetwork, secretSource, serviceUrl } from './parts.ts'

const user = z
  .string()
  .min(1)
  .refine((name) => name.isWellFormed() && !/\p{Cc}/u.test(name) && Buffer.byteLength(name) <= 63, 'must be the name of a role, at most 63 bytes')

/**
 * The password of one of two users of a PostgreSQL server, in turns. The value is a URL postgres://user:password@host/database,
 * or JSON with `username`, `password`, `host` and, if need be, `port` and `dbname`.
 */
const postgres = z.strictObject({
  users: z.tuple([user, user]).refine(([a, b]) => a !== b, 'must be two users, so that nobody is cut off while the one is replaced by the other'),
  /** A URL postgres://… of a role with CREATEROLE and ADMIN OPTION on both users. */
  admin: secretSource,
  /** As whom both act, where they share a role (`ALTER ROLE … SET role = …`): tried out with each new value. */
  role: user.optional(),
  private_network: privateNetwork,
})

const variables = ['auth', 'current', 'pending', 'retired'] as const
type Variable = (typeof variables)[number]

/** Text with `{current}` and the like in it, which stand for secrets. */
function template(allowed: readonly Variable[]) {
  return z
    .string()
    .max(4_096)
    .refine((text) => [...text.matchAll(/\{([a-z]+)\}/g)].every(([, name]) => allowed.some((one) => one === name)), {
      error: `may hold ${allowed.map((one) => `{${one}}`).join(', ')} and no other name in braces`,
    })
}

const status = z.int().min(100).max(599)

/** One call. Secrets stand in its headers and its body alone, for URLs are logged by whoever passes them on. */
function call(allowed: readonly Variable[]) {
  const text = template(allowed)
  const scalar = z.union([text, z.number(), z.boolean(), z.null()])
  return z
    .strictObject({
      method: z.enum(['GET', 'POST', 'PUT', 'PATCH', 'DELETE']),
      url: z.string().max(2_048).refine(isCallUrl, 'must be an https URL without user and fragment, and without braces (http only on 127.0.0.1)'),
      headers: z.record(z.string().regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$/, 'must be the name of a header'), text).default({}),
      /** HTTP Basic (RFC 7617). */
      basic: z.strictObject({ user: text, password: text }).optional(),
      /** The body, escaped as its form asks for; at most one of them. */
      json: z.record(z.string(), z.union([scalar, z.array(scalar), z.record(z.string(), scalar)])).optional(),
      form: z.record(z.string(), text).optional(),
      /** The statuses that mean that it is done; any of 2xx by default. */
      expect: z.array(status).min(1).max(16).optional(),
    })
    .refine(({ json, form }) => json === undefined || form === undefined, 'must have at most one of json and form')
    .refine(({ method, json, form }) => method !== 'GET' || (json === undefined && form === undefined), 'must have no body with GET')
}

/** Calls of an HTTP API. Redirects are not followed. */
const http = z
  .strictObject({
    /** Stint makes the value itself, of that many characters of the alphabet. */
    generate: z
      .strictObject({
        length: z.int().min(16).max(512).default(43),
        alphabet: z
          .string()
          .regex(/^[\x21-\x7e]{10,94}$/, 'must be 10 to 94 printable characters of ASCII')
          .refine((text) => new Set(text).size === text.length, 'must hold no character twice')
          .default('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'),
      })
      .refine(({ length, alphabet }) => length * Math.log2(alphabet.length) >= 100, 'must be longer, or of more characters: at least 100 bits')
      .optional(),
    /** The API makes the value, beside the current one, and answers it: `answer` is where (a JSON Pointer, RFC 6901). */
    create: z
      .strictObject({ call: call(['auth', 'current']), answer: z.string().max(256).regex(/^(?:\/(?:[^~/]|~[01])+)+$/, 'must be a JSON Pointer such as /key') })
      .optional(),
    set: call(['auth', 'current', 'pending']).optional(),
    test: call(['auth', 'pending']),
    revoke: call(['auth', 'current', 'retired']).optional(),
    /** What `{auth}` stands for. */
    auth: secretSource.optional(),
    private_network: privateNetwork,
  })
  .refine(({ generate, create }) => (generate === undefined) !== (create === undefined), 'must have exactly one of generate and create')
  .refine(({ generate, set }) => generate === undefined || set !== undefined, { path: ['set'], error: 'is needed with generate, for the API must learn the value' })
  .refine(({ create, revoke }) => create === undefined || revoke !== undefined, {
    path: ['revoke'],
    error: 'is needed with create, for what the API has made would be good for ever',
  })
  .refine(({ test }) => holds(test, '{pending}'), { path: ['test'], error: 'must use {pending}, or it would try nothing out' })
  .refine(({ set }) => set === undefined || holds(set, '{pending}'), { path: ['set'], error: 'must use {pending}' })
  .refine(({ revoke }) => revoke === undefined || holds(revoke, '{retired}'), { path: ['revoke'], error: 'must use {retired}' })
  .refine(({ auth, ...calls }) => auth !== undefined || !holds(calls, '{auth}'), { path: ['auth'], error: 'is missing, which {auth} stands for' })

/** A program on the broker's machine; the configuration of the broker says which names there are. */
const command = z.strictObject({ name: z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'must be a name under rotation.commands in the configuration of the broker') })

/** The access key of an IAM user, by that key itself. The value is JSON as `aws iam create-access-key` prints it. */
const awsAccessKey = z.strictObject({
  region: z.string().regex(/^[a-z]{2}(?:-[a-z0-9]+){2,4}$/, 'must be a region of AWS').default('us-east-1'),
  endpoint: serviceUrl.optional(),
  private_network: privateNetwork,
})

/** How a new value comes into force in the system behind a secret; exactly one of them. */
export const rotatorSchema = z
  .strictObject({ postgres: postgres.optional(), http: http.optional(), command: command.optional(), aws_access_key: awsAccessKey.optional() })
  .refine((rotators) => Object.values(rotators).filter((one) => one !== undefined).length === 1, 'must name exactly one of postgres, http, command and aws_access_key')

export type RotatorSettings = z.output<typeof rotatorSchema>
export type PostgresRotator = z.output<typeof postgres>
export type HttpRotator = z.output<typeof http>
export type HttpCall = HttpRotator['test']
export type CommandRotator = z.output<typeof command>
export type AwsAccessKeyRotator = z.output<typeof awsAccessKey>

/** Whether a text in it says so; the names of members are not filled. */
function holds(value: unknown, text: string): boolean {
  if (typeof value === 'string') return value.includes(text)
  return typeof value === 'object' && value !== null && Object.values(value).some((one) => holds(one, text))
}

function isCallUrl(text: string): boolean {
  if (!URL.canParse(text) || /[{}]|%7[bd]/i.test(text)) return false
  const { protocol, hostname, hash, username, password } = new URL(text)
  const plain = protocol === 'http:' && ['127.0.0.1', '[::1]', 'localhost'].includes(hostname)
  return (protocol === 'https:' || plain) && hash === '' && username === '' && password === ''
}
