import type { Sql } from '../postgres/database.ts';

/** One run of a job: pg-boss's fence, and the start time as text, for a Date would lose its microseconds. */
export interface AttemptRow {
  queue: string;
  jobId: string;
  retryCount: number;
  startedOn: string;
}

export interface OwnedAttemptRow extends AttemptRow {
  applicationName: string;
}

/**
 * Attempts still active whose recorded owner carries one of the names. The owner is looked up by name, the job by its
 * primary key. started_on takes part because restore() lets a later run have the same retry_count.
 */
export function listActiveAttempts(
  sql: Sql,
  applicationNames: readonly string[],
  limit: number,
  after?: { queue: string; jobId: string },
): Promise<OwnedAttemptRow[]> {
  return sql.query<OwnedAttemptRow>(
    `SELECT a.queue, a.job_id AS "jobId", a.retry_count AS "retryCount", a.started_on::text AS "startedOn", a.application_name AS "applicationName"
     FROM attempt a JOIN job j ON j.name = a.queue AND j.id = a.job_id
     WHERE a.application_name = ANY($1) AND j.state = 'active' AND j.retry_count = a.retry_count AND j.started_on = a.started_on
       AND ($3::text IS NULL OR (a.queue, a.job_id) > ($3, $4::uuid))
     ORDER BY a.queue, a.job_id LIMIT $2`,
    [applicationNames, limit, after?.queue ?? null, after?.jobId ?? null],
  );
}

/** Those of the attempts that are still running as they were, as `QUEUE/JOB-ID:RETRY-COUNT`; reads only. */
export async function listStillActive(
  sql: Sql,
  attempts: readonly Pick<AttemptRow, 'queue' | 'jobId' | 'retryCount'>[],
): Promise<Set<string>> {
  const rows = await sql.query<{ attempt: string }>(
    `SELECT a.queue || '/' || a.id || ':' || a.retry_count AS attempt
     FROM job j JOIN unnest($1::text[], $2::uuid[], $3::int[]) AS a(queue, id, retry_count) ON j.name = a.queue AND j.id = a.id
     WHERE j.state = 'active' AND j.retry_count = a.retry_count`,
    [attempts.map((a) => a.queue), attempts.map((a) => a.jobId), attempts.map((a) => a.retryCount)],
  );
  return new Set(rows.map(({ attempt }) => attempt));
}

/** State and attempt of the jobs that are still there, by `QUEUE/JOB-ID`. */
export async function readJobStates(
  sql: Sql,
  jobs: readonly Pick<AttemptRow, 'queue' | 'jobId'>[],
): Promise<Map<string, { state: string; retryCount: number }>> {
  const rows = await sql.query<{ target: string; state: string; retryCount: number }>(
    `SELECT j.name || '/' || j.id AS target, j.state::text, j.retry_count AS "retryCount"
     FROM job j JOIN unnest($1::text[], $2::uuid[]) AS a(queue, id) ON j.name = a.queue AND j.id = a.id`,
    [jobs.map((job) => job.queue), jobs.map((job) => job.jobId)],
  );
  return new Map(rows.map(({ target, state, retryCount }) => [target, { state, retryCount }]));
}

/** As JobRow of actions/job-store.ts. */
export interface JobStateRow {
  queue: string;
  jobId: string;
  state: string;
  retryCount: number;
  retryLimit: number;
  startedOn: string | null;
  blocked: boolean;
  children: number;
  deadLetter: string | null;
  keptSeconds: number | null;
  siblingInRetry: boolean;
  blocksKeyWhenFailed: boolean;
  placeTakenBy: string | null;
  applicationName: string | null;
}

/** Locked in the order of queue and id, so that two who lock the same jobs wait for each other and do not deadlock. */
export function lockJobs(sql: Sql, jobs: readonly { queue: string; jobId: string }[]): Promise<object[]> {
  return sql.query(
    `SELECT FROM job j JOIN unnest($1::text[], $2::uuid[]) AS a(queue, id) ON j.name = a.queue AND j.id = a.id
     ORDER BY j.name, j.id FOR UPDATE OF j`,
    [jobs.map((job) => job.queue), jobs.map((job) => job.jobId)],
  );
}

/**
 * The place that a failed job takes by retry(), a cancelled one by resume(), is a unique index of its policy: one branch
 * for each, spelled as its index is, so that it is found there: without, each job costs a scan of its table. The other
 * policies' indexes cannot be met on this way.
 */
