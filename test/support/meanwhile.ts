import type { Database, Sql } from '../../src/postgres/database.ts';
import { waitFor } from './wait.ts';

/** Begins `second` while the transaction of `first` is open, and commits that when the other waits for its locks, or has not waited. */
export async function meanwhile<T>(database: Database, first: (tx: Sql) => Promise<unknown>, second: () => Promise<T>) {
  let other: Promise<T> | undefined;
  let over = false;
  const waited = await database.transaction(async (tx) => {
    await first(tx);
    other = second().finally(() => {
      over = true;
    });
    return waitFor('the other to wait for a lock or to be done', async () => {
      const waiting = await database.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`);
      return waiting.length > 0 ? { waited: true } : over && { waited: false };
    });
  });
  return { ...waited, result: await (other as Promise<T>) };
}
