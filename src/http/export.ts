import type { HttpBindings } from '@hono/node-server'
import { z } from 'zod'
import { csvHeader, formatCsvLine } from '../audit/csv.ts'
import { exportAudit, findExportRange, type ExportFormat, type ExportRange, type ExportSelection } from '../broker/export-audit.ts'
import { BrokerError } from '../kernel/errors.ts'
import type { StoredEntry } from '../storage/audit-windows.ts'
import { entryFilter, entryIndex, given } from './audit.ts'
import { operatorCaller, proveOperator, requireRole } from './guards.ts'
import { instant, oneOf } from './query.ts'
import { defineRoute, type Route, type RouteContext } from './route.ts'
import { streamPages, type PageStream } from './stream.ts'

/** Who may have the log, and its proof. */
export const mayExport = ['admin', 'auditor'] as const

const exportQuery = z
  .strictObject({
    ...entryFilter,
    from: instant.optional().describe('Only entries from this instant on.'),
    to: instant.optional().describe('Only entries before this instant.'),
    after: entryIndex.optional().describe('Only entries of a greater index: where an export that was cut off goes on.'),
    until: entryIndex.optional().describe('The last index: stint-export-last of the export that was cut off.'),
    format: oneOf(['jsonl', 'csv']).default('jsonl'),
  })
  .refine(({ from, to }) => from === undefined || to === undefined || from <= to, { path: ['from'], message: 'must not be after to' })
  .refine(({ after, until }) => after === undefined || until === undefined || after <= until, { path: ['after'], message: 'must not be beyond until' })

export const exportRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/audit/export',
    access: mayExport,
    summary: 'Export the log, the oldest entries first',
    query: exportQuery,
    answers: {
      200: {
        description: 'One entry a line: as JSON Lines the very bytes that were hashed, or as CSV. Complete if the transfer was not cut off.',
        type: ['application/jsonl', 'text/csv'],
        schema: z.string(),
      },
    },
    async handle(c, { query: { format, from, to, ...rest } }) {
      refuseUnframed(c)
      const broker = c.get('broker')
      const selection = { ...given(rest), ...(from !== undefined && { fromMs: from }), ...(to !== undefined && { toMs: to }) }
      if (c.req.method === 'HEAD') {
        setExportHeaders(c, format, selection, await findExportRange(broker, selection))
        return c.body(null)
      }
      const exported = await exportAudit(broker, operatorCaller(c), selection, format)
      setExportHeaders(c, format, selection, exported)
      if (exported.auditIndex !== undefined) c.header('stint-audit-index', String(exported.auditIndex))
      return answerPages(c, 'an export', {
        readPages: exported.readPages,
        end: exported.end,
        // A header in the middle of what goes on would be taken for an entry.
        begin: format === 'csv' && selection.after === undefined ? csvHeader : '',
        format: format === 'csv' ? formatCsv : formatJsonl,
      })
    },
  }),
]

/** Answers with the pages, for as long as whoever asked may have them. `what` it is, for the operator's log. */
export function answerPages<T>(c: RouteContext, what: string, pages: Pick<PageStream<T>, 'readPages' | 'begin' | 'format' | 'end'>): Response {
  const { ledger, log } = c.get('broker')
  const body = streamPages({
    ...pages,
    mayGoOn: async () => requireRole(await proveOperator(c), mayExport),
    nowMs: ledger.nowMs,
    log: (error) => log.warn(`${what} was cut off`, { request_id: c.get('requestId'), error }),
    ...(connectionOf(c) && { cut: () => connectionOf(c)?.outgoing.destroy() }),
  })
  return c.body(body)
}

function setExportHeaders(c: RouteContext, format: ExportFormat, { after }: ExportSelection, { first, last }: ExportRange): void {
  const csvType = after === undefined ? 'text/csv; charset=utf-8' : 'text/csv; charset=utf-8; header=absent'
  c.header('content-type', format === 'csv' ? csvType : 'application/jsonl')
  c.header('content-disposition', `attachment; filename="stint-audit-${first}-${last}.${format}"`)
  c.header('stint-export-first', String(first))
  c.header('stint-export-last', String(last))
}

/** Each line is the bytes that were hashed and nothing else: SHA-256 of `0x00 ‖ line` is the leaf (RFC 6962 §2.1). */
function formatJsonl(entries: readonly StoredEntry[]): string {
  return entries.map(({ body }) => `${body}\n`).join('')
}

function formatCsv(entries: readonly StoredEntry[]): string {
  return entries.map(({ body }) => formatCsvLine(body)).join('')
}

/** Behind a real server, the connection. */
function connectionOf(c: RouteContext): HttpBindings | undefined {
  // What the adaptor hands over as the environment; without a server there is none.
  return (c.env as Partial<HttpBindings> | undefined)?.outgoing === undefined ? undefined : (c.env as HttpBindings)
}

/** HTTP/1.0 has no chunks: there, an export that was cut off looks like a whole one to everybody behind. */
function refuseUnframed(c: RouteContext): void {
  if (connectionOf(c)?.incoming.httpVersion !== '1.0') return
  throw new BrokerError({
    code: 'invalid_input',
    publicMessage: 'An export needs HTTP/1.1, and this came by HTTP/1.0: let the proxy speak 1.1 to Stint (nginx: proxy_http_version 1.1).',
  })
}