export function readJobs(sql: Sql, jobs: readonly { queue: string; jobId: string }[]): Promise<JobStateRow[]> {
  return sql.query<JobStateRow>(
    `SELECT j.name AS queue, j.id AS "jobId", j.state::text, j.retry_count AS "retryCount", j.retry_limit AS "retryLimit",
       j.started_on::text AS "startedOn", j.blocked, j.dead_letter AS "deadLetter",
       CASE WHEN isfinite(j.keep_until) THEN extract(epoch FROM j.keep_until - now())::float8 END AS "keptSeconds",
       (SELECT count(*)::int FROM job_dependency d WHERE d.parent_name = j.name AND d.parent_id = j.id) AS children,
       coalesce(j.policy = 'stately' AND EXISTS (SELECT FROM job s WHERE s.policy = 'stately' AND s.state = 'retry' AND s.state <= 'active'
         AND s.id <> j.id AND s.name = j.name AND coalesce(s.singleton_key, '') = coalesce(j.singleton_key, '')), false) AS "siblingInRetry",
       coalesce(j.policy = 'key_strict_fifo', false) AS "blocksKeyWhenFailed",
       (SELECT s.name || '/' || s.id FROM (
          SELECT s.name, s.id FROM job s WHERE j.state = 'cancelled' AND j.policy = 'short' AND s.policy = 'short' AND s.state = 'created'
            AND s.name = j.name AND coalesce(s.singleton_key, '') = coalesce(j.singleton_key, '')
          UNION ALL
          SELECT s.name, s.id FROM job s WHERE j.state = 'cancelled' AND j.policy = 'stately' AND s.policy = 'stately'
            AND s.state = 'created' AND s.state <= 'active' AND s.name = j.name AND coalesce(s.singleton_key, '') = coalesce(j.singleton_key, '')
          UNION ALL
          SELECT s.name, s.id FROM job s WHERE j.state = 'failed' AND j.policy = 'stately' AND s.policy = 'stately'
            AND s.state = 'retry' AND s.state <= 'active' AND s.name = j.name AND coalesce(s.singleton_key, '') = coalesce(j.singleton_key, '')
          UNION ALL
          SELECT s.name, s.id FROM job s WHERE j.state IN ('failed', 'cancelled') AND j.policy = 'exclusive' AND s.policy = 'exclusive'
            AND s.state <= 'active' AND s.name = j.name AND coalesce(s.singleton_key, '') = coalesce(j.singleton_key, '')
          UNION ALL
          SELECT s.name, s.id FROM job s WHERE j.state = 'cancelled' AND s.state <> 'cancelled' AND s.singleton_on IS NOT NULL
            AND s.name = j.name AND s.singleton_on = j.singleton_on AND coalesce(s.singleton_key, '') = coalesce(j.singleton_key, '')
        ) s LIMIT 1) AS "placeTakenBy",
       CASE WHEN j.state = 'active' THEN (SELECT a.application_name FROM attempt a
         WHERE a.queue = j.name AND a.job_id = j.id AND a.retry_count = j.retry_count AND a.started_on = j.started_on LIMIT 1) END
         AS "applicationName"
     FROM job j JOIN unnest($1::text[], $2::uuid[]) AS a(queue, id) ON j.name = a.queue AND j.id = a.id
     ORDER BY j.name, j.id`,
    [jobs.map((job) => job.queue), jobs.map((job) => job.jobId)],
  );
}

/** How many attempts are still active under those names, beside the given jobs, and of which queues. */
export async function tallyActiveAttempts(
  sql: Sql,
  applicationNames: readonly string[],
  beside: readonly { queue: string; jobId: string }[],
): Promise<{ count: number; queues: string[] }> {
  // Rotation may have left one attempt in both tables.
  const [row] = await sql.query<{ count: number; queues: string[] }>(
    `SELECT count(DISTINCT (a.queue, a.job_id))::int AS count, coalesce(array_agg(DISTINCT a.queue), '{}') AS queues
     FROM attempt a JOIN job j ON j.name = a.queue AND j.id = a.job_id
     WHERE a.application_name = ANY($1) AND j.state = 'active' AND j.retry_count = a.retry_count AND j.started_on = a.started_on
       AND NOT EXISTS (SELECT FROM unnest($2::text[], $3::uuid[]) AS b(queue, id) WHERE b.queue = a.queue AND b.id = a.job_id)`,
    [applicationNames, beside.map((job) => job.queue), beside.map((job) => job.jobId)],
  );
  if (!row) throw new Error('a tally returned no row');
  return row;
}

/** Attempts of one queue whose job beats, but has not for so long. Found by job_i14. */
export function listStaleAttempts(
  sql: Sql,
  queue: string,
  staleSeconds: number,
  limit: number,
): Promise<(AttemptRow & { applicationName: string | null; beatSeconds: number })[]> {
  return sql.query(
    `SELECT j.name AS queue, j.id AS "jobId", j.retry_count AS "retryCount", j.started_on::text AS "startedOn", j.heartbeat_seconds AS "beatSeconds",
       (SELECT a.application_name FROM attempt a
        WHERE a.queue = j.name AND a.job_id = j.id AND a.retry_count = j.retry_count AND a.started_on = j.started_on LIMIT 1) AS "applicationName"
     FROM job j
     WHERE j.name = $1 AND j.state = 'active' AND j.heartbeat_seconds IS NOT NULL
       AND j.heartbeat_on < now() - make_interval(secs => $2)
     LIMIT $3`,
    [queue, staleSeconds, limit],
  );
}

/**
 * Locks those of the attempts that are still what they were; others' locks are skipped, not waited for.
 * @param staleSeconds where given, only those whose job still has not beaten for so long.
 */
