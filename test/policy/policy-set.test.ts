import { describe, expect, test } from 'vitest'
import { hashPolicyFiles, loadPolicySet } from '../../src/policy/policy-set.ts'
import { formatProblem } from '../../src/policy/problem.ts'
import { docsYaml, filesWith, paymentsYaml, problemsOf, setOf, ticketsYaml, tools } from './sample.ts'

const permit = '@id("a") permit (principal, action == Action::"tickets:read", resource);'

test('a set holds its policies with id, effect, place, reason, in the order of files and lines', () => {
  const set = setOf(`// first\n@id("b")\n@reason("why")\nforbid (principal, action, resource);\n\n${permit}`, [['a/x.cedar', permit.replace('"a"', '"c"')]])
  expect(set.policies.map(({ id, effect, file, line, reason, ordinal }) => ({ id, effect, file, line, reason, ordinal }))).toEqual([
    { id: 'c', effect: 'permit', file: 'a/x.cedar', line: 1, reason: undefined, ordinal: 0 },
    { id: 'b', effect: 'forbid', file: 'rules.cedar', line: 2, reason: 'why', ordinal: 1 },
    { id: 'a', effect: 'permit', file: 'rules.cedar', line: 6, reason: undefined, ordinal: 2 },
  ])
  expect(set.hash).toMatch(/^[0-9a-f]{64}$/)
  expect([...set.catalog.keys()].sort()).toEqual(['docs', 'payments', 'tickets'])
})

describe('the hash', () => {
  test('is of paths and texts of rules and catalog, in any order, without the tests', () => {
    const files = filesWith(permit)
    const hash = hashPolicyFiles(files)
    expect(hashPolicyFiles(new Map([...files].toReversed()))).toBe(hash)
    expect(hashPolicyFiles(new Map([...files, ['tests/x.yaml', 'anything']]))).toBe(hash)
    expect(setOf(permit).hash).toBe(hash)
    expect(hashPolicyFiles(filesWith(`${permit}\n`))).not.toBe(hash)
    expect(hashPolicyFiles(new Map([...tools, ['other.cedar', permit]]))).not.toBe(hash)
  })

  test('is pinned: it names sets for ever', () => {
    expect(hashPolicyFiles(new Map([['a.cedar', 'x'], ['tools/ü.yaml', 'é\r\n']]))).toBe(
      'ce4c4dbe0b00de0b27be465c4c60f84c5515da643bb102cc64b22f529da0fabd',
    )
  })

  test('tells apart what plain joining would not', () => {
    const hashes = [
      [['a.cedar', 'b'], ['c.cedar', 'd']],
      [['a.cedar', 'b7:c.cedar1:d']],
      [['a.cedar', ''], ['b.cedar', '']],
      [['a.cedar', 'b.cedar']],
    ].map((entries) => hashPolicyFiles(new Map(entries.map(([path = '', text = '']) => [path, text]))))
    expect(new Set(hashes).size).toBe(hashes.length)
  })
})

