import type { Sql } from '../postgres/database.ts';
import type { ReplayedEvent } from './tracking.ts';

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

/** Whether that attempt of a job was ended by a person's discard, by the policy `discard`, or as poison. */
export async function wasEndedOnPurpose(
  sql: Sql,
  { queue, jobId, retryCount }: { queue: string; jobId: string; retryCount: number },
): Promise<boolean> {
  const ended = `SELECT FROM recovery WHERE queue = $1 AND job_id = $2 AND retry_count = $3 AND (outcome = 'discarded' OR poison)`;
  return (await sql.query(ended, [queue, jobId, retryCount])).length > 0;
}

export interface Scope {
  stack: string | null;
  env: string | null;
}

/** Steps are looked at in the order of their names. */
export interface Place {
  instanceId: string;
  step: string;
}

export interface EndedStepRow extends Place {
  workflow: string;
  queue: string;
  jobId: string;
  /** Of whatever outcome. */
  replays: number;
  /** The outcome that its engine was told last, of this job. */
  told: ReplayedEvent['outcome'] | null;
  /** Its job has ended otherwise than its engine was told: that is told from the beginning. */
  anew: boolean;
  /** Of its job; null where it still runs, or is gone. */
  outcome: 'completed' | 'failed' | 'cancelled' | null;
  /** For how long its job has been seen to be gone; null where it is there, or has not been missed before. */
  missingSeconds: number | null;
  missing: boolean;
  /** The engine had its time, and the pause since the last replay is over. */
  due: boolean;
}

export interface StepPage {
  /** Running steps of the scope in this page. */
  running: number;
  /** Those of them whose job has ended and that are due, whose job is gone, or there again. */
  ended: EndedStepRow[];
  /** The last that was looked at, of whatever scope; null where the page was not full: there are no more. */
  next: Place | null;
}

/**
 * A page of running steps, by workflow_step_running; nothing is locked. Instance and job are looked up for each step by
 * their keys: a join would let the planner read all of them for every page.
 */
export async function readRunningSteps(
  sql: Sql,
  { env, stack }: Scope,
  after: Place,
  afterSeconds: number,
  limit: number,
): Promise<StepPage> {
  const [row] = await sql.query<StepPage>(
    `WITH page AS MATERIALIZED (
       SELECT s.instance_id, s.step, s.queue, s.job_id, s.replays, s.missing_since, s.next_replay_at, s.exhausted_at, s.told_outcome FROM workflow_step s
       WHERE s.state = 'running' AND (s.instance_id, s.step) > ($3, $4) ORDER BY s.instance_id, s.step LIMIT $6
     ), running AS MATERIALIZED (
       SELECT s.instance_id AS "instanceId", i.workflow, s.step, s.queue, s.job_id AS "jobId", s.replays, s.told_outcome AS told, n.outcome, n.anew,
         extract(epoch FROM now() - s.missing_since)::float8 AS "missingSeconds", j.state IS NULL AS missing,
         (n.anew OR coalesce(s.next_replay_at <= now(), true)) AND coalesce(j.completed_on <= now() - make_interval(secs => $5), true) AS due,
         (n.anew OR s.exhausted_at IS NULL) AND s.queue IS NOT NULL AND s.job_id IS NOT NULL AS asked
       FROM page s
       CROSS JOIN LATERAL (SELECT workflow, state, stack, env FROM workflow_instance WHERE id = s.instance_id LIMIT 1) i
       LEFT JOIN LATERAL (SELECT state, completed_on FROM job WHERE name = s.queue AND id = s.job_id LIMIT 1) j ON true
       CROSS JOIN LATERAL (SELECT o.outcome, coalesce(s.replays > 0 AND o.outcome <> s.told_outcome, false) AS anew
         FROM (SELECT CASE WHEN j.state IN ('completed', 'failed', 'cancelled') THEN j.state::text END AS outcome) o) n
       WHERE i.state IN ('running', 'blocked') AND i.env IS NOT DISTINCT FROM $1 AND (i.stack IS NULL OR i.stack = $2)
     )
     SELECT (SELECT count(*)::int FROM running) AS running,
       coalesce((SELECT json_agg(to_jsonb(r) - 'asked' ORDER BY r."instanceId", r.step) FROM running r WHERE r.asked
         AND (r.missing <> (r."missingSeconds" IS NOT NULL) OR (r.due AND (r.missing OR r.outcome IS NOT NULL)))), '[]') AS ended,
       (SELECT json_build_object('instanceId', p.instance_id, 'step', p.step) FROM page p ORDER BY p.instance_id, p.step OFFSET $6 - 1) AS next`,
    [env, stack, after.instanceId, after.step, afterSeconds, limit],
  );
  if (!row) throw new Error('a page of steps came without its row');
  return row;
}

/**
 * Locks those of the steps that are still as they were read; who has another job by now, was told meanwhile, or is in
 * somebody's hands is passed over.
 */
