import createConnection from 'dbus-next/lib/connection.js';
import { Message } from 'dbus-next/lib/message-type.js';

/** The bus is not there, went away, or did not answer in time. What was asked may or may not have been done. */
export class BusUnreachable extends Error {
  override readonly name = 'BusUnreachable';
}

/** The bus, systemd or polkit does not let us: it would not help to ask again. */
export class BusDenied extends Error {
  override readonly name = 'BusDenied';
}

/** What was asked was answered with an error; `code` is its D-Bus name. */
export class BusFailure extends Error {
  override readonly name = 'BusFailure';
  readonly code: string;
  constructor(code: string, message: string) {
    super(message === '' ? code : message);
    this.code = code;
  }
}

export interface BusCall {
  destination?: string;
  path: string;
  interface: string;
  member: string;
  signature?: string;
  body?: unknown[];
}

export interface BusSignal {
  path: string;
  interface: string;
  member: string;
  body: unknown[];
}

export interface BusConnection {
  /** @throws BusUnreachable, BusDenied or BusFailure, within `timeoutMs`. */
  call(call: BusCall, timeoutMs: number): Promise<unknown[]>;
  /** Ends when the connection does, whoever ended it. */
  readonly closed: Promise<void>;
  close(): void;
}

const BUS = 'org.freedesktop.DBus';
const METHOD_RETURN = 2;
const ERROR = 3;
const SIGNAL = 4;
const DENIED = new Set([
  'org.freedesktop.DBus.Error.AccessDenied',
  'org.freedesktop.DBus.Error.AuthFailed',
  'org.freedesktop.DBus.Error.InteractiveAuthorizationRequired',
]);

/**
 * One connection, said hello to. Built on dbus-next's wire format and handshake alone: its MessageBus never times a call
 * out, leaves calls pending when the bus goes, ends the process when its hello is refused, and brings an XML parser.
 * @param socket path of the bus's socket.
 */
export async function openBus(socket: string, timeoutMs: number, onSignal: (signal: BusSignal) => void): Promise<BusConnection> {
  // `socket=`: through node:net; `path=` would look for a native module first.
  const connection = createConnection({ busAddress: `unix:socket=${socket}`, authMethods: ['EXTERNAL'] });
  const pending = new Map<number, { resolve(body: unknown[]): void; reject(error: Error): void }>();
  const closing = Promise.withResolvers<void>();
  let lost: Error | undefined;
  let serial = 0;

  function end(why: Error): void {
    if (lost) return;
    lost = why;
    for (const { reject } of pending.values()) reject(why);
    pending.clear();
    connection.stream.destroy();
    closing.resolve();
  }

  connection.on('error', (error: unknown) => end(new BusUnreachable(`the bus at ${socket}: ${messageOf(error)}`)));
  connection.stream.on('close', () => end(new BusUnreachable(`the bus at ${socket} went away`)));
  connection.on('message', (message: Message & { replySerial: number; errorName: string }) => {
    if (Number(message.type) === SIGNAL) {
      const { path, interface: name, member, body } = message;
      return onSignal({ path: path ?? '', interface: name ?? '', member: member ?? '', body });
    }
    const waiting = pending.get(message.replySerial);
    if (!waiting) return;
    if (Number(message.type) === METHOD_RETURN) waiting.resolve(message.body);
    else if (Number(message.type) === ERROR) waiting.reject(errorOf(message.errorName, message.body));
  });

  async function call(asked: BusCall, limitMs: number): Promise<unknown[]> {
    if (lost) throw lost;
    serial += 1;
    const mine = serial;
    const { promise, resolve, reject } = Promise.withResolvers<unknown[]>();
    pending.set(mine, { resolve, reject });
    const tooLate = () => reject(new BusUnreachable(`${asked.member} was not answered within ${limitMs / 1000} s`));
    const timer = setTimeout(tooLate, limitMs);
    try {
      connection.message(new Message({ destination: BUS, ...asked, serial: mine }));
      return await promise;
    } finally {
      clearTimeout(timer);
      pending.delete(mine);
    }
  }

  const opened: BusConnection = { call, closed: closing.promise, close: () => end(new BusUnreachable('closed')) };
  try {
    await call({ path: '/org/freedesktop/DBus', interface: BUS, member: 'Hello' }, timeoutMs);
    return opened;
  } catch (error) {
    opened.close();
    throw error;
  }
}

function errorOf(code: string, [text]: readonly unknown[]): Error {
  const message = typeof text === 'string' ? text : '';
  return DENIED.has(code) ? new BusDenied(message === '' ? code : message) : new BusFailure(code, message);
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
