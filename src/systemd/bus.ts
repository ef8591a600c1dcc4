import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createDecoder, encodeCall, type Received, TYPE } from './wire.ts';

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
  destination: string;
  path: string;
  interface: string;
  member: string;
  body?: readonly (string | readonly string[])[];
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
  /** Has the bus send us the signals of that interface, below that path; of `service` alone, as all of them. */
  listen(rule: { interface: string; path?: string }): Promise<void>;
  /** Why it ended, once it has, whoever ended it. */
  readonly closed: Promise<Error>;
  close(): void;
}

/** The system bus lets a connection have 128 calls unanswered, those that we gave up among them, and fails what is beyond. */
const CALLS_AT_ONCE = 64;

const BUS = 'org.freedesktop.DBus';
const OF_BUS = { destination: BUS, path: '/org/freedesktop/DBus', interface: BUS };
const DENIED = new Set([
  'org.freedesktop.DBus.Error.AccessDenied',
  'org.freedesktop.DBus.Error.AuthFailed',
  'org.freedesktop.DBus.Error.InteractiveAuthorizationRequired',
]);

/**
 * One connection, said hello to, to one service. Anybody on the bus may address a signal to us, whatever we asked to hear:
 * only those of the process that has the service's name are passed on. When another process gets the name, the connection ends.
 * @param socket path of the bus's socket.
 */
export async function openBus(
  socket: string,
  service: string,
  timeoutMs: number,
  onSignal: (signal: BusSignal) => void,
): Promise<BusConnection> {
  const stream = connect(socket);
  const pending = new Map<number, { resolve(body: unknown[]): void; reject(error: Error): void }>();
  /** Calls that wait for others to be answered, in their order. */
  const unsent = new Map<number, { send(): void; reject(error: Error): void }>();
  const closing = Promise.withResolvers<Error>();
  let lost: Error | undefined;
  let serial = 0;
  let owner: unknown;
  /** Counts what came in: who waits can tell whether the bus was silent all the while. */
  let heard = 0;

  function end(why: Error): void {
    if (lost) return;
    lost = why;
    for (const { reject } of [...pending.values(), ...unsent.values()]) reject(why);
    pending.clear();
    unsent.clear();
    stream.destroy();
    closing.resolve(why);
  }

  function onMessage({ type, replySerial = 0, sender, path = '', interface: name = '', member = '', ...message }: Received): void {
    if (sender !== BUS && sender !== owner) return;
    heard += 1;
    if (type === TYPE.reply) pending.get(replySerial)?.resolve(message.readBody());
    else if (type === TYPE.error) pending.get(replySerial)?.reject(errorOf(message.errorName ?? '', message.readBody()));
    else if (type === TYPE.signal && sender === owner) onSignal({ path, interface: name, member, body: message.readBody() });
    else if (type === TYPE.signal && member === 'NameOwnerChanged') end(new BusUnreachable(`${service} is another process now`));
  }

  async function call(asked: BusCall, limitMs: number): Promise<unknown[]> {
    if (lost) throw lost;
    serial += 1;
    const mine = serial;
    const { promise, resolve, reject } = Promise.withResolvers<unknown[]>();
    const message = encodeCall({ body: [], ...asked, serial: mine });
    const send = () => {
      unsent.delete(mine);
      pending.set(mine, { resolve, reject });
      stream.write(message);
    };
    const before = heard;
    const timer = setTimeout(() => {
      const why = new BusUnreachable(`${asked.member} was not answered within ${limitMs / 1000} s`);
      if (heard === before) end(why);
      else reject(why);
    }, limitMs);
    try {
      if (pending.size < CALLS_AT_ONCE) send();
      else unsent.set(mine, { send, reject });
      return await promise;
    } finally {
      clearTimeout(timer);
      pending.delete(mine);
      unsent.delete(mine);
      if (pending.size < CALLS_AT_ONCE) unsent.values().next().value?.send();
    }
  }

  async function addMatch(rule: Record<string, string>): Promise<void> {
    const text = Object.entries({ type: 'signal', ...rule }).map(([key, value]) => `${key}='${value}'`);
    await call({ ...OF_BUS, member: 'AddMatch', body: [text.join(',')] }, timeoutMs);
  }

  const opened: BusConnection = {
    call,
    listen: ({ interface: name, path }) => addMatch({ sender: service, interface: name, ...(path && { path_namespace: path }) }),
    closed: closing.promise,
    close: () => end(new BusUnreachable('closed')),
  };
  stream.on('error', (error) => end(new BusUnreachable(`the bus at ${socket}: ${error.message}`)));
  stream.on('close', () => end(new BusUnreachable(`the bus at ${socket} went away`)));
  const timer = setTimeout(() => end(new BusUnreachable(`the bus at ${socket} has not answered within ${timeoutMs / 1000} s`)), timeoutMs);
  try {
    const authenticated = authenticate(stream);
    await Promise.race([authenticated, closing.promise.then((why) => Promise.reject(why))]);
    clearTimeout(timer);
    const decode = createDecoder(onMessage);
    stream.on('data', (chunk) => {
      try {
        decode(chunk);
      } catch (error) {
        end(new BusUnreachable(`the bus at ${socket} is not to be understood: ${messageOf(error)}`));
      }
    });
    await call({ ...OF_BUS, member: 'Hello' }, timeoutMs);
    await addMatch({ sender: BUS, interface: BUS, member: 'NameOwnerChanged', arg0: service });
    [owner] = await call({ ...OF_BUS, member: 'GetNameOwner', body: [service] }, timeoutMs);
    return opened;
  } catch (error) {
    opened.close();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** By the credentials of the socket. The bus says nothing more before our BEGIN. */
async function authenticate(stream: Socket): Promise<void> {
  const uid = Buffer.from(String(process.getuid?.() ?? 0)).toString('hex');
  stream.write(`\0AUTH EXTERNAL ${uid}\r\n`);
  let answer = '';
  while (!answer.endsWith('\r\n')) {
    const [chunk] = (await once(stream, 'data')) as [Buffer];
    answer += chunk.toString('latin1');
  }
  if (!answer.startsWith('OK ')) throw new BusUnreachable(`the bus does not know us: ${answer.trim()}`);
  stream.write('BEGIN\r\n');
}

function errorOf(code: string, [text]: readonly unknown[]): Error {
  const message = typeof text === 'string' ? text : '';
  return DENIED.has(code) ? new BusDenied(message === '' ? code : message) : new BusFailure(code, message);
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
