export { createEmbeddedServer, type EmbeddedServer } from '../src/cli/sample/embedded-postgres.ts'
