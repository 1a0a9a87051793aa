// The package has no types of its own: what the tests use of it.
declare module 'oidc-provider' {
  import type { IncomingMessage, ServerResponse } from 'node:http'

  export class Provider {
    constructor(issuer: string, configuration: Readonly<Record<string, unknown>>)
    callback(): (request: IncomingMessage, response: ServerResponse) => void
    on(event: string, listener: (...args: unknown[]) => void): void
    readonly Client: { find(id: string): Promise<unknown> }
    readonly Grant: new (members: Readonly<Record<string, unknown>>) => { addOIDCScope(scope: string): void; save(): Promise<string> }
    readonly RefreshToken: new (members: Readonly<Record<string, unknown>>) => { save(): Promise<string> }
  }
}
