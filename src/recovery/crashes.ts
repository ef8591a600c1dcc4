import type { Sql } from '../postgres/database.ts';

/** One time that a job's executor was gone while it worked on the job. */
export interface Crash {
  at: string;
  retryCount: number;
  executor: string | null;
  node: string;
  reason: string;
  /** Where the executor ran as a systemd unit and its end was found: how that ended, and its last words. */
  unit: string | null;
  invocation: string | null;
  result: string | null;
  exitCode: string | null;
  exitStatus: number | null;
  lastError: string | null;
}

/** The last ten of each job, oldest first. */
export async function listCrashes(sql: Sql, queue: string, jobIds: readonly string[]): Promise<Map<string, Crash[]>> {
  const rows = await sql.query<Crash & { jobId: string }>(
    `SELECT r.job_id AS "jobId", r.recovered_at::text AS at, r.retry_count AS "retryCount", r.executor_id AS executor, r.node, r.reason,
       c.unit, c.invocation, c.result, c.exit_code AS "exitCode", c.exit_status AS "exitStatus", c.last_error AS "lastError"
     FROM (SELECT *, row_number() OVER (PARTITION BY job_id ORDER BY id DESC) AS back FROM recovery WHERE queue = $1 AND job_id = ANY($2)) AS r
       LEFT JOIN unit_crash c ON c.executor_id = r.executor_id
     WHERE r.back <= 10 ORDER BY r.id`,
    [queue, jobIds],
  );
  const crashes = new Map<string, Crash[]>();
  for (const { jobId, ...crash } of rows) crashes.set(jobId, [...(crashes.get(jobId) ?? []), crash]);
  return crashes;
}
