import { awsStsConnector } from './aws-sts.ts'
import { awsSecretsManagerConnector } from './aws-secrets-manager.ts'
import type { Connector } from './connector.ts'
import { githubAppConnector } from './github-app.ts'
import { oauthClientConnector } from './oauth-client.ts'
import { postgresConnector } from './postgres.ts'
import { sealedSecretConnector } from './sealed-secret.ts'

/** Every connector that asks an outside system. `jwt` is none of them: Stint signs its tokens itself, in one transaction. */
export const connectors: readonly Connector[] = [postgresConnector, githubAppConnector, oauthClientConnector, awsStsConnector, sealedSecretConnector, awsSecretsManagerConnector]
