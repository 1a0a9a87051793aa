/** The files of a policy set under which the load works; the note makes it another set. */
export function policyFiles(note: string): Record<string, string> {
  return {
    'tools/tickets.yaml': `tool: tickets
connector: jwt
audience: https://tickets.test
sensitivity: low
ttl: { default: 10m, max: 1h }
actions: { read: {}, comment: {}, close: {} }
`,
    'rules.cedar': `// ${note}
@id("support-works-on-tickets")
permit (principal in Team::"support", action in [Action::"tickets:read", Action::"tickets:comment"], resource in Tool::"tickets");
`,
  }
}
