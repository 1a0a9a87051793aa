// `npm start`: a broker in development mode, on whatever Node 20 or later the machine has. `npm start -- --help` tells more.
import { installWhatIsMissing, root, runInNode } from './install.mjs'
import { join } from 'node:path'

installWhatIsMissing()
process.exitCode = await runInNode([join(root, 'src/cli/main.ts'), 'serve', '--dev', ...process.argv.slice(2)])
