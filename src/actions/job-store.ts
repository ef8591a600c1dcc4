import type { Sql } from '../postgres/database.ts';

/** One run of a job by an executor; the fence of every change. `startedOn` is the database's text. */
export interface Attempt {
  queue: string;
  jobId: string;
  retryCount: number;
  startedOn: string;
}

/** `QUEUE/JOB-ID:RETRY-COUNT`. */
export const nameAttempt = ({ queue, jobId, retryCount }: Omit<Attempt, 'startedOn'>) => `${queue}/${jobId}:${retryCount}`;

/** A job as a repair has to see it. */
export interface JobRow {
  queue: string;
  jobId: string;
  state: string;
  retryCount: number;
  retryLimit: number;
  /** The database's text; null before its first run. */
  startedOn: string | null;
  /** Waits for a parent that has not completed. */
  blocked: boolean;
  /** Jobs that wait for this one. */
  children: number;
  deadLetter: string | null;
  /** Until the queue's retention deletes it where it has not begun to run; negative: at its next pass. Null: never. */
  keptSeconds: number | null;
  /** Under its queue's policy a failure of this job is terminal, for a sibling waits for its retry already. */
  siblingInRetry: boolean;
  /** Under its queue's policy a failed job keeps every other of its key from running. */
  blocksKeyWhenFailed: boolean;
  /** Of an ended job: which other one (`QUEUE/JOB-ID`) has the only place that its queue's policy or throttle leaves for it. */
  placeTakenBy: string | null;
  /** Under which name the attempt that runs now was recorded; null where none was, or none runs. */
  applicationName: string | null;
}

/** The jobs of a queue system, as far as recovery needs them. Everything that writes runs in the given transaction. */
export interface JobStore {
  /** A page of the active attempts that were recorded under those names, in the order of queue and job id. */
  listActive(
    sql: Sql,
    applicationNames: readonly string[],
    limit: number,
    after?: Pick<Attempt, 'queue' | 'jobId'>,
  ): Promise<(Attempt & { applicationName: string })[]>;
  /** How many attempts are active under those names, beside the given jobs, and of which queues. */
  tallyActive(
    sql: Sql,
    applicationNames: readonly string[],
    beside: readonly Pick<Attempt, 'queue' | 'jobId'>[],
  ): Promise<{ count: number; queues: string[] }>;
  /** Attempts whose job beats every `beatSeconds`, but has not for so long. */
  listStale(
    sql: Sql,
    queue: string,
    staleSeconds: number,
    limit: number,
  ): Promise<(Attempt & { applicationName: string | null; beatSeconds: number })[]>;
  /** Those of the attempts that still run, by their names: one job id may be in several queues. */
  listStillActive(sql: Sql, attempts: readonly Pick<Attempt, 'queue' | 'jobId' | 'retryCount'>[]): Promise<Set<string>>;
  /** State and retry count of the jobs that are still there, by `QUEUE/JOB-ID`. */
  readStates(sql: Sql, jobs: readonly Pick<Attempt, 'queue' | 'jobId'>[]): Promise<Map<string, { state: string; retryCount: number }>>;
  /** Those of the jobs that are still there; `lock`: waited for, and kept until the transaction ends. */
  readJobs(sql: Sql, jobs: readonly Pick<Attempt, 'queue' | 'jobId'>[], options: { lock: boolean }): Promise<JobRow[]>;
  listQueues(sql: Sql): Promise<string[]>;
  /** Locks the attempts that are still active as given and that nobody else holds; returns their job ids.
   * With `staleSeconds`, only those whose job still has not beaten for so long. */
  lock(tx: Sql, queue: string, attempts: readonly Attempt[], staleSeconds?: number): Promise<Set<string>>;
  /** The attempt failed: the queue's own retry, backoff and dead-letter rules decide. */
  fail(tx: Sql, queue: string, attempts: readonly Attempt[], output: object): Promise<void>;
  /** Runs again without spending the retry budget. Throws UniqueViolation where a queue policy leaves no room. */
  requeue(tx: Sql, queue: string, attempts: readonly Attempt[]): Promise<number>;
  /** Ends the job whatever retries it has; its dead letter queue gets it. */
  discard(tx: Sql, queue: string, attempts: readonly Attempt[], output: object): Promise<void>;
  /** Failed jobs run once more. */
  retry(tx: Sql, queue: string, jobs: readonly Pick<Attempt, 'jobId'>[]): Promise<void>;
  /** Cancelled jobs wait for their run again. */
  resume(tx: Sql, queue: string, jobs: readonly Pick<Attempt, 'jobId'>[]): Promise<void>;
  /** Ends jobs that have not ended, whoever runs them. */
  cancel(tx: Sql, queue: string, jobs: readonly (Pick<Attempt, 'jobId' | 'retryCount'> & { active: boolean })[]): Promise<void>;
  /** Wakes the queue's listeners at commit, where it has any. */
  wake(tx: Sql, queue: string): Promise<void>;
}
