import type { Sql } from '../postgres/database.ts';

export interface OverdueRow {
  queue: string;
  count: number;
  /** Since its expiry, or since the end of its last beat's time. */
  oldestSeconds: number;
}

/** When an active job's time is over, or its beat's. */
const OVER_AT = `SELECT least(j.started_on + j.expire_seconds * interval '1 s', j.heartbeat_on + j.heartbeat_seconds * interval '1 s') AS over_at`;

/** Active jobs whose time or whose beat has been over for so long; of each queue at most `limit` are counted. By job_i14. */
export function listOverdue(sql: Sql, overdueSeconds: number, limit: number): Promise<OverdueRow[]> {
  return sql.query<OverdueRow>(
    `SELECT q.name AS queue, o.count, o."oldestSeconds" FROM queue q CROSS JOIN LATERAL (
       SELECT count(*)::int AS count, max(extract(epoch FROM now() - w.over_at))::float8 AS "oldestSeconds" FROM (
         SELECT d.over_at FROM job j CROSS JOIN LATERAL (${OVER_AT}) d
         WHERE j.name = q.name AND j.state = 'active' AND d.over_at < now() - make_interval(secs => $1) LIMIT $2
       ) w
     ) o WHERE o.count > 0 ORDER BY q.name`,
    [overdueSeconds, limit],
  );
}

interface Attempt {
  queue: string;
  jobId: string;
  retryCount: number;
}

/** A statement of pg-boss's begins so long after the look at most. */
const SOON = `interval '1 s'`;
const EXPIRY_MESSAGES = ['job timed out', 'job heartbeat timeout'];

/** As listOverdue, one by one, with those that are about to be. */
export function listExpiring(sql: Sql, limit: number): Promise<Attempt[]> {
  return sql.query<Attempt>(
    `SELECT q.name AS queue, w.id AS "jobId", w.retry_count AS "retryCount" FROM queue q CROSS JOIN LATERAL (
       SELECT j.id, j.retry_count FROM job j CROSS JOIN LATERAL (${OVER_AT}) d
       WHERE j.name = q.name AND j.state = 'active' AND d.over_at < now() + ${SOON} ORDER BY d.over_at LIMIT $1
     ) w`,
    [limit],
  );
}

/** Those that pg-boss gave up, by the words that it leaves in their output: others may have failed, completed or deleted the rest meanwhile. */
export async function listExpired(sql: Sql, attempts: readonly Attempt[]): Promise<string[]> {
  const rows = await sql.query<{ attempt: string }>(
    `SELECT a.queue || '/' || a.id || ':' || a.retry_count AS attempt
     FROM unnest($1::text[], $2::uuid[], $3::int[]) AS a(queue, id, retry_count) JOIN job j ON j.name = a.queue AND j.id = a.id
     WHERE (j.state IN ('retry', 'failed') OR (j.state = 'active' AND j.retry_count > a.retry_count))
       AND j.output->'value'->>'message' = ANY($4) ORDER BY 1`,
    [attempts.map(({ queue }) => queue), attempts.map(({ jobId }) => jobId), attempts.map(({ retryCount }) => retryCount), EXPIRY_MESSAGES],
  );
  return rows.map(({ attempt }) => attempt);
}

export interface MonitoringRow {
  queues: number;
  /** Since somebody last claimed a monitor pass; of a schema whose queues were never monitored since its first queue. */
  claimSeconds: number | null;
  /** Queues that are claimed, but whose counts have not been written for so long although no backoff defers that. */
  idle: string[];
  /** Live instances, and those of them that supervise, as HOST:PID. */
  instances: number;
  supervising: string[];
  /** How long the oldest of them has lived, and the oldest that supervises; 0 where there is none. */
  instanceSeconds: number;
  supervisingSeconds: number;
}

/** Through to_jsonb, for not every schema has every column. */
export async function readMonitoring(sql: Sql, idleSeconds: number): Promise<MonitoringRow> {
  const [row] = await sql.query<MonitoringRow>(
    `WITH monitored AS (
       SELECT name, coalesce((to_jsonb(q)->>'monitor_claim_on')::timestamptz, monitor_on) AS claim_on, monitor_on, created_on FROM queue q
     ), backoff AS (
       SELECT coalesce(max((to_jsonb(v)->>'monitor_backoff_on')::timestamptz) > now() - make_interval(secs => $1), false) AS declared FROM version v
     ), living AS (
       SELECT supervise, host || ':' || pid AS place, extract(epoch FROM now() - started_on)::float8 AS age FROM instance WHERE stopped_on IS NULL AND heartbeat_on > now() - 3 * heartbeat_seconds * interval '1 s'
     )
     SELECT (SELECT count(*)::int FROM monitored) AS queues,
       (SELECT extract(epoch FROM now() - coalesce(max(claim_on), min(created_on)))::float8 FROM monitored) AS "claimSeconds",
       array(SELECT name FROM monitored, backoff WHERE NOT declared AND claim_on > now() - make_interval(secs => $1)
         AND coalesce(monitor_on, created_on) < claim_on - make_interval(secs => $1) ORDER BY name) AS idle,
       (SELECT count(*)::int FROM living) AS instances, (SELECT coalesce(max(age), 0) FROM living) AS "instanceSeconds",
       array(SELECT place FROM living WHERE supervise ORDER BY place) AS supervising,
       (SELECT coalesce(max(age), 0) FROM living WHERE supervise) AS "supervisingSeconds"`,
    [idleSeconds],
  );
  if (!row) throw new Error('pg-boss has no queue table');
  return row;
}

export interface QueueSettingsRow {
  queue: string;
  expireSeconds: number;
  beatSeconds: number | null;
  retryLimit: number;
  deadLetter: string | null;
  notify: boolean;
  /** Live instances that work on it and listen. */
  listeners: number;
}

export function listQueueSettings(sql: Sql): Promise<QueueSettingsRow[]> {
  return sql.query<QueueSettingsRow>(
    `SELECT q.name AS queue, q.expire_seconds AS "expireSeconds", q.heartbeat_seconds AS "beatSeconds", q.retry_limit AS "retryLimit",
       q.dead_letter AS "deadLetter", q.notify,
       (SELECT count(*)::int FROM instance i WHERE i.stopped_on IS NULL AND i.heartbeat_on > now() - 3 * i.heartbeat_seconds * interval '1 s'
         AND (i.config->>'useListenNotify')::boolean
         AND EXISTS (SELECT FROM jsonb_array_elements(i.workers) w WHERE w->>'queue' = q.name)) AS listeners
     FROM queue q ORDER BY q.name`,
  );
}

/**
 * Of the live instances that supervise the shortest monitor interval, and the shortest time within which one has surely
 * made a pass; null where none supervises.
 */
export async function readPace(sql: Sql): Promise<{ monitorSeconds: number | null; passSeconds: number | null }> {
  const [row] = await sql.query<{ monitorSeconds: number | null; passSeconds: number | null }>(
    `SELECT min((config->>'monitorIntervalSeconds')::float8) AS "monitorSeconds",
       min((config->>'monitorIntervalSeconds')::float8 + (config->>'superviseIntervalSeconds')::float8) AS "passSeconds" FROM instance
     WHERE stopped_on IS NULL AND supervise AND heartbeat_on > now() - 3 * heartbeat_seconds * interval '1 s'`,
  );
  return row ?? { monitorSeconds: null, passSeconds: null };
}