describe('problems have file, line, column and the nearest valid name', () => {
  test.each<[string, string, string[]]>([
    ['syntax', '@id("a")\npermit (principal, action resource);', ['2:27 unexpected token `resource`: expected `!=`, `)`, `,`, `:`, `<`, `<=`, `==`, `>`, `>=`, `in`, or `is`']],
    ['no semicolon at the end', `${permit}\n@id("b") permit (principal, action, resource)`, ['2:46 unexpected end of input: expected `;` or identifier']],
    ['every broken policy', 'permit (;\n@id("b") permit (principal, action, resource) when { foo };\nforbid );', [
      '1:9 unexpected token `;`: expected `)` or identifier',
      '2:54 invalid variable: foo; the valid Cedar variables are `principal`, `action`, `resource`, and `context`; did you mean to enclose `foo` in quotes to make a string?',
      '3:8 unexpected token `)`: expected `(`',
    ]],
    ['after CRLF, comments and non-ASCII text', '// ünï; "\r\n@id("ok") @reason("größe; // €")\r\nforbid (principal, action, resource);\r\n\r\n/* no */', ['5:1 unexpected token `/`: expected `@` or identifier']],
    ['behind non-ASCII text on the same line', '@id("a") @reason("größe €𝔘") permit (principal, action == Action::"tickets:raed", resource);', ['1:60 no action is named "tickets:raed" (did you mean tickets:read?)']],
    ['Cedar byte offsets behind non-ASCII text', '@id("a") @reason("größe €𝔘") permit (principal, action, resource) when { context.tll > duration("1m") };', ['1:75 attribute `tll` in context not found (did you mean ttl?)']],
    ['no id', 'permit (principal, action == Action::"tickets:read", resource);', ['1:1 this policy has no @id("…"): decisions and the audit log name it by its id']],
    ['id without a value', '@id permit (principal, action == Action::"tickets:read", resource);', ['1:1 this policy has no @id("…"): decisions and the audit log name it by its id']],
    ['id that is no label', '@id("Über") permit (principal, action == Action::"tickets:read", resource);', ['1:5 @id "Über" must be at most 64 lower-case letters, digits and hyphens, beginning with a letter']],
    ['long id', `@id("${'a'.repeat(65)}") permit (principal, action == Action::"tickets:read", resource);`, [`1:5 @id "${'a'.repeat(65)}" must be at most 64 lower-case letters, digits and hyphens, beginning with a letter`]],
    ['duplicate id', `${permit}\n  ${permit}`, ['2:3 @id("a") is used already at rules.cedar:1']],
    ['unknown annotation', '@id("a") @reson("x") permit (principal, action == Action::"tickets:read", resource);', ['1:1 unknown annotation @reson: a policy has @id and @reason (did you mean @reason?)']],
    ['template', '@id("a") permit (principal == ?principal, action, resource);', ['1:31 expected a static policy, got a template containing the slot ?principal; try removing the template slot(s) from this policy']],
    ['type error', '@id("a") forbid (principal, action, resource) when { context.ttl > 5 };', ['1:54 unexpected type: expected Long but saw duration']],
    ['warning: never true', '@id("a") forbid (principal, action, resource) when { resource == Workload::"a" };', ['1:1 policy is impossible: the policy expression evaluates to false for all valid requests']],
    ['warning: letters of two alphabets', '@id("a") forbid (principal, action, resource) when { principal.environment == "рrod" };', ['1:79 string `"рrod"` contains mixed scripts']],
    ['optional attribute without has', '@id("a") permit (principal, action == Action::"tickets:read", resource) when { context.task == "x" };', ["1:80 unable to guarantee safety of access to optional attribute `task` in context; try testing for the attribute's presence with `context has task && ..`"]],
    ['hidden line end', '@id("a") forbid (principal, action, resource); // x\rforbid', ['1:52 holds the character U+000D, which can make a rule look like another: remove it']],
    ['turned text', '// \u202e\n', ['1:4 holds the character U+202E, which can make a rule look like another: remove it']],
  ])('%s', (_, rules, expected) => {
    expect(problemsOf(rules)).toEqual(expected.map((problem) => `rules.cedar:${problem}`))
  })
})

