import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { createDecoder } from '../../src/systemd/wire.ts';

/** What a scripted bus writes: values in the order of the signature, variants as `[signature, value]`. */
export interface Written {
  sender: string;
  signature?: string;
  body?: readonly unknown[];
  /** Of an answer: the name of the error that it is. */
  error?: string;
}

export interface Asked {
  member: string;
  body: unknown[];
}

/** A bus that says what it is told to, as D-Bus has it but in the other byte order. `answer`: undefined for none, ever. */
export async function createScriptedBus(answer: (asked: Asked) => Written | undefined) {
  const socket = join(tmpdir(), `reclaimd-bus-${randomUUID()}`);
  const clients = new Set<Socket>();
  const asked: Asked[] = [];
  const server = createServer((client) => {
    clients.add(client.on('close', () => clients.delete(client)).on('error', () => client.destroy()));
    void serve(client);
  });

  async function serve(client: Socket): Promise<void> {
    let said = '';
    while (!said.endsWith('\r\n')) said += String((await once(client, 'data'))[0]);
    client.write('OK 0123456789abcdef0123456789abcdef\r\n');
    const [begin] = (await once(client, 'data')) as [Buffer];
    let serial = 0;
    const decode = createDecoder((message) => {
      serial += 1;
      const call = { member: message.member ?? '', body: message.readBody() };
      asked.push(call);
      const written = answer(call);
      if (written) client.write(reply(serial, written));
    });
    client.on('data', decode);
    decode(begin.subarray('BEGIN\r\n'.length));
  }

  await new Promise<void>((done) => server.listen(socket, done));
  onTestFinished(() => {
    for (const client of clients) client.destroy();
    server.close();
  });
  return {
    socket,
    asked,
    /** How many are connected. */
    clients: () => clients.size,
    /** To every client, in one write. */
    send: (...messages: Buffer[]) => {
      for (const client of clients) client.write(Buffer.concat(messages));
    },
  };
}

export function signal({ path, interface: name, member, ...rest }: Written & { path: string; interface: string; member: string }): Buffer {
  return encode({
    type: 4,
    fields: [
      [1, 'o', path],
      [2, 's', name],
      [3, 's', member],
    ],
    ...rest,
  });
}

export const reply = (serial: number, { error, ...written }: Written) =>
  encode({ type: error ? 3 : 2, fields: [[5, 'u', serial], ...(error ? [[4, 's', error] as Field] : [])], ...written });

type Field = [number, string, unknown];

function encode({ type, fields, sender, signature = '', body = [] }: Written & { type: number; fields: Field[] }): Buffer {
  const content = marshal([`(${signature})`], [body]);
  const all = [...fields, [7, 's', sender], ...(signature === '' ? [] : [[8, 'g', signature]])].map(([code, kind, value]) => [
    code,
    [kind, value],
  ]);
  const head = marshal(['y', 'y', 'y', 'y', 'u', 'u', 'a(yv)'], [0x42, type, 0, 1, content.length, 1, all]);
  return Buffer.concat([head, Buffer.alloc(-head.length & 7), content]);
}

function marshal(types: readonly string[], values: readonly unknown[]): Buffer {
  const bytes: number[] = [];
  const align = (to: number) => {
    while (bytes.length % to !== 0) bytes.push(0);
  };
  const put = (size: number, value: bigint) => {
    align(size);
    for (let at = size - 1; at >= 0; at--) bytes.push(Number((value >> BigInt(8 * at)) & 255n));
  };
  const write = (type: string, value: unknown): void => {
    const inner = type.slice(1);
    if (type === 'y') put(1, BigInt(value as number));
    else if ('nq'.includes(type)) put(2, BigInt(value as number));
    else if ('buih'.includes(type)) put(4, BigInt(value as number));
    else if ('xt'.includes(type)) put(8, BigInt(value as number));
    else if ('so'.includes(type)) {
      put(4, BigInt(Buffer.byteLength(value as string)));
      bytes.push(...Buffer.from(`${value}\0`));
    } else if (type === 'g') bytes.push((value as string).length, ...Buffer.from(`${value}\0`));
    else if (type === 'v') {
      const [kind, held] = value as [string, unknown];
      write('g', kind);
      write(kind, held);
    } else if (type.startsWith('a')) {
      put(4, 0n);
      const lengthAt = bytes.length - 4;
      align(/^[({xtd]/.test(inner) ? 8 : /^[ygv]/.test(inner) ? 1 : 4);
      const from = bytes.length;
      const elements = inner.startsWith('{') ? Object.entries(value as object) : [...(value as Iterable<unknown>)];
      for (const element of elements) write(inner, element);
      Buffer.from([24, 16, 8, 0].map((shift) => ((bytes.length - from) >> shift) & 255)).forEach((byte, index) => {
        bytes[lengthAt + index] = byte;
      });
    } else {
      align(8);
      for (const [index, part] of split(type.slice(1, -1)).entries()) write(part, (value as unknown[])[index]);
    }
  };
  for (const [index, type] of types.entries()) write(type, values[index]);
  return Buffer.from(bytes);
}

function split(signature: string): string[] {
  return signature.match(/a*(\((?:[^()]|\([^()]*\))*\)|\{[^}]*\}|[^({a])/g) ?? [];
}
