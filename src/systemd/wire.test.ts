import { expect, test } from 'vitest';
import { createDecoder, encodeCall, type Received } from './wire.ts';
import { WireBroken } from './wire-values.ts';

const CALL = {
  serial: 7,
  destination: 'org.freedesktop.systemd1',
  path: '/org/freedesktop/systemd1',
  interface: 'org.freedesktop.systemd1.Manager',
  member: 'ListUnitsByPatterns',
  body: [[], ['app.service', 'größe@*.service']],
};

function decodeAll(...chunks: Buffer[]): Received[] {
  const received: Received[] = [];
  const decode = createDecoder((message) => received.push(message));
  for (const chunk of chunks) decode(chunk);
  return received;
}

/** A message of the other byte order, with the header field `signature` and that body. */
function messageOf(signature: string, body: number[]): Buffer {
  const field = [8, 1, 0x67, 0, signature.length, ...Buffer.from(signature), 0];
  const padding = Array.from({ length: -(16 + field.length) & 7 }, () => 0);
  return Buffer.from([0x42, 4, 0, 1, 0, 0, 0, body.length, 0, 0, 0, 1, 0, 0, 0, field.length, ...field, ...padding, ...body]);
}

test('a call is understood as it was made, in whatever pieces it comes', () => {
  const bytes = encodeCall(CALL);
  const pieces = Array.from(Buffer.concat([bytes, bytes]), (byte) => Buffer.from([byte]));
  for (const received of [decodeAll(bytes, bytes), decodeAll(Buffer.concat([bytes, bytes])), decodeAll(...pieces)]) {
    expect(received).toMatchObject([CALL, CALL].map(({ path, interface: name, member }) => ({ type: 1, path, interface: name, member })));
    expect(received[1]?.readBody()).toEqual(CALL.body);
  }
});

test.each([
  ['y', [255], 255],
  ['b', [0, 0, 0, 1], true],
  ['n', [255, 254], -2],
  ['q', [255, 254], 65534],
  ['i', [255, 255, 255, 254], -2],
  ['u', [255, 255, 255, 254], 2 ** 32 - 2],
  ['x', [255, 255, 255, 255, 255, 255, 255, 254], -2],
  ['t', [0, 0, 0, 1, 0, 0, 0, 0], 2 ** 32],
  ['d', [0x3f, 0xf8, 0, 0, 0, 0, 0, 0], 1.5],
  ['s', [0, 0, 0, 3, 0x61, 0xc3, 0xa4, 0], 'aä'],
  ['ay', [0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8], Buffer.from([1, 2, 3, 4, 5, 6, 7, 8])],
  ['at', [0, 0, 0, 0, 0, 0, 0, 0], []],
  ['v', [1, 0x75, 0, 0, 0, 0, 0, 9], 9],
  ['(yu)', [1, 0, 0, 0, 0, 0, 0, 2], [1, 2]],
  ['a{yy}', [0, 0, 0, 10, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4], { 1: 2, 3: 4 }],
] as const)('%s', (signature, body, value) => {
  expect(decodeAll(messageOf(signature, [...body]))[0]?.readBody()).toEqual([value]);
});

test.each([
  ['what begins as no message does', Buffer.alloc(16, 7)],
  ['a message too long for any bus', Buffer.from([0x42, 4, 0, 1, 0x7f, 255, 255, 255, 0, 0, 0, 1, 0, 0, 0, 0])],
])('%s ends the reading, as a value to be caught', (_, bytes) => {
  expect(() => decodeAll(bytes)).toThrow(WireBroken);
});

test.each([
  ['a text that is longer than its message', 's', [0, 0, 1, 0, 0]],
  ['an array that is longer than its message', 'au', [0, 0, 1, 0]],
  ['an unfinished signature', 'a(s', [0, 0, 0, 0, 0, 0, 0, 0]],
  ['an unknown type', 'm', [0, 0, 0, 0]],
  ['variants within variants', 'v', Array.from({ length: 80 }, () => [1, 0x76, 0]).flat()],
])('%s is no body', (_, signature, body) => {
  const [message] = decodeAll(messageOf(signature, body));
  expect(() => message?.readBody()).toThrow(WireBroken);
});