describe('names and values that no request will ever have: a forbid on one would fail open (invariant 4)', () => {
  const forbid = (scope: string, condition = ''): string => `@id("x")\nforbid (${scope}) ${condition};`
  const all = 'principal, action, resource'
  test.each<[string, string, string, string]>([
    ['tool in scope', forbid('principal, action, resource in Tool::"ticket"'), 'Tool::"ticket"', 'no tool is named "ticket" (did you mean tickets?)'],
    ['tool in a condition', forbid(all, 'when { resource in Tool::"docz" }'), 'Tool::"docz"', 'no tool is named "docz" (did you mean docs?)'],
    ['tool in a list', forbid(all, 'when { resource in [Tool::"docs", Tool::"paymets"] }'), 'Tool::"paymets"', 'no tool is named "paymets" (did you mean payments?)'],
    ['action in scope', forbid('principal, action == Action::"tickets:raed", resource'), 'Action::"tickets:raed"', 'no action is named "tickets:raed" (did you mean tickets:read?)'],
    ['action in a condition', forbid(all, 'when { action == Action::"tickets:raed" }'), 'Action::"tickets:raed"', 'no action is named "tickets:raed" (did you mean tickets:read?)'],
    ['group', forbid('principal, action in Action::"ticket:*", resource'), 'Action::"ticket:*"', 'no action is named "ticket:*" (did you mean tickets:*?)'],
    ['sensitivity group', forbid('principal, action in Action::"sensitivity:hihg", resource'), 'Action::"sensitivity:hihg"', 'no action is named "sensitivity:hihg" (did you mean sensitivity:high?)'],
    ['group with == in scope', forbid('principal, action == Action::"tickets:*", resource'), 'Action::"tickets:*"', '"tickets:*" is a group of actions: match it with "in", for no action equals it'],
    ['group with == in a condition', forbid(all, 'when { action == Action::"tickets:*" || context.depth > 1 }'), 'Action::"tickets:*"', '"tickets:*" is a group of actions: match it with "in", for no action equals it'],
    ['target of no tool', forbid('principal, action, resource == Target::"docz/wiki"'), 'Target::"docz/wiki"', 'target "docz/wiki" is of a tool that does not exist (did you mean docs/wiki?)'],
    ['target without a tool', forbid('principal, action, resource == Target::"wiki"'), 'Target::"wiki"', 'target "wiki" must be written as "tool/target"'],
    ['target that the pattern excludes', forbid('principal, action, resource == Target::"docs/Wiki"'), 'Target::"docs/Wiki"', 'target "docs/Wiki" can never be requested: docs takes a target (space) that matches [a-z-]+'],
    ['target of a tool without targets', forbid('principal, action, resource == Target::"tickets/7"'), 'Target::"tickets/7"', 'target "tickets/7" can never be requested: tickets has no targets: leave the target out'],
    ['== on a tool whose targets are required', forbid('principal, action, resource == Tool::"payments"'), 'Tool::"payments"', 'requests for payments always name a target: match its targets with "in"'],
    ['the same in a condition', forbid(all, 'when { resource == Tool::"payments" || context.depth > 1 }'), 'Tool::"payments"', 'requests for payments always name a target: match its targets with "in"'],
    ['action of one tool with another', forbid('principal, action == Action::"tickets:read", resource in Tool::"docs"'), 'Tool::"docs"', 'none of the actions in this scope belongs to the tool "docs"'],
    ['workload that is no DNS label', forbid('principal == Workload::"Triage_Bot", action, resource'), 'Workload::"Triage_Bot"', 'no workload can be named "Triage_Bot": names are DNS labels in lower case'],
    ['team that is no label', forbid('principal in Team::"Support", action, resource'), 'Team::"Support"', 'no team can be named "Support": names are DNS labels in lower case'],
    ['stage', forbid(all, 'when { principal.stage == "prodction" }'), '"prodction"', '"prodction" is never the value here: it is one of sandbox, pilot, production (did you mean production?)'],
    ['stage on the left', forbid(all, 'when { "Sandbox" == principal.stage }'), '"Sandbox"', '"Sandbox" is never the value here: it is one of sandbox, pilot, production (did you mean sandbox?)'],
    ['stage with !=', forbid(all, 'unless { principal.stage != "sandbx" }'), '"sandbx"', '"sandbx" is never the value here: it is one of sandbox, pilot, production (did you mean sandbox?)'],
    ['stage in a set', forbid(all, 'when { ["pilot", "sandbx"].contains(principal.stage) }'), '"sandbx"', '"sandbx" is never the value here: it is one of sandbox, pilot, production (did you mean sandbox?)'],
    ['stage by if', forbid(all, 'when { principal.stage == (if context.boundKey then "pilot" else "produktion") }'), '"produktion"', '"produktion" is never the value here: it is one of sandbox, pilot, production (did you mean production?)'],
    ['stage by containsAny', forbid(all, 'when { [principal.stage].containsAny(["prod"]) }'), '"prod"', '"prod" is never the value here: it is one of sandbox, pilot, production'],
    ['stage by like', forbid(all, 'when { principal.stage like "Prod*" }'), '@id', 'this "like" matches none of the possible values: sandbox, pilot, production'],
    ['sensitivity', forbid(all, 'when { resource is Tool && resource.sensitivity == "hi" }'), '"hi"', '"hi" is never the value here: it is one of low, medium, high'],
    ['proof', forbid(all, 'when { context.proof != "private-key-jwt" }'), '"private-key-jwt"', '"private-key-jwt" is never the value here: it is one of private_key_jwt, stint_token (did you mean private_key_jwt?)'],
    ['another entity than the request’s', forbid(all, 'when { Tool::"docs".sensitivity == "low" }'), 'Tool::"docs"', 'asks about Tool::"docs" itself: ask about principal, action or resource instead'],
    ['membership of another entity', forbid(all, 'when { Workload::"a" in Team::"b" }'), 'Workload::"a"', 'asks about Workload::"a" itself: ask about principal, action or resource instead'],
  ])('%s', (_, rules, place, message) => {
    const before = rules.slice(0, rules.indexOf(place)).split('\n')
    expect(problemsOf(rules)).toContain(`rules.cedar:${before.length}:${(before.at(-1)?.length ?? 0) + 1} ${message}`)
  })

  test('what does exist is accepted', () => {
    expect(
      problemsOf(`
@id("a") forbid (principal in Team::"support", action in [Action::"tickets:*", Action::"docs:read"], resource);
@id("b") forbid (principal, action in Action::"sensitivity:high", resource) when { principal.stage == "sandbox" };
@id("c") forbid (principal, action, resource in Tool::"payments") when { ["pilot"].contains(principal.stage) };
@id("d") forbid (principal == Workload::"x-1", action, resource == Target::"payments/acme") when { principal.stage like "p*" };
@id("e") forbid (principal, action == Action::"docs:read", resource == Tool::"docs");
@id("f") permit (principal, action in [Action::"tickets:read", Action::"docs:read"], resource) when { action == Action::"tickets:read" };
@id("g") forbid (principal, action == Action::"tickets:read", resource) when { action in [Action::"docs:*", Action::"tickets:*"] };
`),
    ).toEqual([])
  })

  test('a guard on one target of a tool that can be asked for as a whole is refused', () => {
    for (const scope of ['resource == Target::"docs/wiki"', 'resource in Target::"docs/wiki"', 'resource is Target in Target::"docs/wiki"']) {
      expect(problemsOf(`@id("x") forbid (principal, action, ${scope});`)).toEqual([expect.stringContaining('may leave its target out')])
      expect(problemsOf(`@id("x") permit (principal, action, ${scope});`)).toEqual([])
    }
  })

  test('a guard may be there before the first action of its sensitivity; a permit may not', () => {
    const lowOnly = new Map([['tools/docs.yaml', docsYaml]])
    const load = (effect: string): boolean => {
      return 'set' in loadPolicySet(new Map([...lowOnly, ['r.cedar', `@id("x") ${effect} (principal, action in Action::"sensitivity:high", resource);`]]))
    }
    expect({ forbid: load('forbid'), permit: load('permit') }).toEqual({ forbid: true, permit: false })
    const wrong = '@id("x") forbid (principal, action in Action::"sensitivity:high", resource) when { principal.stgae == "sandbox" };'
    const loaded = loadPolicySet(new Map([...lowOnly, ['r.cedar', wrong]]))
    expect('problems' in loaded && loaded.problems.map(formatProblem)).toEqual([expect.stringContaining('stgae')])
  })
})

