import { z } from 'zod'
import type { ConnectorKind } from './kind.ts'
import { privateNetwork, secretSource, serviceUrl } from './parts.ts'

const config = z.strictObject({
  app_id: z.string().regex(/^[1-9][0-9]{0,15}$/, 'must be the number of the app, in quotes'),
  private_key: secretSource,
  api_url: serviceUrl.default('https://api.github.com'),
  private_network: privateNetwork,
})

const permission = z
  .string()
  .regex(/^[a-z][a-z_]{0,62}$/, 'must be the name of a permission')
  // A target is one repository, and these reach beyond any.
  .refine((name) => !/^(?:organization_|enterprise_)|^(?:members|team_discussions)$/.test(name), 'must be a permission on repositories, not on a whole organization')

const action = {
  permissions: z
    .record(permission, z.enum(['read', 'write', 'admin']))
    .refine((permissions) => Object.keys(permissions).length > 0, 'must name at least one permission'),
}

export type GithubAppConfig = z.output<typeof config>
export type GithubAppAction = { readonly permissions: Readonly<Record<string, 'read' | 'write' | 'admin'>> }

/** An installation token for one repository and just the permissions of the actions. */
export const githubAppKind: ConnectorKind = { audience: 'optional', lendsToken: true, actionShape: action, config, target: 'required' }
