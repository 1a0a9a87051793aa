import type { Io } from './command.ts'
import { askIssuer, requireIdToken, type Issuer } from './login-issuer.ts'
import { printable } from './terminal.ts'

/** Whether the issuer takes part in the device flow. */
export function hasDeviceFlow({ configuration }: Issuer): boolean {
  return configuration.serverMetadata().device_authorization_endpoint !== undefined
}

/** An ID token by the device flow (RFC 8628): the person signs in on any device, by a short code. */
export async function signInByDevice(issuer: Issuer, io: Io): Promise<string> {
  const { oidc, configuration, scope } = issuer
  const begun = await askIssuer(issuer, () => oidc.initiateDeviceAuthorization(configuration, { scope }))
  const whole = begun.verification_uri_complete
  io.err(`On any device, open\n\n  ${printable(begun.verification_uri)}\n\nand enter the code\n\n  ${printable(begun.user_code)}\n\n`)
  if (whole !== undefined) io.err(`or open ${printable(whole)}\nand see that it shows the same code.\n`)
  io.err('Waiting for you to sign in …\n')
  const tokens = await askIssuer(issuer, () => oidc.pollDeviceAuthorizationGrant(configuration, begun))
  return requireIdToken(issuer, tokens.id_token)
}
