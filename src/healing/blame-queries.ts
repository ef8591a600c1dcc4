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

/** One life of a unit. */
export interface Life {
  unit: string;
  invocation: string;
}

/** In which life of which unit an executor runs: the first that was learned stands, for a process moves to no other. */
export async function saveUnit(
  sql: Sql,
  executorId: string,
  { unit, invocation, allowed, draining }: Life & { allowed: boolean; draining: boolean },
): Promise<Life | undefined> {
  const [saved] = await sql.query<Life>(
    `UPDATE executor SET unit = coalesce(unit, $2), unit_invocation = coalesce(unit_invocation, $3), unit_allowed = $4, draining = $5
     WHERE id = $1 RETURNING unit, unit_invocation AS invocation`,
    [executorId, unit, invocation, allowed, draining],
  );
  return saved;
}

/** Where those executors run; who is not among them runs in no unit that anybody knows. */
export function listLives(sql: Sql, executorIds: readonly string[]): Promise<(Life & { executor: string })[]> {
  return sql.query(
    `SELECT id AS executor, unit, unit_invocation AS invocation FROM executor
     WHERE id = ANY($1) AND unit IS NOT NULL AND unit_invocation IS NOT NULL`,
    [executorIds],
  );
}

/** Of the executors of those units that this node holds in sight: whether each one's unit is among those that are being stopped. */
export async function saveDraining(sql: Sql, node: string, units: readonly string[], stopping: readonly string[]): Promise<void> {
  await sql.query(
    `UPDATE executor SET draining = unit = ANY($3)
     WHERE unit = ANY($2) AND witness_node = $1 AND proof IS NULL AND draining <> (unit = ANY($3))`,
    [node, units, stopping],
  );
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
export function listRecovered(sql: Sql, executorId: string): Promise<CrashedAttempt[]> {
  return sql.query<CrashedAttempt>(
    `SELECT queue, job_id AS "jobId", retry_count AS "retryCount" FROM recovery
     WHERE executor_id = $1 AND recovered_at > now() - interval '10 minutes'`,
    [executorId],
  );
}
