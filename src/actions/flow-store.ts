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

/** Where a walk over the blocked jobs stands: this one has been looked at. */
export interface WalkPosition extends JobRef {
  state: string;
  startAfter: string;
}

/** What became of a job after it failed: its copy in a dead letter queue, or one that was redriven from there. */
export interface JobCopy extends JobRef {
  /** Of which job, as `QUEUE/JOB-ID`. */
  of: string;
  state: string;
  redriven: boolean;
  /** It was made when that job ended as it is now, or afterwards; not of a failure before. */
  ofLastEnd: boolean;
}

/** The dependencies between a queue system's jobs. Everything that writes runs in the given transaction. */
export interface FlowStore {
  /** The queues, together where one table holds them. */
  listLeaves(sql: Sql): Promise<string[][]>;
  /** Those of the queues of one table that have blocked jobs, by the state of these. */
  listWaiting(sql: Sql, queues: readonly string[]): Promise<Pick<WalkPosition, 'queue' | 'state'>[]>;
  /** The blocked jobs of one queue and state that come after the given one. */
  pageBlocked(
    sql: Sql,
    of: Pick<WalkPosition, 'queue' | 'state'>,
    after: Pick<WalkPosition, 'startAfter' | 'jobId'> | null,
    limit: number,
  ): Promise<Pick<WalkPosition, 'queue' | 'jobId' | 'startAfter'>[]>;
  /** Those of the jobs that are blocked by a parent that failed, was cancelled or is gone; a row for each such parent, up to the limits. */
  listStuck(sql: Sql, jobs: readonly JobRef[], limits?: { ofEach?: number; inAll?: number }): Promise<StuckChild[]>;
  /** Blocked jobs that wait for these parents, at most so many of each; of parents that are gone those that were seen before. */
  listChildren(sql: Sql, parents: readonly JobRef[], mostOfEach: number): Promise<JobRef[]>;
  /** Those of the given jobs that are blocked, and every blocked job behind them. */
  listDescendants(sql: Sql, children: readonly (JobRef & { root: number })[], limit: number): Promise<Descendant[]>;
  /** Copies of those of the jobs that are still there, at most so many of each: the newest, newest first. */
  listCopies(sql: Sql, jobs: readonly JobRef[], mostOfEach: number): Promise<JobCopy[]>;
  /** Parents of these queues that completed so long ago and whose children still do not know. */
  listUnresolved(sql: Sql, queues: readonly string[], afterSeconds: number, limit: number): Promise<JobRef[]>;
  /** How many they are; counted up to `limit`. */
  countUnresolved(sql: Sql, queues: readonly string[], afterSeconds: number, limit: number): Promise<number>;
  /** Tells the children of completed parents, outside of any transaction. */
  resolve(): Promise<void>;
  /** Keeps the jobs as they are until the transaction ends. */
  lock(tx: Sql, jobs: readonly JobRef[]): Promise<void>;
  /** Keeps the failed and cancelled parents of the jobs as they are until the transaction ends. */
  lockEndedParents(tx: Sql, jobs: readonly JobRef[]): Promise<void>;
  /**
   * As if every parent that failed, was cancelled or is gone had completed: whatever becomes of those, the child hears no
   * more of them. It runs once nothing else blocks it. The caller holds its row and those of its ended parents.
   * @returns whether it is free now.
   */
  release(tx: Sql, child: JobRef): Promise<boolean>;
  /** Queues that subscribed to the event. */
  listSubscribers(tx: Sql, event: string): Promise<string[]>;
  /** A job for each of the data in a subscriber's queue. @returns for how many of them: a queue's policy may leave some out. */
  publish(tx: Sql, queue: string, data: readonly object[]): Promise<number>;
}
