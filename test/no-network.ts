import { Socket } from 'node:net'

/** Refuses every connection that leaves this machine, so that no test depends on the world outside or talks to it. */
const connect = Socket.prototype.connect
Socket.prototype.connect = function (this: Socket, ...args: unknown[]) {
  const options = Array.isArray(args[0]) ? (args[0][0] as unknown) : args[0]
  const host = typeof options === 'object' && options !== null && 'host' in options ? options.host : undefined
  if (typeof host === 'string' && !/^(?:localhost|127\.\d+\.\d+\.\d+|::1)$/.test(host)) {
    throw new Error(`a test tried to reach ${host}: tests talk to this machine only`)
  }
  // The original's overloads cannot be named through one signature.
  return Reflect.apply(connect, this, args) as Socket
} as typeof connect
