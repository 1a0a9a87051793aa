export { findFreePort } from '../src/cli/sample/free-port.ts'
