import { z } from 'zod'
import type { ConnectorKind } from '../catalog.ts'
import { privateNetwork, secretSource, serviceUrl } from './parts.ts'

const config = z.strictObject({
  app_id: z.string().regex(/^[1-9][0-9]{0,15}$/, 'must be the number of the app, in quotes'),
  private_key: secretSource,
  api_url: serviceUrl.default('https://api.github.com'),
  private_network: privateNetwork,
})

const action = {
  permissions: z
    .record(z.string().regex(/^[a-z][a-z_]{0,62}$/, 'must be the name of a permission'), z.enum(['read', 'write', 'admin']))
    .refine((permissions) => Object.keys(permissions).length > 0, 'must name at least one permission'),
}

export type GithubAppConfig = z.output<typeof config>
export type GithubAppAction = { readonly permissions: Readonly<Record<string, 'read' | 'write' | 'admin'>> }

/** An installation token for one repository and just the permissions of the actions. */
export const githubAppKind: ConnectorKind = { audience: 'optional', actionShape: action, config, target: 'required' }
