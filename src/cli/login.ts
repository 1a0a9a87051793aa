import { createAdminClient } from '../client/admin.ts'
import { createSignInClient, type SignInClient } from '../client/sessions.ts'
import { systemClock } from '../kernel/clock.ts'
import { readPrivateFile } from '../kernel/private-file.ts'
import { refusePositionals } from './arguments.ts'
import { CommandError, parseOptions, UsageError, type Command, type Io } from './command.ts'
import { brokerHelp, brokerOf, brokerOptions } from './connection.ts'
import { hasBrowser, signInByBrowser } from './login-browser.ts'
import { hasDeviceFlow, signInByDevice } from './login-device.ts'
import { openIssuer } from './login-issuer.ts'
import { readSession, requireSessionPath, writeSession } from './session-file.ts'
import { formatJson, printable } from './terminal.ts'

/** `stint login`: a person signs in with the account of the company. */
export const loginCommand: Command = {
  name: 'login',
  summary: 'sign in to operate a broker with the account of your company',
  help: `Usage: stint login [--device | --no-browser | --id-token-file FILE]

Signs you in at the issuer that the broker's configuration names, and keeps the
session: every command uses it while STINT_OPERATOR_TOKEN is not set. It is kept
below $XDG_STATE_HOME (else ~/.local/state), for you alone, one for each broker.
Ends by itself, or by: stint logout

Options:
  --device              by a code that you enter on any device; chosen by itself
                        where no browser can be shown
  --no-browser          do not open a browser: only print the page's address,
                        for a browser on this machine
  --id-token-file FILE  with an ID token that you have, such as a CI job's, in a
                        file of mode 0600; - is standard input
  --json                print the session as JSON; never its credential

Connection:
${brokerHelp}
Examples:
  stint login --url https://stint.example.com
  stint login --device
  get-id-token --audience stint | stint login --id-token-file -
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('login', args, {
      ...brokerOptions,
      device: { type: 'boolean' },
      'no-browser': { type: 'boolean' },
      'id-token-file': { type: 'string' },
      json: { type: 'boolean' },
    })
    refusePositionals('login', positionals)
    const file = values['id-token-file']
    const ways = [values.device, values['no-browser'], file].filter((value) => value !== undefined)
    if (ways.length > 1) throw new UsageError('give one of --device, --no-browser and --id-token-file, or none.')
    const broker = brokerOf(values, io)
    const client = createSignInClient(broker)
    // Before a person goes to the trouble of signing in.
    requireSessionPath(client.origin, io)
    const idToken = file === undefined ? await getIdToken(client, values, io) : await readIdToken(file, io)
    const begun = await client.beginSession(idToken)
    const endEarlier = prepareEnd(client.origin, broker, io)
    writeSession(client.origin, begun, io)
    await endEarlier()
    if (values.json === true) io.out(formatJson({ ...begun, credential: undefined }))
    else io.out(`Signed in at ${client.origin} as ${printable(`oidc:${begun.subject}, ${begun.role}, until ${begun.expires_at}`)}\n`)
    if (isSet(io.env['STINT_OPERATOR_TOKEN'])) io.err('STINT_OPERATOR_TOKEN is set: commands use it, and not this session, until it is unset.\n')
    return 0
  },
}

interface Way {
  readonly device?: boolean | undefined
  readonly 'no-browser'?: boolean | undefined
}

async function getIdToken(client: SignInClient, values: Way, io: Io): Promise<string> {
  const issuer = await openIssuer(await client.getSignIn())
  const canDevice = hasDeviceFlow(issuer)
  if (values.device === true && !canDevice) throw new CommandError(`${issuer.name} has no device flow: run stint login without --device`)
  const canBrowser = issuer.configuration.serverMetadata().authorization_endpoint !== undefined
  const shows = hasBrowser(io)
  const byDevice = values.device === true || (canDevice && (!canBrowser || (!shows && values['no-browser'] !== true)))
  return byDevice ? signInByDevice(issuer, io) : signInByBrowser(issuer, io, { open: shows && values['no-browser'] !== true })
}

/** An ID token is never an argument: every user of the machine can read those. */
async function readIdToken(file: string, io: Io): Promise<string> {
  const text = (file === '-' ? await io.readInput() : readPrivateFile(file, 'the ID token').toString('utf8')).trim()
  if (/^[\w-]+\.[\w-]+\.[\w-]+$/.test(text)) return text
  throw new CommandError(`${file === '-' ? 'standard input' : file} holds no ID token: one is three words joined by dots`)
}

/** Ends the session that a new one takes the place of: nobody would hold its credential any more. */
function prepareEnd(origin: string, broker: { readonly url: string; readonly allowInsecure: boolean }, io: Io): () => Promise<void> {
  const readEarlier = () => {
    try {
      return readSession(origin, io)
    } catch {
      // A damaged file is replaced, too.
      return undefined
    }
  }
  const earlier = readEarlier()
  return async () => {
    if (earlier === undefined || earlier.expiresAtMs <= systemClock.nowMs()) return
    // It ends by itself where this fails, as it does when it has ended already.
    await createAdminClient({ ...broker, token: earlier.credential }).endOwnSession().catch(() => undefined)
  }
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && value !== ''
}
