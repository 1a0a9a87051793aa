import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import type { LentGrant } from '../../src/client/grant-records.ts'
import { formatEnvironment, printLent, type LentForm } from '../../src/cli/grant-print.ts'
import { quoteArgument } from '../../src/cli/shell.ts'
import { createRecorder } from './recorder.ts'

const lent: LentGrant = {
  grant: `grant_${'0'.repeat(26)}`,
  tool: 'github',
  actions: ['github:issues.read'],
  target: 'acme/website',
  issuedAt: new Date('2026-01-01T00:00:00Z'),
  expiresAt: new Date('2026-01-01T00:01:30Z'),
  ends: { effect: 'immediate', meaning: 'At once.\u001b[2J' },
  credential: { token: 'ghs_x', port: 5432, key: '-----BEGIN\n\u001b[2Jkey\n' },
  environment: { GH_TOKEN: 'ghs_x' },
  auditIndex: 3,
}

function print(form: LentForm, errColumns?: number, more: Partial<LentGrant> = {}) {
  const { io, read } = createRecorder(errColumns === undefined ? {} : { errColumns })
  printLent({ ...lent, ...more }, form, { workload: 'bot', key: "my bot's.key" }, io)
  return read()
}

describe('a credential', () => {
  it('for people loses nothing, and nothing in it steers the terminal', () => {
    const { out, err } = print('fields')
    expect(out).toBe('token  ghs_x\nport   5432\nkey    "-----BEGIN\\n\\u001b[2Jkey\\n"\n')
    expect(err).toBe(`github:issues.read on acme/website for 90s, until 2026-01-01T00:01:30Z: ${lent.grant}, audit entry 3
When it ends: At once.\ufffd[2J
To give it back: stint grant give-back ${lent.grant} --workload bot --key 'my bot'\\''s.key'
`)
  })

  it('for a shell tells only a person who looks on', () => {
    expect(print('env')).toEqual({ out: `export GH_TOKEN='ghs_x'\nexport STINT_GRANT='${lent.grant}'\n`, err: '' })
    expect(print('env', undefined, { conceals: ['GH_HOST', 'GH_TOKEN'] }).out).toBe(`unset GH_HOST\nunset GH_TOKEN\nexport GH_TOKEN='ghs_x'\nexport STINT_GRANT='${lent.grant}'\n`)
    expect(print('json', undefined, { conceals: ['GH_HOST'] }).out).toMatch(/"conceals": \[\s*"GH_HOST"\s*\]/)
    expect(print('env', 80).err).toContain('To give it back')
    expect(print('json').err).toBe('')
  })

  it.each(["it's", 'a b', '$HOME', '`id`', '$(id)', '\\', "\\'", 'a\nb', '\n', '', '!', '"', "'; touch /tmp/x; '", '\u001b[2J', 'ü€😀'])('reaches a shell as it is: %j', (value) => {
    // A line break at the end would be lost by the test's own $(…), not by the quotes.
    const script = `${formatEnvironment({ VALUE: value, AFTER: 'after' })}printf '%s|%s' "$VALUE" "$AFTER"`
    const { stdout, stderr } = spawnSync('sh', ['-c', script], { encoding: 'utf8' })
    expect([stdout, stderr]).toEqual([`${value}|after`, ''])
    expect(spawnSync('sh', ['-c', `printf '%s' ${quoteArgument(value)}`], { encoding: 'utf8' }).stdout).toBe(value)
  })
})
