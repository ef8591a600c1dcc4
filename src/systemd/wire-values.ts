/** The values of D-Bus's wire format: https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol-marshaling */

/** Bytes that are no message of D-Bus: nothing after them can be understood. */
export class WireBroken extends Error {
  override readonly name = 'WireBroken';
}

/** What the specification allows. */
const MOST_DEPTH = 64;

export const aligned = (at: number, to: number) => Math.ceil(at / to) * to;

/** `sa{sv}as` is `s`, `a{sv}` and `as`. */
export function completeTypes(signature: string): string[] {
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

export class Reader {
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

export class Writer {
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
