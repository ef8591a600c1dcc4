import { type AddressInfo, createServer } from 'node:net';
import { setImmediate as aTurnOfTheLoop } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { DatabaseUnreachable } from '../../src/postgres/errors.ts';
import { openDatabase } from '../support/database.ts';

const LOGIN_ACCEPTED = message('R', Buffer.alloc(4));
const READY = message('Z', Buffer.from('I'));
const GOING_DOWN = message('E', Buffer.from('SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0'));

function message(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5, type);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** What a real server that is told to stop just then sends as two packets of which TCP may make one. */
async function startServerThatGoesDownAtOnce(): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => socket.end(Buffer.concat([LOGIN_ACCEPTED, READY, GOING_DOWN])));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  onTestFinished(() => void server.close());
  return `postgres://nobody:nothing@127.0.0.1:${(server.address() as AddressInfo).port}/nowhere`;
}

test('a server that goes down in the instant in which it lets us in is unreachable, and ends no process', async () => {
  const uncaught: unknown[] = [];
  const note = (error: unknown) => uncaught.push(error);
  process.on('uncaughtException', note);
  onTestFinished(() => void process.removeListener('uncaughtException', note));
  const database = openDatabase(await startServerThatGoesDownAtOnce(), {
    searchPath: ['reclaimd'],
    maxConnections: 2,
    statementTimeoutMs: 1_000,
    lockTimeoutMs: 1_000,
  });
  await expect(database.transaction((tx) => tx.query('SELECT 1'))).rejects.toBeInstanceOf(DatabaseUnreachable);
  await expect(database.query('SELECT 1')).rejects.toBeInstanceOf(DatabaseUnreachable);
  await aTurnOfTheLoop();
  expect(uncaught).toEqual([]);
});
