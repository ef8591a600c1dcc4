import type { PgBoss } from 'pg-boss';
import type { Sql } from '../postgres/database.ts';
import { asPgBossDb } from './client.ts';
import {
  type AttemptRow,
  exhaustRetries,
  importInstances,
  listActiveAttempts,
  listQueueNames,
  listStaleAttempts,
  listStillActive,
  lockAttempts,
  notifyQueue,
  readJobStates,
  requeueAttempts,
} from './queries.ts';

/** What pg-boss's jobs can be asked and told; every change names the attempt and joins the caller's transaction. */
export function createJobStore(boss: () => PgBoss, schemaSpelling: string) {
  const fence = (attempts: readonly AttemptRow[]) => attempts.map(({ jobId, retryCount }) => ({ id: jobId, retryCount }));
  // pg-boss names the channel after the configured spelling, with redundant quotes taken off.
  const schemaForChannel = /^"[a-z_][a-z0-9_]*"$/.test(schemaSpelling) ? schemaSpelling.slice(1, -1) : schemaSpelling;

  async function fail(tx: Sql, queue: string, attempts: readonly AttemptRow[], output: object): Promise<void> {
    await boss().fail(queue, fence(attempts), output, { db: asPgBossDb(tx) });
  }

  return {
    listActive: listActiveAttempts,
    listStale: listStaleAttempts,
    listStillActive,
    readStates: readJobStates,
    listQueues: listQueueNames,
    lock: lockAttempts,
    requeue: requeueAttempts,
    fail,
    discard: async (tx: Sql, queue: string, attempts: readonly AttemptRow[], output: object) => {
      await exhaustRetries(tx, queue, attempts);
      await fail(tx, queue, attempts, output);
    },
    wake: (tx: Sql, queue: string) => notifyQueue(tx, schemaForChannel, queue),
  };
}

/** pg-boss's instance registry as the source of executors. */
export const registry = { importExecutors: (sql: Sql, host?: string) => importInstances(sql, host) };
