import { expect, test } from 'vitest';
import { DatabaseUnreachable } from '../../src/postgres/errors.ts';
import { createTestDatabase } from '../support/database.ts';
import { createSilentProxy } from '../support/silent-proxy.ts';
import { waitFor } from '../support/wait.ts';

// The server's time-out is 200 ms, and 5 s later we no longer believe in an answer.
const GIVEN_UP_MS = 8_000;

async function timed(work: Promise<unknown>): Promise<{ outcome: unknown; ms: number }> {
  const startedAt = performance.now();
  const outcome = await work.catch((error: unknown) => error);
  return { outcome, ms: performance.now() - startedAt };
}

test('a server that falls silent holds up no statement, no transaction, no end of listening and no end of the pool', async () => {
  const { url, connect } = await createTestDatabase();
  const proxy = await createSilentProxy(url);
  const database = connect({ url: proxy.url, statementTimeoutMs: 200 });
  const direct = connect();
  const listener = database.listen('channel', { onMessage: () => undefined });
  await waitFor(
    'the listening connection',
    async () =>
      (await direct.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`)).length === 1,
  );
  const begun = Promise.withResolvers<void>();
  const silenced = Promise.withResolvers<void>();
  const transaction = database.transaction(async (tx) => {
    await tx.query('SELECT 1');
    begun.resolve();
    await silenced.promise;
    await tx.query('SELECT 2');
  });
  await Promise.all([begun.promise, database.query('SELECT 1'), database.query('SELECT 1')]);
  proxy.fallSilent();
  silenced.resolve();
  const results = await Promise.all([timed(transaction), timed(database.query('SELECT 3'))]);
  for (const { outcome, ms } of results) {
    expect(outcome).toBeInstanceOf(DatabaseUnreachable);
    expect(ms).toBeLessThan(GIVEN_UP_MS);
  }
  expect((await timed(Promise.all([listener.stop(), database.close()]))).ms).toBeLessThan(GIVEN_UP_MS);
  await waitFor('the last socket to be closed', () => proxy.openConnections() === 0);
});
