import { aligned, completeTypes, Reader, WireBroken, Writer } from './wire-values.ts';

/**
 * The wire format of D-Bus, as far as it takes to call methods with text and to understand whatever comes back.
 * https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol
 *
 * Our own: dbus-next reads whatever strangers address to us, and what it cannot read ends the process.
 */

export const TYPE = { call: 1, reply: 2, error: 3, signal: 4 };

export interface Received {
  type: number;
  /** Of the call that this answers. */
  replySerial: number | undefined;
  path: string | undefined;
  interface: string | undefined;
  member: string | undefined;
  errorName: string | undefined;
  /** Written by the bus: nobody can claim another's. */
  sender: string | undefined;
  /** Structs and arrays are arrays, dictionaries objects, bytes a Buffer, variants what they hold, all numbers numbers. */
  readBody(): unknown[];
}

export interface Call {
  serial: number;
  destination: string;
  path: string;
  interface: string;
  member: string;
  body: readonly (string | readonly string[])[];
}

/** What the specification allows. */
const MOST_BYTES = 1 << 27;
const FIXED_HEADER = 16;
const FIELD = { path: 1, interface: 2, member: 3, errorName: 4, replySerial: 5, destination: 6, sender: 7, signature: 8 };
const [LITTLE, BIG] = [0x6c, 0x42];

export function encodeCall(call: Call): Buffer {
  const body = new Writer();
  for (const argument of call.body) {
    if (typeof argument === 'string') body.text(argument);
    else
      body.array(4, () => {
        for (const each of argument) body.text(each);
      });
  }
  const signature = call.body.map((argument) => (typeof argument === 'string' ? 's' : 'as')).join('');
  const content = body.bytes();
  const message = new Writer();
  message.raw(LITTLE, TYPE.call, 0, 1);
  message.number(content.length);
  message.number(call.serial);
  message.array(8, () => {
    const field = (code: number, type: string, value: string) => {
      message.align(8);
      message.raw(code);
      message.signature(type);
      if (type === 'g') message.signature(value);
      else message.text(value);
    };
    field(FIELD.path, 'o', call.path);
    field(FIELD.interface, 's', call.interface);
    field(FIELD.member, 's', call.member);
    field(FIELD.destination, 's', call.destination);
    if (signature !== '') field(FIELD.signature, 'g', signature);
  });
  message.align(8);
  return Buffer.concat([message.bytes(), content]);
}

/** Takes the stream as it comes. @throws WireBroken, from the function it returns. */
export function createDecoder(onMessage: (message: Received) => void): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  let have = 0;
  /** Until then nothing is put together: a large message comes in many pieces. */
  let need = FIXED_HEADER;
  return (chunk) => {
    parts.push(chunk);
    have += chunk.length;
    while (have >= need) {
      const bytes = Buffer.concat(parts);
      parts = [];
      let at = 0;
      // All that have come whole are read from one piece.
      while (have - at >= FIXED_HEADER) {
        need = sizeOf(bytes.subarray(at));
        if (have - at < need) break;
        const message = bytes.subarray(at, at + need);
        at += need;
        need = FIXED_HEADER;
        onMessage(decode(message));
      }
      parts = [bytes.subarray(at)];
      have -= at;
    }
  };
}

function sizeOf(start: Buffer): number {
  const reader = readerOf(start);
  reader.at = 4;
  const body = reader.number();
  reader.at = 12;
  const size = FIXED_HEADER + aligned(reader.number(), 8) + body;
  if (size > MOST_BYTES) throw new WireBroken(`a message of ${size} bytes`);
  return size;
}

function readerOf(message: Buffer): Reader {
  if (message[0] !== LITTLE && message[0] !== BIG) throw new WireBroken(`a message that begins with ${message[0]}`);
  return new Reader(message, message[0] === LITTLE);
}

function decode(message: Buffer): Received {
  const reader = readerOf(message);
  reader.at = 12;
  const fields = new Map(reader.read('a(yv)') as [number, unknown][]);
  reader.align(8);
  const bodyAt = reader.at;
  const text = (code: number) => fields.get(code) as string | undefined;
  return {
    type: message[1] ?? 0,
    replySerial: fields.get(FIELD.replySerial) as number | undefined,
    path: text(FIELD.path),
    interface: text(FIELD.interface),
    member: text(FIELD.member),
    errorName: text(FIELD.errorName),
    sender: text(FIELD.sender),
    readBody: () => {
      reader.at = bodyAt;
      return completeTypes(text(FIELD.signature) ?? '').map((type) => reader.read(type));
    },
  };
}
