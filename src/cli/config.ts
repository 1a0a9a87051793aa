import { configJsonSchema, listOptions } from '../config-file.ts'
import { parseOptions, UsageError, type Command } from './command.ts'
import { readConfig } from './serve.ts'

export const configCommand: Command = {
  name: 'config',
  summary: 'list every option of stint.yaml, or check one',
  help: `Usage: stint config [--json | --example]
       stint config --check FILE

Prints every option of stint.yaml with its type, its default and what it means.

Options:
  --json        as JSON Schema, for editors and programs
  --example     a configuration to start from
  --check FILE  parse a configuration and say what is wrong with it; exit code 1 if anything is

Examples:
  stint config
  stint config --example > stint.yaml
  stint config --check stint.yaml
`,
  async run(args, io) {
    const { values, positionals } = parseOptions('config', args, {
      json: { type: 'boolean' },
      example: { type: 'boolean' },
      check: { type: 'string' },
    })
    const chosen = [values.json, values.example, values.check].filter((value) => value !== undefined)
    if (positionals.length > 0 || chosen.length > 1) throw new UsageError('give one of --json, --example and --check FILE, or nothing.')
    if (values.json === true) io.out(`${JSON.stringify(configJsonSchema(), undefined, 2)}\n`)
    else if (values.example === true) io.out(example)
    else if (values.check !== undefined) {
      readConfig(values.check)
      io.out(`${values.check} is a valid configuration.\n`)
    } else io.out(describeOptions())
    return 0
  },
}

function describeOptions(): string {
  return listOptions()
    .map((option) => {
      const need = option.required ? 'required' : option.default === undefined ? 'optional' : `default ${formatDefault(option.default)}`
      return `${option.path}  (${option.type}, ${need})\n    ${option.description}\n`
    })
    .join('')
}

function formatDefault(value: unknown): string {
  return Array.isArray(value) ? `[${value.join(', ')}]` : String(value)
}

const example = `# stint.yaml: every option is explained by \`stint config\`.
#
# Set issuer and trust_domain to your own before the first migrate. For a local
# trial the file works as it is: Stint listens on 127.0.0.1 port 7846 alone.
issuer: https://stint.example.com
trust_domain: example.com

listen: { host: 127.0.0.1, port: 7846 }

# A proxy on this machine ends TLS. To let Stint serve TLS itself, instead:
# tls: { cert_file: /etc/stint/tls.pem, key_file: /etc/stint/tls.key }
proxy: { addresses: [127.0.0.1] }

database:
  sqlite: { file: /var/lib/stint/stint.db }
# For several processes, instead:
# database:
#   postgres:
#     url: { from: "env:STINT_DATABASE_URL" }
#     migrate_url: { from: "env:STINT_OWNER_URL" }

# Each checkpoint of the log is kept in these, too, so that an older database in
# place of this one is noticed. On SQLite a file beside the database, unless you
# say better: another disk, another machine, or somebody else.
# anchors:
#   - file: /mnt/other-disk/stint.checkpoints
#   - http: { url: https://checkpoints.example.com/stint, token: { from: "env:STINT_ANCHOR_TOKEN" } }
#   - witness: { url: https://witness.example.net, key: "witness.example.net+1a2b3c4d+BA…" }

# Made with: openssl rand -base64 32; mode 0600.
root_key: { from: "file:/etc/stint/root.key" }
# To let AWS KMS keep it, or to change it: the old one is named until
# \`stint keys rewrap\` says that it can go.
# root_key:
#   kms: { key: "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab" }
#   previous: { from: "file:/etc/stint/root.key" }

policies: { folder: /etc/stint/policies }

# People sign in with the account of their company, by stint login; the client
# is registered there as a public, native one with http://127.0.0.1/callback:
# operators:
#   oidc:
#     issuer: https://login.example.com
#     client_id: stint
#     roles: { admin: [platform-admins], approver: [team-leads], auditor: [audit] }
`
