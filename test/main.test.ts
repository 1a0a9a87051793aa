import { homedir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Config } from '../src/config.ts'
import { listOwnSecrets } from '../src/main.ts'

const database = { sqlite: { file: '/data/stint.db' } }
const kms = { kms: { key: 'arn:aws:kms:eu-west-1:111122223333:key/a' } }
const raw = { from: 'env:ROOT_KEY' }
// What is looked at, and no more of a configuration.
const own = (rootKey: Config['root_key'], env = {}) => listOwnSecrets({ root_key: rootKey, database } as Config, env)

describe("The broker's own secrets", () => {
  test.each<[string, Config['root_key']]>([
    ['the root key', kms],
    ['the previous one', { ...raw, previous: kms }],
  ])('are also the AWS credentials with which KMS is asked, where it keeps %s', (_name, rootKey) => {
    const env = { HOME: '/home/stint', AWS_WEB_IDENTITY_TOKEN_FILE: '/run/token', AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: '/run/container', AWS_SHARED_CREDENTIALS_FILE: '/run/credentials', AWS_CONFIG_FILE: '/run/config' }
    const found = own(rootKey, env)
    const variables = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'AWS_SECURITY_TOKEN', 'AWS_CONTAINER_AUTHORIZATION_TOKEN']
    for (const name of variables) expect(found).toContain(`env:${name}`)
    for (const file of ['/run/token', '/run/container', '/run/credentials', '/run/config', '/home/stint/.aws', '/data/stint.db']) expect(found).toContain(`file:${file}`)
    expect(own(rootKey)).toContain(`file:${join(homedir(), '.aws')}`)
  })

  test('are no AWS credentials where KMS keeps nothing: a tool may be given them', () => {
    expect(own(raw)).toEqual(['env:ROOT_KEY', 'file:/data/stint.db'])
  })
})
