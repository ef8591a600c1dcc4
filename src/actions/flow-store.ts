import type { Sql } from '../postgres/database.ts';

export interface JobRef {
  queue: string;
  jobId: string;
}

export type StuckReason = 'parent_failed' | 'parent_cancelled' | 'parent_gone';

/** A blocked job, and one parent that will not complete by itself. */
export interface StuckChild extends JobRef {
  retryCount: number;
  reason: StuckReason;
  /** Null where the parent is gone with its record. */
  parentQueue: string | null;
  parentId: string | null;
  parentRetryCount: number | null;
  /** Where the parent's copy went when it failed. */
  deadLetter: string | null;
  /** When the parent ended; where that is not known, when the child was made. */
  since: string;
}

/** A blocked job that can only run after the one it was asked for; `root` is its index in the question. */
export interface Descendant extends JobRef {
  root: number;
  state: string;
  retryCount: number;
  waitsForQueue: string | null;
  waitsForId: string | null;
  /** When retention deletes it, run or not. */
  deletedAt: string;
}

/** The dependencies between a queue system's jobs. Everything that writes runs in the given transaction. */
export interface FlowStore {
  /** The queues, together where one table holds them. */
  listLeaves(sql: Sql): Promise<string[][]>;
  /** Blocked children of these queues whose parent failed, was cancelled or is gone; a row for each such parent. */
  listStuck(sql: Sql, queues: readonly string[], limit: number, ids?: readonly string[]): Promise<StuckChild[]>;
  /** Those of the given jobs that are blocked, and every blocked job behind them. */
  listDescendants(sql: Sql, children: readonly (JobRef & { root: number })[], limit: number): Promise<Descendant[]>;
  /** Parents of these queues that completed so long ago and whose children still do not know; counted up to `limit`. */
  countUnresolved(sql: Sql, queues: readonly string[], afterSeconds: number, limit: number): Promise<number>;
  /** Tells the children of completed parents, outside of any transaction. */
  resolve(): Promise<void>;
  /** Those of the jobs that are still there, whatever their state, as `QUEUE/JOB-ID`. */
  listPresent(sql: Sql, jobs: readonly JobRef[]): Promise<Set<string>>;
  /**
   * As if every parent that failed, was cancelled or is gone had completed: whatever becomes of those, the child hears no
   * more of them. It runs once nothing else blocks it. The caller holds its row.
   * @returns whether it is free now.
   */
  release(tx: Sql, child: JobRef): Promise<boolean>;
  /** Queues that subscribed to the event. */
  listSubscribers(tx: Sql, event: string): Promise<string[]>;
  /** A job for each of the data in a subscriber's queue. @returns for how many of them: a queue's policy may leave some out. */
  publish(tx: Sql, queue: string, data: readonly object[]): Promise<number>;
}
