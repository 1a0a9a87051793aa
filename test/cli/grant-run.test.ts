import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { runShell, type Program } from '../program.ts'
import { startGrantsSite, type GrantsSite } from './grants-site.ts'

vi.setConfig({ testTimeout: 60_000 })

const lend = ['grant', 'ledger', 'read', '--']

/** A command of the shell that says when it is there, with its traps set, and under which process id. */
const shell = (script: string, traps = ':'): string[] => [...lend, 'sh', '-c', `${traps}; echo here $$; ${script}`]

function childOf(program: Program): number {
  return Number(/^here (\d+)$/m.exec(program.said().out)?.[1])
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

async function grantOf({ admin }: GrantsSite): Promise<{ readonly grant: string; readonly state: string }> {
  const { grants } = await admin.listGrants({ tool: 'ledger' })
  const [one] = grants
  if (one === undefined || grants.length > 1) throw new Error(`there are ${grants.length} grants`)
  return one
}

describe.skipIf(inject('postgres').missing !== undefined)('stint grant -- COMMAND', () => {
  it('runs it with the credential in its environment, and gives that back', async () => {
    const site = await startGrantsSite()
    const script = `const pg = (await import(${JSON.stringify(import.meta.resolve('pg'))})).default
      const client = new pg.Client({ host: process.env.PGHOST, port: Number(process.env.PGPORT) })
      await client.connect()
      console.log(JSON.stringify((await client.query('select text, current_user as role from work.notes')).rows), process.env.STINT_GRANT, process.env.STINT_WORKLOAD)
      await client.end()`
    const ran = await site.startAsBot([...lend, process.execPath, '--input-type=module', '-e', script]).ended
    expect(ran).toMatchObject({ code: 0, signal: null, err: '' })
    const { grant, state } = await grantOf(site)
    expect(ran.out).toMatch(new RegExp(`^\\[\\{"text":"a note","role":"stint_\\w+${grant.slice(-26)}"\\}\\] ${grant} bot\\n$`))
    expect(state).toBe('revoked')
    expect(await site.roles()).toEqual([])
    const { entries } = await site.admin.listAudit({ grant })
    expect(entries.map(({ type }) => type)).toEqual(['grant.ended', 'grant.revoked', 'grant.activated', 'grant.minting'])
  })

  it('takes no part in its standard streams, and ends with its exit code', async () => {
    const site = await startGrantsSite()
    const file = join(site.folder, 'script.sh')
    const env = { PATH: process.env['PATH'] ?? '', STINT_URL: site.url, STINT_WORKLOAD: 'bot', STINT_KEY_FILE: site.keyFile }
    // Everything behind -- is the command's, also what looks like an option of stint.
    writeFileSync(file, `printf 'a\\nb' | ${process.execPath} ${join(import.meta.dirname, '../../src/cli/main.ts')} grant ledger read -- sh -c 'cat; echo " $*" >&2; exit 7' sh --help --json`)
    const child = spawn('sh', [file], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    const [out, err, [code]] = await Promise.all([child.stdout.toArray(), child.stderr.toArray(), once(child, 'close')])
    expect([code, Buffer.concat(out).toString(), Buffer.concat(err).toString()]).toEqual([7, 'a\nb', ' --help --json\n'])
    expect(await site.roles()).toEqual([])
  })

  it('cannot run what is not there or no program, says so as a shell does, and gives back', async () => {
    const site = await startGrantsSite()
    expect(await site.startAsBot([...lend, 'no-such-command']).ended).toMatchObject({ code: 127, err: 'stint: cannot run no-such-command: there is no such command\n' })
    expect(await site.startAsBot([...lend, '/']).ended).toMatchObject({ code: 126, err: 'stint: cannot run /: it is no program, or may not be run\n' })
    expect(await site.roles()).toEqual([])
    expect((await site.admin.listGrants({ state: 'revoked' })).grants).toHaveLength(2)
    // Nor is anything run where nothing was granted.
    expect(await site.startAsBot(['grant', 'ledger', 'write', '--', 'echo', 'ran']).ended).toMatchObject({ code: 1, out: '', err: expect.stringContaining('The policy does not allow this.') })
  })

  it('passes signals on, ends with 128 and their number, and gives back', async () => {
    const site = await startGrantsSite()
    for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129], ['SIGQUIT', 131]] as const) {
      const program = site.startAsBot(shell('exec sleep 60'))
      await program.until('here')
      expect(await site.roles()).toHaveLength(1)
      expect(await program.stop(signal)).toMatchObject({ code, signal: null, err: '' })
      expect(isAlive(childOf(program))).toBe(false)
      expect(await site.roles()).toEqual([])
    }
  })

  it('leaves it to the command what a signal means', async () => {
    const site = await startGrantsSite()
    const program = site.startAsBot(shell('while :; do sleep 0.05; done', `trap 'echo again' INT; trap 'echo one' USR1; trap 'exit 5' TERM`))
    await program.until('here')
    for (const [signal, said] of [['SIGINT', 'again'], ['SIGUSR1', 'one']] as const) {
      program.child.kill(signal)
      await program.until(said)
    }
    expect(await site.roles()).toHaveLength(1)
    expect(await program.stop('SIGTERM')).toMatchObject({ code: 5, err: '' })
    expect(await site.roles()).toEqual([])
  })

  it('kills a command that does not heed SIGTERM, rather than leave it behind', async () => {
    const site = await startGrantsSite()
    const program = site.startAsBot(shell('while :; do sleep 0.05; done', `trap '' TERM`))
    await program.until('here')
    const begunMs = performance.now()
    expect(await program.stop('SIGTERM')).toMatchObject({ code: 137, err: '' })
    expect(performance.now() - begunMs).toBeGreaterThan(4_500)
    expect(isAlive(childOf(program))).toBe(false)
    expect(await site.roles()).toEqual([])
  })

  it.skipIf(spawnSync('python3', ['--version']).status !== 0)('on a terminal does not send Ctrl-C twice (skipped where no python3 makes one)', async () => {
    const site = await startGrantsSite()
    // A terminal with the command in its foreground, where ^C reaches the whole group.
    const python = `import os, pty, sys, time
pid, fd = pty.fork()
if pid == 0: os.execvp(sys.argv[1], sys.argv[1:])
said, sent = b'', 0
while True:
  try: piece = os.read(fd, 1024)
  except OSError: break
  if not piece: break
  said += piece
  if b'here' in said and sent == 0: os.write(fd, b'\\x03'); sent = 1
_, status = os.waitpid(pid, 0)
sys.stdout.write(said.decode()); sys.exit(os.waitstatus_to_exitcode(status))`
    const main = join(import.meta.dirname, '../../src/cli/main.ts')
    const count = `let n = 0; process.on('SIGINT', () => n++); console.log('here'); setTimeout(() => { console.log('signals', n); process.exit(4) }, 2000)`
    const command = [...lend, process.execPath, '-e', count]
    const child = spawn('python3', ['-c', python, process.execPath, main, ...command], {
      env: { PATH: process.env['PATH'], STINT_URL: site.url, STINT_WORKLOAD: 'bot', STINT_KEY_FILE: site.keyFile },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const [out, err, [code]] = await Promise.all([child.stdout.toArray(), child.stderr.toArray(), once(child, 'close')])
    expect([Buffer.concat(out).toString(), Buffer.concat(err).toString(), code]).toEqual([expect.stringContaining('signals 1\r\n'), '', 4])
    expect(await site.roles()).toEqual([])
  })

  it('killed itself, leaves a grant that is on record, and ends at its time or by its task', async () => {
    const site = await startGrantsSite()
    const program = site.startAsBot(['grant', 'ledger', 'read', '--task', 'night', '--', 'sh', '-c', 'echo here $$; exec sleep 60'])
    await program.until('here')
    const child = childOf(program)
    onTestFinished(() => void process.kill(child, 'SIGKILL'))
    const exited = once(program.child, 'exit')
    program.child.kill('SIGKILL')
    expect(await exited).toEqual([null, 'SIGKILL'])
    // Nobody can pass on a SIGKILL.
    expect(isAlive(child)).toBe(true)
    const { grant, state } = await grantOf(site)
    expect(state).toBe('active')
    expect(await site.roles()).toHaveLength(1)
    expect((await site.asBot(['grant', 'show', grant])).out).toMatch(/^expires +20/m)
    expect((await site.asBot(['task', 'complete', 'night'])).code).toBe(0)
    expect(await site.roles()).toEqual([])
  })

  it.skipIf(process.platform !== 'linux')('shows the secret to nobody but the command (seen in /proc of Linux)', async () => {
    const site = await startGrantsSite()
    const program = site.startAsBot(shell('echo "password $PGPASSWORD"; exec sleep 60'))
    await program.until('password')
    const password = /^password (\S{20,})$/m.exec(program.said().out)?.[1] ?? ''
    expect(password).not.toBe('')
    for (const pid of [program.child.pid, childOf(program)]) expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).not.toContain(password)
    expect(readFileSync(`/proc/${program.child.pid}/environ`, 'utf8')).not.toContain(password)
    await site.setRootPassword('another')
    const { err } = await program.stop('SIGTERM')
    expect(err).toContain('not ended yet')
    expect(err).not.toContain(password)
  })

  it('says when it cannot give back, until when the grant lives and how to end it; the exit code stays the command\'s', async () => {
    const site = await startGrantsSite()
    const program = site.startAsBot(shell('sleep 1; exit 3'))
    await program.until('here')
    site.network.cut = true
    site.network.asked.length = 0
    const ended = await program.ended
    site.network.cut = false
    const asked = [...site.network.asked]
    const { grant } = await grantOf(site)
    expect(ended.code).toBe(3)
    expect(ended.err).toMatch(new RegExp(`^stint: ${grant} could not be given back: .*\\nIt lives until 20\\S+Z, or until: stint grant give-back ${grant}\\n$`))
    // Three tries, for it may be the broker that is just started anew.
    expect(asked).toEqual(Array.from({ length: 3 }, () => `DELETE /v1/grants/${grant}`))
    expect(await site.roles()).toHaveLength(1)
  })

  it('gives back although nobody reads on what it says', async () => {
    const site = await startGrantsSite()
    const env = { STINT_URL: site.url, STINT_WORKLOAD: 'bot', STINT_KEY_FILE: site.keyFile }
    const list = async () => (await site.admin.listAudit({ limit: 100, tool: 'tickets' })).entries
    // The warning that the token goes on no longer finds its reader gone. The command ends once that was to be said.
    const done = join(site.folder, 'done')
    const ran = runShell(`npx stint grant tickets read --ttl 9s -- sh -c 'exec > /dev/null 2>&1; until test -e done; do sleep 0.05; done; sleep 0.3' 2>&1 | true`, { cwd: site.folder, env })
    await vi.waitFor(async () => expect((await list()).filter(({ type }) => type === 'grant.revoked')).toHaveLength(1), { timeout: 20_000, interval: 100 })
    writeFileSync(done, '')
    await ran
    const entries = await list()
    const first = entries.find(({ type, event }) => type === 'grant.issued' && event['renews'] === undefined)?.event['grant']
    expect(entries.filter(({ type }) => type === 'grant.issued')).toHaveLength(2)
    expect(entries.some(({ type, event }) => type === 'grant.revoked' && event['grant'] === first)).toBe(true)
  })

  it('told to end while it asks, starts nothing and gives back what the answer brings', async () => {
    const site = await startGrantsSite()
    site.network.delayMs = 1_500
    const program = site.startAsBot([...lend, 'echo', 'ran'])
    await vi.waitFor(() => expect(site.network.asked).toContain('POST /v1/grants'), { timeout: 20_000 })
    const ended = await program.stop('SIGTERM')
    expect(ended).toMatchObject({ code: 143, out: '', err: expect.stringMatching(/^stint: waiting for the answer, to give back what it brings/) })
    expect((await grantOf(site)).state).toBe('revoked')
  })

  it('renews while it runs where the credential stays the same, unless told not to', async () => {
    const site = await startGrantsSite()
    const [renewing, not] = await Promise.all([
      site.startAsBot(['grant', 'ledger', 'read', '--ttl', '3s', '--task', 'a', '--', 'sleep', '6']).ended,
      site.startAsBot(['grant', 'ledger', 'read', '--ttl', '3s', '--task', 'b', '--no-renew', '--', 'sleep', '4']).ended,
    ])
    expect(renewing).toMatchObject({ code: 0, err: '' })
    expect(not.code).toBe(0)
    const { entries } = await site.admin.listAudit({ limit: 100, type: 'grant.renewed' })
    // Each time when a third of its life is left, and not all the time.
    expect([2, 3, 4]).toContain(entries.length)
    expect(new Set(entries.map(({ event }) => event['task']))).toEqual(new Set(['a']))
    expect(await site.roles()).toEqual([])
  })

  it('says in time where it goes on no longer: the longest life, a token, or what policy says now', async () => {
    const site = await startGrantsSite({ ledgerTtl: '{ default: 2s, max: 4s }' })
    const program = site.startAsBot(['grant', 'ledger', 'read', '--', 'sleep', '3'])
    const token = site.startAsBot(['grant', 'tickets', 'read', '--ttl', '3s', '--', 'sleep', '3'])
    expect((await program.ended).err).toMatch(/^stint: grant_\w+ ends at 20\S+Z and goes on no longer: that is the longest life that its tool gives\n$/)
    expect((await token.ended).err).toMatch(/^stint: grant_\w+ ends at 20\S+Z and goes on no longer: its tool makes no credential last longer\n$/)
    // The token that the renewal made is nobody's: it was given back, too.
    const { entries } = await site.admin.listAudit({ limit: 100, tool: 'tickets' })
    const renewal = entries.find(({ event }) => event['renews'] !== undefined)?.event['grant']
    expect(entries.some(({ type, event }) => type === 'grant.revoked' && event['grant'] === renewal)).toBe(true)
  })
})
