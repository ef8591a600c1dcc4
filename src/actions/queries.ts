import type { Sql } from '../postgres/database.ts';
import type { Attempt } from './job-store.ts';

/** Recoveries so far of each job of a queue; holding is not giving back and does not count. */
export async function countRecoveries(sql: Sql, queue: string, jobIds: readonly string[]): Promise<Map<string, number>> {
  const rows = await sql.query<{ jobId: string; count: number }>(
    `SELECT job_id AS "jobId", count(*)::int AS count FROM recovery
     WHERE queue = $1 AND job_id = ANY($2::uuid[]) AND outcome <> 'held' GROUP BY job_id`,
    [queue, jobIds],
  );
  return new Map(rows.map((row) => [row.jobId, row.count]));
}

/** Attempts already held: they stay active and are met by every sweep. */
export async function listHeld(sql: Sql, queue: string, attempts: readonly Attempt[]): Promise<Set<string>> {
  const rows = await sql.query<{ jobId: string }>(
    `SELECT r.job_id AS "jobId" FROM recovery r JOIN unnest($2::uuid[], $3::int[]) AS a(id, retry_count)
       ON r.job_id = a.id AND r.retry_count = a.retry_count
     WHERE r.queue = $1 AND r.outcome = 'held'`,
    [queue, attempts.map((a) => a.jobId), attempts.map((a) => a.retryCount)],
  );
  return new Set(rows.map((row) => row.jobId));
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

/** @returns seconds from the last sign of life to now, by the database, for each record that has one. */
export async function saveRecoveries(sql: Sql, node: string, records: readonly RecoveryRecord[]): Promise<(number | null)[]> {
  const rows = await sql.query<{ seconds: number | null }>(
    `INSERT INTO recovery (queue, job_id, retry_count, executor_id, verdict, proof, policy, policy_source, outcome, poison, reason, node, last_alive_at)
     SELECT r.queue, r."jobId", r."retryCount", r."executorId", r.verdict, r.proof, r.policy, r."policySource", r.outcome, r.poison, r.reason, $2, r."lastAliveAt"
     FROM jsonb_to_recordset($1::jsonb) AS r(queue text, "jobId" uuid, "retryCount" int, "executorId" text, verdict text, proof text,
       policy text, "policySource" text, outcome text, poison boolean, reason text, "lastAliveAt" timestamptz)
     RETURNING extract(epoch FROM clock_timestamp() - last_alive_at)::float8 AS seconds`,
    [JSON.stringify(records), node],
  );
  return rows.map((row) => row.seconds);
}

/** Those of the executors that have given no sign since they were judged; the rest came back. */
export async function listStillSilent(
  sql: Sql,
  judged: readonly { id: string; beatAt: string; sessionAt: string | null }[],
): Promise<Set<string>> {
  const rows = await sql.query<{ id: string }>(
    `SELECT e.id FROM executor e JOIN jsonb_to_recordset($1::jsonb) AS j(id text, "beatAt" timestamptz, "sessionAt" timestamptz) ON j.id = e.id
     WHERE e.beat_at = j."beatAt" AND e.session_at IS NOT DISTINCT FROM j."sessionAt"`,
    [JSON.stringify(judged)],
  );
  return new Set(rows.map((row) => row.id));
}
