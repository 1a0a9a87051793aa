import { z } from 'zod'
import { roles } from '../identity/operator.ts'
import { defineRoute, type Route } from './route.ts'

export const metricsRoutes: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/metrics',
    // Rates tell strangers how busy whom is, and whether their own attempts are noticed.
    access: roles,
    summary: 'Figures for Prometheus, which sends a credential by authorization.credentials_file',
    answers: { 200: { description: 'The text exposition format 0.0.4', type: 'text/plain', schema: z.string() } },
    async handle(c) {
      const { metrics } = c.get('broker')
      return c.body(await metrics.read(), 200, { 'content-type': metrics.contentType })
    },
  }),
]