describe('the set as a whole', () => {
  const problems = (files: readonly (readonly [string, string])[]): string[] => {
    const loaded = loadPolicySet(new Map(files))
    return 'problems' in loaded ? loaded.problems.map(formatProblem) : []
  }
  test.each<[string, readonly (readonly [string, string])[], string[]]>([
    ['empty catalog', [], ['tools:1:1 the catalog is empty: describe at least one tool in tools/<name>.yaml']],
    ['a tool twice', [...tools, ['tools/z.yaml', ticketsYaml.replace('tickets.example', 'z.example')]], ['tools/z.yaml:1:7 the tool "tickets" is defined already in tools/tickets.yaml']],
    ['an audience twice', [...tools, ['tools/z.yaml', ticketsYaml.replace('tool: tickets', 'tool: other').replace('https://tickets.example.com', 'https://TICKETS.example.com/')]], [
      'tools/z.yaml:3:11 is the audience of "tickets" already: a token for one tool would open the other',
    ]],
    ['unknown kinds of file', [...tools, ['notes.txt', ''], ['tools/x.yml', ''], ['../x.cedar', ''], ['/x.cedar', ''], ['a//x.cedar', ''], ['.hidden.cedar', ''], ['a\\x.cedar', '']],
      ['../x.cedar', '.hidden.cedar', '/x.cedar', 'a//x.cedar', 'a\\x.cedar', 'notes.txt', 'tools/x.yml'].map((path) => {
        return `${path}:1:1 has no place here: rules are *.cedar, tools tools/*.yaml, tests tests/*.yaml`
      })],
    ['a large file', [...tools, ['x.cedar', ' '.repeat(1_048_577)]], ['x.cedar:1:1 is larger than 1048576 bytes: split it']],
    ['large in bytes, not in characters', [...tools, ['x.cedar', `//${'€'.repeat(400_000)}`]], ['x.cedar:1:1 is larger than 1048576 bytes: split it']],
    ['large together', [...tools, ...Array.from({ length: 17 }, (_, i): [string, string] => [`x${i}.cedar`, ' '.repeat(1_048_576)])], ['.:1:1 all files together are larger than 16777216 bytes']],
    ['half a character', [...tools, ['x.cedar', '// \ud800']], ['x.cedar:1:1 is not valid Unicode text']],
    ['problems of several files', [['tools/a.yaml', ticketsYaml.replace('low', 'lwo')], ['tools/b.yaml', paymentsYaml.replace('high', 'hgih')], ['x.cedar', 'permit ();']], [
      'tools/a.yaml:4:14 sensitivity must be one of low, medium, high',
      'tools/b.yaml:4:14 sensitivity must be one of low, medium, high',
      'x.cedar:1:7 this policy is missing the `principal` variable in the scope; policy scopes must contain a `principal`, `action`, and `resource` element in that order',
    ]],
  ])('%s', (_, files, expected) => {
    expect(problems(files)).toEqual(expected)
  })

})
