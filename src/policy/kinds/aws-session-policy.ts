/** What an action of an `aws-sts` tool allows: a statement of a session policy, with `{target}` where the target goes. */
export interface AwsStatement {
  readonly actions: readonly string[]
  readonly resources: readonly string[]
  /** By operator, then by condition key. */
  readonly conditions?: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> | undefined
}

/** The plain text of a session policy has at most as many characters: STS API Reference, AssumeRole, Policy. */
export const sessionPolicyLengthMax = 2_048

/** Stands in a catalog file where the target of the request goes. */
export const targetPlaceholder = '{target}'

/**
 * What a session may never do, whatever the role may: the session of another role keeps no session policy of this one. A
 * role that trusts the session itself by name would get past a policy that only does not allow it.
 */
const never = { Effect: 'Deny', Action: 'sts:Assume*', Resource: '*' }

/**
 * The session policy for just these statements: JSON without spaces, the same for the same statements in whatever order, each
 * once. The target has been judged by `findAwsTargetProblem`, so that it stands in a pattern for nothing but itself.
 */
export function compileSessionPolicy(statements: readonly AwsStatement[], target: string | undefined): string {
  const allowed = new Set(statements.map((statement) => JSON.stringify(compileStatement(statement, target))))
  return `{"Version":"2012-10-17","Statement":[${[...[...allowed].sort(), JSON.stringify(never)].join(',')}]}`
}

/** The statement that allows nothing at all, for a session that is only to show whether there could be one. */
export const denyAllPolicy = '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}'

/** Whether the target has a place in one of the statements. */
export function usesTarget(statements: readonly AwsStatement[]): boolean {
  return statements.some((statement) => JSON.stringify(statement).includes(targetPlaceholder))
}

/**
 * Whether the target confines a statement: it stands in each resource, or in each value of one condition, by an operator that
 * holds for nothing where the request has no such key, and for no list of which a part fits.
 */
export function isConfined({ resources, conditions }: AwsStatement): boolean {
  const areFilled = (texts: readonly string[]): boolean => texts.every((text) => text.includes(targetPlaceholder))
  if (areFilled(resources)) return true
  return Object.entries(conditions ?? {}).some(([operator, keys]) => /^(?:String|Arn)(?:Equals|EqualsIgnoreCase|Like)$/.test(operator) && Object.values(keys).some(areFilled))
}

/** What writing the deny policies of a role needs, and checking that they are attached to it. */
export function compileDenyingPolicy(policies: readonly string[], role: string): string {
  const writing = ['GetPolicy', 'GetPolicyVersion', 'ListPolicyVersions', 'CreatePolicyVersion', 'DeletePolicyVersion']
  const looking = ['ListAttachedRolePolicies', 'GetRole']
  const allow = (actions: readonly string[], resources: readonly string[]) => ({ actions: actions.map((action) => `iam:${action}`), resources })
  return compileSessionPolicy([allow(writing, policies), allow(looking, [role])], undefined)
}

/**
 * Why a target is refused whatever the tool's pattern says, or `undefined`. Taken is what names one object in an ARN and
 * means nothing else there: no wildcard, no policy variable, nothing that ends a JSON string, no other account's ARN, no
 * step to another path (invariant 6).
 */
export function findAwsTargetProblem(target: string): string | undefined {
  if (/[*?]/.test(target)) return 'takes no wildcards in a target: name one object'
  if (!/^[A-Za-z0-9 !#%&()+,./;=@_~-]*$/.test(target)) return 'takes a target of ASCII letters, digits, spaces and ! # % & ( ) + , . / ; = @ _ ~ - only'
  if (target !== target.trim()) return 'takes no target that begins or ends with a space'
  const parts = target.split('/')
  if (parts.includes('')) return 'takes no target that begins or ends with a slash or has two in a row'
  return parts.some((part) => /^\.{1,2}$/.test(part)) ? 'takes no target with a part that is . or ..' : undefined
}

function compileStatement({ actions, resources, conditions }: AwsStatement, target: string | undefined): unknown {
  const fill = (text: string): string => {
    if (!text.includes(targetPlaceholder)) return text
    if (target === undefined) throw new Error('a statement needs a target, and the request names none')
    return text.replaceAll(targetPlaceholder, () => target)
  }
  const written = Object.entries(conditions ?? {}).map(([operator, keys]) => [operator, Object.fromEntries(Object.entries(keys).map(([key, values]) => [key, shorten(values.map(fill))]))] as const)
  return {
    Effect: 'Allow',
    Action: shorten(actions),
    Resource: shorten(resources.map(fill)),
    ...(written.length > 0 && { Condition: Object.fromEntries(written) }),
  }
}

/** A list of one is written as that one. */
function shorten(values: readonly string[]): string | readonly string[] {
  const [only] = values
  return values.length === 1 && only !== undefined ? only : values
}
