import type { PgBoss } from 'pg-boss';
import type { Sql } from '../postgres/database.ts';
import { within } from './client.ts';
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

/** pg-boss did not fail what we hold: its client looks for the queue's jobs where they are no more. The next try finds it anew. */
class ClientOutdated extends Error {
  override readonly name = 'ClientOutdated';
}

/**
 * What pg-boss's jobs can be asked and told; every change names the attempt and joins the caller's transaction.
 * @param assertNotMoved asked wherever rows are locked, which is how every change begins.
 * @param renewClient told when the client knows a queue otherwise than it is.
 */
export function createJobStore(
  boss: () => PgBoss,
  schemaSpelling: string,
  { assertNotMoved, renewClient }: { assertNotMoved(sql: Sql): Promise<void>; renewClient(): void },
) {
  const fence = (attempts: readonly AttemptRow[]) => attempts.map(({ jobId, retryCount }) => ({ id: jobId, retryCount }));
  // pg-boss names the channel after the configured spelling, with redundant quotes taken off.
  const schemaForChannel = /^"[a-z_][a-z0-9_]*"$/.test(schemaSpelling) ? schemaSpelling.slice(1, -1) : schemaSpelling;

  async function fail(tx: Sql, queue: string, attempts: readonly AttemptRow[], output: object): Promise<void> {
    // Its types do not say what it answers.
    const { affected } = (await within(tx, (on) => boss().fail(queue, fence(attempts), output, on))) as { affected: number };
    if (affected === attempts.length) return;
    renewClient();
    throw new ClientOutdated(
      `pg-boss failed ${affected} of ${attempts.length} attempts of ${queue}: nothing of it stays, and the client is opened anew`,
    );
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
      await within(tx, (on) => boss().retry(queue, idsOf(jobs), on));
    },
    resume: async (tx: Sql, queue: string, jobs: readonly { jobId: string }[]) => {
      await within(tx, (on) => boss().resume(queue, idsOf(jobs), on));
    },
    cancel: async (tx: Sql, queue: string, jobs: readonly { jobId: string; retryCount: number; active: boolean }[]) => {
      const [running, waiting] = [jobs.filter(({ active }) => active), jobs.filter(({ active }) => !active)];
      const fenced = running.map(({ jobId, retryCount }) => ({ id: jobId, retryCount }));
      if (fenced.length > 0) await within(tx, (on) => boss().cancel(queue, fenced, on));
      if (waiting.length > 0) await within(tx, (on) => boss().cancel(queue, idsOf(waiting), on));
    },
    wake: (tx: Sql, queue: string) => notifyQueue(tx, schemaForChannel, queue),
  };
}

const idsOf = (jobs: readonly { jobId: string }[]) => jobs.map(({ jobId }) => jobId);

/** pg-boss's instance registry as the source of executors. */
export const registry = { importExecutors: (sql: Sql, host?: string) => importInstances(sql, host) };
