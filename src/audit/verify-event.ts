import type { JsonObject, JsonValue } from './encode.ts'
import { createTimeReader, timeBytes } from './verify-time.ts'

/** An event with its place in the log, as the rules of its order are told of it. */
export interface Told {
  readonly event: JsonObject
  readonly index: number
  readonly timeMs: number
}

/** What is wrong with an event where it stands; `undefined` where nothing is. */
export type Judged = string | undefined

/** The rules for some types of events: each judges by what came before, then takes note of what the event has changed. */
export type Rules = Readonly<Record<string, (told: Told) => Judged>>

/** A member that is text; empty where there is none. */
export function textOf(event: JsonObject, name: string): string {
  const value = event[name]
  return typeof value === 'string' ? value : ''
}

/** The texts of a member that is a list. */
export function textsOf(event: JsonObject, name: string): string[] {
  const value = event[name]
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : []
}

/** A member that is a time, in milliseconds since the epoch; `undefined` where there is none. */
export function timeOf(event: JsonObject, name: string): number | undefined {
  const text = textOf(event, name)
  return text.length === timeBytes ? createTimeReader()(Buffer.from(text), 0) : undefined
}

/** A member that is an object; an empty one where there is none. */
export function objectOf(event: JsonObject, name: string): JsonObject {
  const value = event[name]
  return isObject(value) ? value : {}
}

export function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
