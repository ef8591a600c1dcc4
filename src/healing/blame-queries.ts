import type { UnitStatus } from '../actions/unit-manager.ts';
import type { Sql } from '../postgres/database.ts';

export interface CrashedAttempt {
  queue: string;
  jobId: string;
  retryCount: number;
}

export interface CrashRecord {
  executorId: string;
  host: string;
  node: string;
  unit: string;
  invocation: string;
  end: UnitStatus;
  lastError: string | null;
  attempts: readonly CrashedAttempt[];
}

/** Kept of a crash's attempts; the count is of all. */
const MOST_KEPT = 100;

export async function saveUnit(sql: Sql, executorId: string, unit: string, invocation: string, draining: boolean): Promise<void> {
  await sql.query('UPDATE executor SET unit = $2, unit_invocation = $3, draining = $4 WHERE id = $1', [
    executorId,
    unit,
    invocation,
    draining,
  ]);
}

/** Of the executors of that unit that this node holds in sight. */
export async function saveDraining(sql: Sql, node: string, unit: string, draining: boolean): Promise<void> {
  await sql.query('UPDATE executor SET draining = $3 WHERE unit = $2 AND witness_node = $1 AND proof IS NULL AND draining <> $3', [
    node,
    unit,
    draining,
  ]);
}

export async function saveCrash(sql: Sql, crash: CrashRecord): Promise<void> {
  const { executorId, host, node, unit, invocation, end, lastError, attempts } = crash;
  await sql.query(
    `INSERT INTO unit_crash (executor_id, host, node, unit, invocation, result, exit_code, exit_status, last_error, attempts, attempt_count)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING`,
    [
      executorId,
      host,
      node,
      unit,
      invocation,
      end.result,
      end.exitCode ?? null,
      end.exitStatus,
      lastError,
      JSON.stringify(attempts.slice(0, MOST_KEPT)),
      attempts.length,
    ],
  );
}

/** What was given back of an executor that died a moment ago. */
export function listRecovered(sql: Sql, executorId: string, limit: number): Promise<CrashedAttempt[]> {
  return sql.query<CrashedAttempt>(
    `SELECT queue, job_id AS "jobId", retry_count AS "retryCount" FROM recovery
     WHERE executor_id = $1 AND recovered_at > now() - interval '10 minutes' LIMIT $2`,
    [executorId, limit],
  );
}