export function lockUnmoved(tx: Sql, steps: readonly EndedStepRow[]): Promise<Place[]> {
  return tx.query<Place>(
    `SELECT s.instance_id AS "instanceId", s.step
     FROM unnest($1::text[], $2::text[], $3::uuid[], $4::int[], $5::text[], $6::boolean[]) AS a(instance_id, step, job_id, replays, told, anew)
     JOIN workflow_step s ON s.instance_id = a.instance_id AND s.step = a.step AND s.job_id = a.job_id AND s.replays = a.replays
       AND s.told_outcome IS NOT DISTINCT FROM a.told
     WHERE s.state = 'running' AND (a.anew OR s.exhausted_at IS NULL)
     ORDER BY s.instance_id, s.step FOR UPDATE OF s SKIP LOCKED`,
    [
      ...namesOf(steps),
      steps.map(({ jobId }) => jobId),
      steps.map(({ replays }) => replays),
      steps.map(({ told }) => told),
      steps.map(({ anew }) => anew),
    ],
  );
}

const STEPS = 'unnest($1::text[], $2::text[]) AS a(instance_id, step)';
const namesOf = (steps: readonly Place[]) => [steps.map((s) => s.instanceId), steps.map((s) => s.step)];

/** When a job was first seen to be gone, or, where `missing` is false, that it is there again. */
export async function markMissing(tx: Sql, steps: readonly Place[], missing: boolean): Promise<void> {
  await tx.query(
    `UPDATE workflow_step s SET missing_since = CASE WHEN $3 THEN now() END FROM ${STEPS} WHERE s.instance_id = a.instance_id AND s.step = a.step`,
    [...namesOf(steps), missing],
  );
}

export async function markReplayed(
  tx: Sql,
  events: readonly Pick<ReplayedEvent, 'instanceId' | 'step' | 'replay' | 'outcome'>[],
  pauseSeconds: number,
  longestSeconds: number,
): Promise<void> {
  await tx.query(
    `UPDATE workflow_step s SET replays = a.replay, told_outcome = a.outcome, replayed_at = now(), exhausted_at = NULL,
       next_replay_at = now() + make_interval(secs => least($6, $5 * 2 ^ least(a.replay - 1, 30)))
     FROM unnest($1::text[], $2::text[], $3::int[], $4::text[]) AS a(instance_id, step, replay, outcome)
     WHERE s.instance_id = a.instance_id AND s.step = a.step`,
    [...namesOf(events), events.map(({ replay }) => replay), events.map(({ outcome }) => outcome), pauseSeconds, longestSeconds],
  );
}

export async function markExhausted(tx: Sql, steps: readonly Place[]): Promise<void> {
  await tx.query(
    `UPDATE workflow_step s SET exhausted_at = now() FROM ${STEPS} WHERE s.instance_id = a.instance_id AND s.step = a.step`,
    namesOf(steps),
  );
}

/** Postgres's own limit. */
const NOTIFY_BYTES = 8_000;

/** A payload that is too long for a notification, in the server's encoding, would fail them all: it is left out. @returns how many went. */
export async function notify(tx: Sql, channel: string, payloads: readonly string[]): Promise<number> {
  const sent = await tx.query('SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload WHERE octet_length(payload) < $3', [
    channel,
    payloads,
    NOTIFY_BYTES,
  ]);
  return sent.length;
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

/** Running steps by `INSTANCE/STEP` whose event was told as often as the limit allows, locked. Two may be spelled the same. */
export function lockExhausted(tx: Sql, name: string): Promise<Place[]> {
  return tx.query<Place>(
    `SELECT s.instance_id AS "instanceId", s.step FROM workflow_step s JOIN workflow_instance i ON i.id = s.instance_id
     WHERE s.exhausted_at IS NOT NULL AND s.state = 'running' AND i.state IN ('running', 'blocked') AND s.instance_id || '/' || s.step = $1
     FOR UPDATE OF s`,
    [name],
  );
}

/** As if its event had never been told. */
export async function forgetReplays(tx: Sql, { instanceId, step }: Place): Promise<void> {
  await tx.query(
    `UPDATE workflow_step s SET replays = 0, replayed_at = NULL, next_replay_at = NULL, exhausted_at = NULL
     WHERE s.instance_id = $1 AND s.step = $2`,
    [instanceId, step],
  );
}

export interface LateStepRow extends Place {
  workflow: string;
  job: string;
  /** What it was told; null where it was told by a program that did not note it. */
  outcome: string | null;
  replays: number;
  replayedAt: string;
  /** When its event is told again; null where it was told as often as the limit allows. */
  againAt: string | null;
}

/** Running steps that were told of their job's end and have not been moved on, those that are told no more first. */
export function listLate(sql: Sql, limit: number): Promise<LateStepRow[]> {
  return sql.query<LateStepRow>(
    `SELECT s.instance_id AS "instanceId", s.step, i.workflow, s.queue || '/' || s.job_id AS job, s.told_outcome AS outcome, s.replays,
       to_char(s.replayed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS "replayedAt",
       CASE WHEN s.exhausted_at IS NULL THEN to_char(s.next_replay_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END AS "againAt"
     FROM workflow_step s JOIN workflow_instance i ON i.id = s.instance_id
     WHERE s.state = 'running' AND s.replays > 0 AND i.state IN ('running', 'blocked')
     ORDER BY s.exhausted_at, s.replayed_at, s.instance_id, s.step LIMIT $1`,
    [limit],
  );
}

export async function countRunningSteps(sql: Sql): Promise<number> {
  const [row] = await sql.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM workflow_step s JOIN workflow_instance i ON i.id = s.instance_id
     WHERE s.state = 'running' AND i.state IN ('running', 'blocked')`,
  );
  return row?.count ?? 0;
}