export async function lockAttempts(sql: Sql, queue: string, attempts: readonly AttemptRow[], staleSeconds?: number): Promise<Set<string>> {
  const rows = await sql.query<{ id: string }>(
    `SELECT j.id FROM job j
     JOIN unnest($2::uuid[], $3::int[], $4::text[]) AS a(id, retry_count, started_on) ON a.id = j.id
     WHERE j.name = $1 AND j.state = 'active' AND j.retry_count = a.retry_count AND j.started_on = a.started_on::timestamptz
       AND ($5::float8 IS NULL OR j.heartbeat_on < now() - make_interval(secs => $5))
     FOR UPDATE OF j SKIP LOCKED`,
    [queue, attempts.map((a) => a.jobId), attempts.map((a) => a.retryCount), attempts.map((a) => a.startedOn), staleSeconds ?? null],
  );
  return new Set(rows.map((row) => row.id));
}

/**
 * Requeues without spending the retry budget; pg-boss has no call for it. started_on stays: the next fetch counts the
 * attempt up only when it is set, and the fence lives by that count.
 */
export async function requeueAttempts(sql: Sql, queue: string, attempts: readonly AttemptRow[]): Promise<number> {
  const rows = await sql.query(
    `UPDATE job j SET state = 'retry', retry_limit = greatest(j.retry_limit, j.retry_count) + 1,
       start_after = greatest(j.start_after, now()), heartbeat_on = NULL
     FROM unnest($2::uuid[], $3::int[], $4::text[]) AS a(id, retry_count, started_on)
     WHERE j.name = $1 AND j.id = a.id AND j.state = 'active' AND j.retry_count = a.retry_count AND j.started_on = a.started_on::timestamptz
     RETURNING 1`,
    [queue, attempts.map((a) => a.jobId), attempts.map((a) => a.retryCount), attempts.map((a) => a.startedOn)],
  );
  return rows.length;
}

/** Leaves no retry, so that pg-boss's own fail() ends the job and feeds its dead letter queue; it has no call for that. */
export async function exhaustRetries(sql: Sql, queue: string, attempts: readonly AttemptRow[]): Promise<void> {
  await sql.query(
    `UPDATE job j SET retry_limit = j.retry_count
     FROM unnest($2::uuid[], $3::int[], $4::text[]) AS a(id, retry_count, started_on)
     WHERE j.name = $1 AND j.id = a.id AND j.state = 'active' AND j.retry_count = a.retry_count AND j.started_on = a.started_on::timestamptz`,
    [queue, attempts.map((a) => a.jobId), attempts.map((a) => a.retryCount), attempts.map((a) => a.startedOn)],
  );
}

/** Wakes the listeners of a notify-enabled queue, as pg-boss does on insert but not on fail. */
export async function notifyQueue(sql: Sql, schemaForChannel: string, queue: string): Promise<void> {
  await sql.query(`SELECT pg_notify('pgboss_' || left(encode(sha224($1::bytea), 'hex'), 24), name) FROM queue WHERE name = $2 AND notify`, [
    schemaForChannel,
    queue,
  ]);
}

export async function listQueueNames(sql: Sql): Promise<string[]> {
  return (await sql.query<{ name: string }>('SELECT name FROM queue ORDER BY name')).map((row) => row.name);
}

/**
 * Takes over what is new in pg-boss's registry: one statement, which writes only rows whose beat or stop has moved.
 * A row that pg-boss keeps of a life long over is not taken up again. A beat after a recorded death refutes its proof.
 */
export async function importInstances(sql: Sql, host: string | undefined): Promise<void> {
  await sql.query(
    `INSERT INTO executor AS e (id, kind, name, host, pid, application_name, queues, beat_seconds, started_at, beat_at, stopped_at)
     SELECT i.id::text, 'pgboss', i.name, i.host, i.pid, i.application_name,
       coalesce((SELECT array_agg(DISTINCT w->>'queue') FROM jsonb_array_elements(i.workers) w WHERE w->>'queue' IS NOT NULL), '{}'),
       i.heartbeat_seconds, i.started_on, i.heartbeat_on, i.stopped_on
     FROM instance i LEFT JOIN executor known ON known.id = i.id::text
     WHERE ($1::text IS NULL OR i.host = $1)
       AND CASE WHEN known.id IS NULL THEN i.heartbeat_on > now() - interval '1 day'
           ELSE i.heartbeat_on > known.beat_at OR i.stopped_on IS DISTINCT FROM known.stopped_at END
     ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at, queues = excluded.queues, stopped_at = excluded.stopped_at,
       application_name = excluded.application_name, started_at = excluded.started_at,
       proof = CASE WHEN excluded.beat_at > e.dead_at THEN NULL ELSE e.proof END,
       dead_at = CASE WHEN excluded.beat_at > e.dead_at THEN NULL ELSE e.dead_at END,
       last_alive_at = CASE WHEN excluded.beat_at > e.dead_at THEN NULL ELSE e.last_alive_at END,
       witness_node = CASE WHEN excluded.beat_at > e.dead_at THEN NULL ELSE e.witness_node END,
       witness_boot_id = CASE WHEN excluded.beat_at > e.dead_at THEN NULL ELSE e.witness_boot_id END`,
    [host ?? null],
  );
}
