import type { Sql } from '../postgres/database.ts';
import type { Attempt } from './job-store.ts';

export interface RecoveryHistory {
  /** Recoveries so far of each job; holding is not giving back and does not count. */
  counts: Map<string, number>;
  /** Jobs whose given attempt is held already: it stays active and is met by every sweep. */
  held: Set<string>;
}

export async function readHistory(sql: Sql, queue: string, attempts: readonly Attempt[]): Promise<RecoveryHistory> {
  const rows = await sql.query<{ jobId: string; count: number; held: boolean }>(
    `SELECT r.job_id AS "jobId", (count(*) FILTER (WHERE r.outcome <> 'held'))::int AS count,
       coalesce(bool_or(r.outcome = 'held' AND r.retry_count = a.retry_count), false) AS held
     FROM unnest($2::uuid[], $3::int[]) AS a(id, retry_count) JOIN recovery r ON r.queue = $1 AND r.job_id = a.id
     GROUP BY r.job_id`,
    [queue, attempts.map((a) => a.jobId), attempts.map((a) => a.retryCount)],
  );
  return {
    counts: new Map(rows.map((row) => [row.jobId, row.count])),
    held: new Set(rows.filter((row) => row.held).map((row) => row.jobId)),
  };
}

/** Those of the attempts that are held, for a person to decide. */
export async function listHeld<A extends Pick<Attempt, 'queue' | 'jobId' | 'retryCount'>>(
  sql: Sql,
  attempts: readonly A[],
): Promise<Set<A>> {
  if (attempts.length === 0) return new Set();
  const rows = await sql.query<{ place: number }>(
    `SELECT a.place::int FROM unnest($1::text[], $2::uuid[], $3::int[]) WITH ORDINALITY AS a(queue, id, retry_count, place)
     WHERE EXISTS (SELECT FROM recovery r WHERE r.queue = a.queue AND r.job_id = a.id AND r.retry_count = a.retry_count AND r.outcome = 'held')`,
    [attempts.map((a) => a.queue), attempts.map((a) => a.jobId), attempts.map((a) => a.retryCount)],
  );
  return new Set(rows.flatMap(({ place }) => attempts.slice(place - 1, place)));
}

export interface RecoveryRecord extends Attempt {
  executorId: string | null;
  verdict: string;
  proof: string | null;
  policy: string;
  policySource: string;
  outcome: string;
  poison: boolean;
  reason: string;
  lastAliveAt: string | null;
}

const RECORD_COLUMNS = [
  'queue',
  'jobId',
  'retryCount',
  'executorId',
  'verdict',
  'proof',
  'policy',
  'policySource',
  'outcome',
  'poison',
  'reason',
  'lastAliveAt',
] as const satisfies readonly (keyof RecoveryRecord)[];

/**
 * Seconds from the last sign of life to now, by the database, for each record that has one; in the records' order.
 * Arrays, a column each: for a full batch they cost half of what JSON does.
 */
export async function saveRecoveries(sql: Sql, node: string, records: readonly RecoveryRecord[]): Promise<(number | null)[]> {
  const rows = await sql.query<{ seconds: number | null }>(
    `INSERT INTO recovery (node, queue, job_id, retry_count, executor_id, verdict, proof, policy, policy_source, outcome, poison, reason, last_alive_at)
     SELECT $1, r.* FROM unnest($2::text[], $3::uuid[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
       $11::boolean[], $12::text[], $13::timestamptz[]) AS r
     RETURNING extract(epoch FROM clock_timestamp() - last_alive_at)::float8 AS seconds`,
    [node, ...RECORD_COLUMNS.map((column) => records.map((record) => record[column]))],
  );
  return rows.map((row) => row.seconds);
}
