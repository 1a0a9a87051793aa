import { clientError } from './errors.ts'

/** Where a broker in development listens, and where the command line looks for one that is told nothing else. */
export const brokerUrlDefault = 'http://127.0.0.1:7846'

/**
 * The origin of the broker's URL, for example `https://stint.example.com`. Refuses (`invalid_option`) what is not an
 * http(s) URL of an origin alone, and plain http to other machines unless `allowInsecure`: assertions, operator
 * credentials and tokens would travel readable by everybody on the way. `allowOption` is what the caller calls that.
 */
export function readBrokerUrl(text: string, allowInsecure: boolean, allowOption = 'allowInsecure'): string {
  if (!URL.canParse(text)) throw clientError('invalid_option', `${quote(text)} is no URL. Write https://HOST[:PORT].`)
  const url = new URL(text)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw clientError('invalid_option', `the broker's URL must begin with https:// (or http:// on this machine).`)
  }
  // The whole URL is not repeated here: what stands before the @ may be a password.
  if (url.username !== '' || url.password !== '') {
    throw clientError('invalid_option', `the broker's URL must not contain a user or password.`)
  }
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') {
    throw clientError('invalid_option', `the broker's URL must be an origin alone: use ${url.origin}.`)
  }
  if (url.protocol === 'http:' && !allowInsecure && !isLoopback(url.hostname)) {
    throw clientError(
      'invalid_option',
      `refusing to send credentials over plain http to ${url.host}: use https, or allow it explicitly ` +
        `(${allowOption}) inside a network that you trust.`,
    )
  }
  return url.origin
}

/** Whether a host, as WHATWG URL writes it, is this machine (RFC 6761 §6.3, RFC 1122 §3.2.1.3, RFC 4291 §2.5.3). */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(hostname)
}

function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text)
}
