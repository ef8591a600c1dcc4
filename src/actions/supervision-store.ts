import type { Sql } from '../postgres/database.ts';

export interface ExpiringAttempt {
  queue: string;
  jobId: string;
  retryCount: number;
}

/** A queue system's own supervision, as far as it can be watched and taken over. */
export interface SupervisionStore {
  listOverdue(sql: Sql, overdueSeconds: number, limit: number): Promise<{ queue: string; count: number; oldestSeconds: number }[]>;
  /** Attempts that a pass of supervision would fail now, their time or their beat being over; at most so many of each queue. */
  listExpiring(sql: Sql, limit: number): Promise<ExpiringAttempt[]>;
  /** Those of the attempts that have been failed since, as `QUEUE/JOB-ID:RETRY-COUNT`. */
  listExpired(sql: Sql, attempts: readonly ExpiringAttempt[]): Promise<string[]>;
  readMonitoring(
    sql: Sql,
    idleSeconds: number,
  ): Promise<{
    queues: number;
    claimSeconds: number | null;
    idle: string[];
    instances: number;
    supervising: string[];
    instanceSeconds: number;
    supervisingSeconds: number;
  }>;
  listQueueSettings(sql: Sql): Promise<
    {
      queue: string;
      expireSeconds: number;
      beatSeconds: number | null;
      retryLimit: number;
      deadLetter: string | null;
      notify: boolean;
      listeners: number;
    }[]
  >;
  /** Of who supervises now: how often each queue is looked at, and how long a pass may be away; null where nobody does. */
  readPace(sql: Sql): Promise<{ monitorSeconds: number | null; passSeconds: number | null }>;
  /**
   * One pass of expiry, beats, counts and retention over every queue that is due, outside of any transaction.
   * @param mayGoOn asked before every statement; when it rejects, the pass is broken off and rejects with the same.
   */
  supervise(mayGoOn: () => Promise<void>): Promise<void>;
}
