/**
 * The wire format of D-Bus, as far as it takes to call methods with text and to understand whatever comes back.
 * https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol
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

/** Bytes that are no message of D-Bus: nothing after them can be understood. */
export class WireBroken extends Error {
  override readonly name = 'WireBroken';
}

/** What the specification allows. */
const MOST_BYTES = 1 << 27;
const MOST_DEPTH = 64;
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

const aligned = (at: number, to: number) => Math.ceil(at / to) * to;

/** `sa{sv}as` is `s`, `a{sv}` and `as`. */
function completeTypes(signature: string): string[] {
  const types: string[] = [];
  for (let at = 0; at < signature.length; ) {
    const end = endOfType(signature, at);
    types.push(signature.slice(at, end));
    at = end;
  }
  return types;
}

function endOfType(signature: string, from: number): number {
  let at = from;
  while (signature[at] === 'a') at += 1;
  let open = 0;
  do {
    const code = signature[at];
    if (code === undefined) throw new WireBroken(`the signature ${signature}`);
    if (code === '(' || code === '{') open += 1;
    if (code === ')' || code === '}') open -= 1;
    at += 1;
  } while (open > 0);
  return at;
}

const ALIGNMENT: Record<string, number> = { y: 1, g: 1, v: 1, n: 2, q: 2, x: 8, t: 8, d: 8, '(': 8, '{': 8 };
const alignmentOf = (type: string) => ALIGNMENT[type[0] ?? ''] ?? 4;

class Reader {
  at = 0;
  readonly #bytes: Buffer;
  readonly #view: DataView;
  readonly #little: boolean;
  #depth = 0;

  constructor(bytes: Buffer, little: boolean) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#little = little;
  }

  align(to: number): void {
    this.at = aligned(this.at, to);
  }

  number(): number {
    return this.#view.getUint32(this.#take(4), this.#little);
  }

  /** One complete type. */
  read(type: string): unknown {
    switch (type[0]) {
      case 'y':
        return this.#view.getUint8(this.#take(1));
      case 'b':
        return this.number() !== 0;
      case 'n':
        return this.#view.getInt16(this.#take(2), this.#little);
      case 'q':
        return this.#view.getUint16(this.#take(2), this.#little);
      case 'i':
        return this.#view.getInt32(this.#take(4), this.#little);
      case 'u':
      case 'h':
        return this.number();
      case 'x':
        return Number(this.#view.getBigInt64(this.#take(8), this.#little));
      case 't':
        return Number(this.#view.getBigUint64(this.#take(8), this.#little));
      case 'd':
        return this.#view.getFloat64(this.#take(8), this.#little);
      case 's':
      case 'o':
        return this.#text(this.number());
      case 'g':
        return this.#text(this.read('y') as number);
      case 'v':
        return this.#deeper(() => this.read(this.read('g') as string));
      case 'a':
        return this.#deeper(() => this.#array(type.slice(1)));
      case '(':
        this.align(8);
        return this.#deeper(() => completeTypes(type.slice(1, -1)).map((each) => this.read(each)));
      default:
        throw new WireBroken(`the type ${type}`);
    }
  }

  #array(type: string): unknown {
    const length = this.number();
    this.align(alignmentOf(type));
    const end = this.at + length;
    if (end > this.#bytes.length) throw new WireBroken('an array that is longer than its message');
    if (type === 'y') return this.#bytes.subarray(this.#skip(length), end);
    const found: unknown[] = [];
    const entry = type[0] === '{' ? `(${type.slice(1, -1)})` : type;
    while (this.at < end) found.push(this.read(entry));
    return entry === type ? found : Object.fromEntries(found as [string, unknown][]);
  }

  #text(length: number): string {
    const from = this.#skip(length + 1);
    return this.#bytes.toString('utf8', from, from + length);
  }

  /** Everything of a fixed size is aligned to that. */
  #take(size: number): number {
    if (size === 2 || size === 4 || size === 8) this.align(size);
    return this.#skip(size);
  }

  #skip(size: number): number {
    const from = this.at;
    this.at += size;
    if (this.at > this.#bytes.length) throw new WireBroken('a message that ends too early');
    return from;
  }

  #deeper(read: () => unknown): unknown {
    this.#depth += 1;
    if (this.#depth > MOST_DEPTH) throw new WireBroken('a message that is nested too deeply');
    const value = read();
    this.#depth -= 1;
    return value;
  }
}

class Writer {
  readonly #parts: Buffer[] = [];
  #at = 0;

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }

  raw(...bytes: number[]): void {
    this.#put(Buffer.from(bytes));
  }

  align(to: number): void {
    this.#put(Buffer.alloc(aligned(this.#at, to) - this.#at));
  }

  number(value: number): Buffer {
    this.align(4);
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    this.#put(bytes);
    return bytes;
  }

  text(value: string): void {
    this.number(Buffer.byteLength(value));
    this.#put(Buffer.from(`${value}\0`));
  }

  signature(value: string): void {
    this.raw(value.length);
    this.#put(Buffer.from(`${value}\0`));
  }

  /** Its length does not count what aligns the first of its elements. */
  array(alignment: number, writeElements: () => void): void {
    const length = this.number(0);
    this.align(alignment);
    const from = this.#at;
    writeElements();
    length.writeUInt32LE(this.#at - from);
  }

  #put(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.#at += bytes.length;
  }
}
