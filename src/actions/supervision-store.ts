import type { Sql } from '../postgres/database.ts';

/** A queue system's own supervision, as far as it can be watched and taken over. */
export interface SupervisionStore {
  listOverdue(sql: Sql, overdueSeconds: number, limit: number): Promise<{ queue: string; count: number; oldestSeconds: number }[]>;
  readMonitoring(
    sql: Sql,
    idleSeconds: number,
  ): Promise<{ queues: number; claimSeconds: number | null; idle: string[]; instances: number; supervising: number }>;
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
  /** One pass of expiry, beats, counts and retention over every queue that is due, outside of any transaction. */
  supervise(): Promise<void>;
}
