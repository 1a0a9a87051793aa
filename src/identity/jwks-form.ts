const coordinate = { type: 'string', pattern: '^[A-Za-z0-9_-]{43}$' }
const described = {
  kid: { ...coordinate, description: 'The RFC 7638 thumbprint.' },
  use: { const: 'sig' },
  key_ops: { const: ['verify'] },
}

/** What `parsePublicKeys` takes, as JSON Schema: for the API document, since the keys are judged by code. */
export const jwksForm = {
  type: 'object',
  properties: {
    keys: {
      type: 'array',
      minItems: 1,
      maxItems: 8,
      items: {
        oneOf: [
          {
            type: 'object',
            properties: { kty: { const: 'EC' }, crv: { const: 'P-256' }, x: coordinate, y: coordinate, alg: { const: 'ES256' }, ...described },
            required: ['kty', 'crv', 'x', 'y'],
            additionalProperties: false,
          },
          {
            type: 'object',
            properties: { kty: { const: 'OKP' }, crv: { const: 'Ed25519' }, x: coordinate, alg: { enum: ['Ed25519', 'EdDSA'] }, ...described },
            required: ['kty', 'crv', 'x'],
            additionalProperties: false,
          },
        ],
      },
    },
  },
  required: ['keys'],
  additionalProperties: false,
} as const
