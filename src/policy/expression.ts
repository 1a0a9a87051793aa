import type { CedarValueJson, Expr, PolicyJson, TypeAndId } from './cedar.ts'

type Fields = Readonly<Record<string, unknown>>

/**
 * One node of a condition in Cedar's JSON form: its operator, its operands, and the fields that are neither. `known` is
 * false for what this file has never heard of; whoever analyses a rule must then assume the worst.
 */
export interface ExpressionNode {
  readonly operator: string
  readonly operands: readonly Expr[]
  readonly fields: Fields
  readonly known: boolean
}

const operandNames: Readonly<Record<string, readonly string[]>> = {
  '!': ['arg'],
  neg: ['arg'],
  isEmpty: ['arg'],
  '.': ['left'],
  has: ['left'],
  like: ['left'],
  is: ['left', 'in'],
  'if-then-else': ['if', 'then', 'else'],
  ...Object.fromEntries(
    ['==', '!=', 'in', '<', '<=', '>', '>=', '&&', '||', '+', '-', '*', 'contains', 'containsAll', 'containsAny'].map(
      (operator) => [operator, ['left', 'right']],
    ),
  ),
  getTag: ['left', 'right'],
  hasTag: ['left', 'right'],
}

/** Reads one node. An expression is an object with one member, named by its operator. */
export function readNode(expression: Expr): ExpressionNode {
  const [entry, ...more] = Object.entries(expression)
  const unknown = { operands: [], fields: {}, known: false }
  if (entry === undefined || more.length > 0) return { operator: '', ...unknown }
  const [operator, body] = entry
  if (operator === 'Value' || operator === 'Var') return { operator, operands: [], fields: { value: body }, known: true }
  // A set, or an extension's function with its arguments: the type of EST says that these are expressions.
  if (Array.isArray(body)) return { operator, operands: body as Expr[], fields: {}, known: true }
  if (typeof body !== 'object' || body === null) return { operator, ...unknown }
  const fields: Fields = { ...body }
  if (operator === 'Record') {
    // The type of EST says so: a record's members are expressions.
    return { operator, operands: Object.values(fields) as Expr[], fields: {}, known: true }
  }
  const names = Object.hasOwn(operandNames, operator) ? operandNames[operator] : undefined
  if (names === undefined) return { operator, ...unknown }
  // The operands of a known operator are expressions; `in` of `is` is optional.
  const operands = names.map((name) => fields[name]).filter((operand) => operand !== undefined) as Expr[]
  return { operator, operands, fields, known: true }
}

/** Calls `visit` for every node of an expression, the outer before the inner. */
export function walkExpression(expression: Expr, visit: (node: ExpressionNode) => void): void {
  const node = readNode(expression)
  visit(node)
  for (const operand of node.operands) walkExpression(operand, visit)
}

/** Calls `visit` for every node of every condition of a policy. */
export function walkConditions(policy: PolicyJson, visit: (node: ExpressionNode) => void): void {
  for (const clause of policy.conditions) walkExpression(clause.body, visit)
}

/** The variable's name if the expression is just a variable. */
export function readVariable(expression: Expr | undefined): string | undefined {
  if (expression === undefined) return undefined
  const { operator, fields } = readNode(expression)
  return operator === 'Var' && typeof fields['value'] === 'string' ? fields['value'] : undefined
}

/** The entity that a value names, if it is an entity literal. */
export function readEntity(value: unknown): TypeAndId | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const inner: unknown = '__entity' in value ? value.__entity : value
  if (typeof inner !== 'object' || inner === null || !('type' in inner) || !('id' in inner)) return undefined
  return typeof inner.type === 'string' && typeof inner.id === 'string' ? { type: inner.type, id: inner.id } : undefined
}

/** The literal values that an expression may be: itself, the elements of a set, the outcomes of an `if`. */
export function literalValues(expression: Expr | undefined): CedarValueJson[] {
  if (expression === undefined) return []
  const { operator, operands, fields } = readNode(expression)
  // The type of EST says so: `Value` holds a Cedar value.
  if (operator === 'Value') return [fields['value'] as CedarValueJson]
  if (operator === 'Set') return operands.flatMap(literalValues)
  return operator === 'if-then-else' ? operands.slice(1).flatMap(literalValues) : []
}
