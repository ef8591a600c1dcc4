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
  lockJobs,
  notifyQueue,
  readJobStates,
  readJobs,
  requeueAttempts,
  tallyActiveAttempts,
} from './queries.ts';

/**
 * What pg-boss's jobs can be asked and told; every change names the attempt and joins the caller's transaction.
 * @param assertNotMoved asked wherever rows are locked, which is how every change begins.
 */
export function createJobStore(boss: () => PgBoss, schemaSpelling: string, assertNotMoved: (sql: Sql) => Promise<void>) {
  const fence = (attempts: readonly AttemptRow[]) => attempts.map(({ jobId, retryCount }) => ({ id: jobId, retryCount }));
  // pg-boss names the channel after the configured spelling, with redundant quotes taken off.
  const schemaForChannel = /^"[a-z_][a-z0-9_]*"$/.test(schemaSpelling) ? schemaSpelling.slice(1, -1) : schemaSpelling;

  async function fail(tx: Sql, queue: string, attempts: readonly AttemptRow[], output: object): Promise<void> {
    await boss().fail(queue, fence(attempts), output, { db: asPgBossDb(tx) });
  }

  return {
    listActive: listActiveAttempts,
    tallyActive: tallyActiveAttempts,
    listStale: listStaleAttempts,
    listStillActive,
    readStates: readJobStates,
    readJobs: async (sql: Sql, jobs: readonly { queue: string; jobId: string }[], { lock }: { lock: boolean }) => {
      if (lock) {
        await lockJobs(sql, jobs);
        await assertNotMoved(sql);
      }
      return readJobs(sql, jobs);
    },
    listQueues: listQueueNames,
    lock: async (tx: Sql, queue: string, attempts: readonly AttemptRow[], staleSeconds?: number) => {
      const locked = await lockAttempts(tx, queue, attempts, staleSeconds);
      await assertNotMoved(tx);
      return locked;
    },
    requeue: requeueAttempts,
    fail,
    discard: async (tx: Sql, queue: string, attempts: readonly AttemptRow[], output: object) => {
      await exhaustRetries(tx, queue, attempts);
      await fail(tx, queue, attempts, output);
    },
    // retry and resume know no fence, and cancel none for what does not run: the caller holds the rows.
    retry: async (tx: Sql, queue: string, jobs: readonly { jobId: string }[]) => {
      await boss().retry(queue, idsOf(jobs), on(tx));
    },
    resume: async (tx: Sql, queue: string, jobs: readonly { jobId: string }[]) => {
      await boss().resume(queue, idsOf(jobs), on(tx));
    },
    cancel: async (tx: Sql, queue: string, jobs: readonly { jobId: string; retryCount: number; active: boolean }[]) => {
      const [running, waiting] = [jobs.filter(({ active }) => active), jobs.filter(({ active }) => !active)];
      const fenced = running.map(({ jobId, retryCount }) => ({ id: jobId, retryCount }));
      if (fenced.length > 0) await boss().cancel(queue, fenced, on(tx));
      if (waiting.length > 0) await boss().cancel(queue, idsOf(waiting), on(tx));
    },
    wake: (tx: Sql, queue: string) => notifyQueue(tx, schemaForChannel, queue),
  };
}

const on = (tx: Sql) => ({ db: asPgBossDb(tx) });
const idsOf = (jobs: readonly { jobId: string }[]) => jobs.map(({ jobId }) => jobId);

/** pg-boss's instance registry as the source of executors. */
export const registry = { importExecutors: (sql: Sql, host?: string) => importInstances(sql, host) };
