import type { Sql } from '../postgres/database.ts';

/** How often each parent was acted upon without a person. */
export async function countActions(sql: Sql, queue: string, jobId: string, action: string): Promise<number> {
  const [row] = await sql.query<{ count: number }>(
    'SELECT count(*)::int AS count FROM workflow_action WHERE queue = $1 AND job_id = $2 AND action = $3',
    [queue, jobId, action],
  );
  return row?.count ?? 0;
}

export async function saveAction(tx: Sql, queue: string, jobId: string, action: string): Promise<void> {
  await tx.query('INSERT INTO workflow_action (queue, job_id, action) VALUES ($1, $2, $3)', [queue, jobId, action]);
}

export interface Scope {
  stack: string | null;
  env: string | null;
}

export interface RunningStepRow {
  instanceId: string;
  workflow: string;
  step: string;
  queue: string | null;
  jobId: string | null;
  replays: number;
  /** Of its job; null where it has none, or where it is gone. */
  outcome: 'completed' | 'failed' | 'cancelled' | null;
  /** For how long its job has been seen to be gone; null where it is there, or has not been missed before. */
  missingSeconds: number | null;
  missing: boolean;
  /** The engine had its time, and the pause since the last replay is over. */
  due: boolean;
  exhausted: boolean;
}

/** A page of running steps of a scope, locked; steps that another node has in hand are passed over. */
export function lockRunningSteps(
  tx: Sql,
  { env, stack }: Scope,
  after: { instanceId: string; step: string },
  afterSeconds: number,
  limit: number,
): Promise<RunningStepRow[]> {
  return tx.query<RunningStepRow>(
    `SELECT s.instance_id AS "instanceId", i.workflow, s.step, s.queue, s.job_id AS "jobId", s.replays,
       CASE WHEN j.state IN ('completed', 'failed', 'cancelled') THEN j.state::text END AS outcome,
       extract(epoch FROM now() - s.missing_since)::float8 AS "missingSeconds",
       s.queue IS NOT NULL AND s.job_id IS NOT NULL AND j.id IS NULL AS missing,
       coalesce(s.next_replay_at <= now(), true) AND coalesce(j.completed_on <= now() - make_interval(secs => $5), true) AS due,
       s.exhausted_at IS NOT NULL AS exhausted
     FROM workflow_step s JOIN workflow_instance i ON i.id = s.instance_id LEFT JOIN job j ON j.name = s.queue AND j.id = s.job_id
     WHERE s.state = 'running' AND i.state IN ('running', 'blocked') AND i.env IS NOT DISTINCT FROM $1 AND (i.stack IS NULL OR i.stack = $2)
       AND (s.instance_id, s.step) > ($3, $4)
     ORDER BY s.instance_id, s.step LIMIT $6 FOR UPDATE OF s SKIP LOCKED`,
    [env, stack, after.instanceId, after.step, afterSeconds, limit],
  );
}

const STEPS = 'unnest($1::text[], $2::text[]) AS a(instance_id, step)';
const namesOf = (steps: readonly { instanceId: string; step: string }[]) => [steps.map((s) => s.instanceId), steps.map((s) => s.step)];

/** When a job was first seen to be gone, or, where `missing` is false, that it is there again. */
export async function markMissing(tx: Sql, steps: readonly RunningStepRow[], missing: boolean): Promise<void> {
  await tx.query(
    `UPDATE workflow_step s SET missing_since = CASE WHEN $3 THEN now() END FROM ${STEPS} WHERE s.instance_id = a.instance_id AND s.step = a.step`,
    [...namesOf(steps), missing],
  );
}

export async function markReplayed(tx: Sql, steps: readonly RunningStepRow[], pauseSeconds: number, longestSeconds: number): Promise<void> {
  await tx.query(
    `UPDATE workflow_step s SET replays = s.replays + 1, replayed_at = now(),
       next_replay_at = now() + make_interval(secs => least($4, $3 * 2 ^ least(s.replays, 30)))
     FROM ${STEPS} WHERE s.instance_id = a.instance_id AND s.step = a.step`,
    [...namesOf(steps), pauseSeconds, longestSeconds],
  );
}

export async function markExhausted(tx: Sql, steps: readonly RunningStepRow[]): Promise<void> {
  await tx.query(
    `UPDATE workflow_step s SET exhausted_at = now() FROM ${STEPS} WHERE s.instance_id = a.instance_id AND s.step = a.step`,
    namesOf(steps),
  );
}

export async function notify(tx: Sql, channel: string, payloads: readonly string[]): Promise<void> {
  await tx.query('SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload', [channel, payloads]);
}

export interface ExhaustedStepRow {
  instanceId: string;
  workflow: string;
  step: string;
  job: string | null;
  replays: number;
  since: string;
  stack: string | null;
  env: string | null;
}

export function listExhausted(sql: Sql, limit: number): Promise<ExhaustedStepRow[]> {
  return sql.query<ExhaustedStepRow>(
    `SELECT s.instance_id AS "instanceId", i.workflow, s.step, s.queue || '/' || s.job_id AS job, s.replays,
       to_char(s.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since, i.stack, i.env
     FROM workflow_step s JOIN workflow_instance i ON i.id = s.instance_id
     WHERE s.exhausted_at IS NOT NULL AND s.state = 'running' AND i.state IN ('running', 'blocked')
     ORDER BY s.exhausted_at LIMIT $1`,
    [limit],
  );
}
