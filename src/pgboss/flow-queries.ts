import type { Sql } from '../postgres/database.ts';

interface JobRef {
  queue: string;
  jobId: string;
}

/** Queues that share a table, together: statements that name only them look at that leaf alone. */
export async function listLeaves(sql: Sql): Promise<string[][]> {
  const rows = await sql.query<{ names: string[] }>('SELECT array_agg(name ORDER BY name) AS names FROM queue GROUP BY table_name');
  return rows.map(({ names }) => names);
}

interface WaitingRow {
  queue: string;
  state: string;
}

/**
 * Which of the queues of one leaf have blocked jobs at all: a probe of job_i14 each. The limit keeps it from becoming a join of all of
 * them; the order, which is the index's, from becoming a scan that hopes to meet one soon where many are blocked.
 */
export function listWaiting(sql: Sql, queues: readonly string[]): Promise<WaitingRow[]> {
  return sql.query<WaitingRow>(
    `SELECT q.name AS queue, w.state FROM unnest($1::text[]) AS q(name) CROSS JOIN LATERAL (
       (SELECT 'created' AS state FROM job j WHERE j.name = ANY($1) AND j.name = q.name AND j.state = 'created' AND j.blocked ORDER BY j.start_after LIMIT 1)
       UNION ALL
       (SELECT 'retry' FROM job j WHERE j.name = ANY($1) AND j.name = q.name AND j.state = 'retry' AND j.blocked ORDER BY j.start_after LIMIT 1)
     ) w ORDER BY 1, 2`,
    [queues],
  );
}

export interface BlockedRow extends JobRef {
  startAfter: string;
}

/**
 * A page of the blocked jobs of one queue in the order of job_i14 (name, state, blocked, start_after). The id is compared
 * among those that start at the same microsecond only, whom Postgres sorts for each page.
 */
export function pageBlocked(
  sql: Sql,
  { queue, state }: WaitingRow,
  after: { startAfter: string; jobId: string } | null,
  limit: number,
): Promise<BlockedRow[]> {
  return sql.query<BlockedRow>(
    `SELECT j.name AS queue, j.id AS "jobId", j.start_after::text AS "startAfter" FROM job j
     WHERE j.name = $1 AND j.state = $2 AND j.blocked AND j.start_after >= $3::timestamptz
       AND (j.start_after, j.id) > ($3::timestamptz, $4::uuid)
     ORDER BY j.start_after, j.id LIMIT $5`,
    [queue, state, after?.startAfter ?? '-infinity', after?.jobId ?? '00000000-0000-0000-0000-000000000000', limit],
  );
}

/** Blocked jobs that wait for one of the parents, at most so many of each; a parent that is gone with its record is remembered in stuck_job. */
export function listChildren(sql: Sql, parents: readonly JobRef[], mostOfEach: number): Promise<JobRef[]> {
  return sql.query<JobRef>(
    `SELECT DISTINCT c.queue, c.id AS "jobId" FROM unnest($1::text[], $2::uuid[]) AS a(queue, id) CROSS JOIN LATERAL (
       (SELECT d.child_name AS queue, d.child_id AS id FROM job_dependency d CROSS JOIN LATERAL (
          SELECT FROM job j WHERE j.name = d.child_name AND j.id = d.child_id AND j.blocked AND j.state IN ('created', 'retry') OFFSET 0
        ) waiting
        WHERE d.parent_name = a.queue AND d.parent_id BETWEEN a.id AND a.id LIMIT $3)
       UNION ALL
       (SELECT k.queue, k.job_id FROM stuck_job k WHERE k.parent = a.queue || '/' || a.id AND k.parent <> '' LIMIT $3)
     ) c`,
    [parents.map(({ queue }) => queue), parents.map(({ jobId }) => jobId), mostOfEach],
  );
}

export interface StuckChildRow extends JobRef {
  retryCount: number;
  reason: 'parent_failed' | 'parent_cancelled' | 'parent_gone';
  parentQueue: string | null;
  parentId: string | null;
  parentRetryCount: number | null;
  deadLetter: string | null;
  since: string;
}

/**
 * Those of the jobs that wait in vain, a row for each parent that keeps them: everything by primary key, one job after the
 * other (OFFSET keeps the planner from reading a whole table instead). A parent that is not there and was resolved before
 * it went is not counted any more in pending_dependencies; one that went unresolved is, and nothing will ever count it
 * down. pg-boss deletes the dependencies of a deleted parent too: who it was is then known from stuck_job alone, if at all.
 */
export function listStuckChildren(
  sql: Sql,
  jobs: readonly JobRef[],
  { ofEach = null, inAll = null }: { ofEach?: number | null; inAll?: number | null } = {},
): Promise<StuckChildRow[]> {
  return sql.query<StuckChildRow>(
    `WITH stuck AS MATERIALIZED (
       SELECT c.name, c.id, c.retry_count, c.created_on, c.pending_dependencies > u.unresolved AS lost
       FROM unnest($1::text[], $2::uuid[]) AS a(name, id) CROSS JOIN LATERAL (
         SELECT j.name, j.id, j.retry_count, j.created_on, j.pending_dependencies FROM job j
         WHERE j.name = a.name AND j.id = a.id AND j.blocked AND j.state IN ('created', 'retry') OFFSET 0
       ) c CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE p.blocking) AS unresolved, coalesce(bool_or(p.blocking AND p.state IN ('failed', 'cancelled')), false) AS ended
         FROM job_dependency d LEFT JOIN LATERAL (
           SELECT j.blocking, j.state FROM job j WHERE j.name = d.parent_name AND j.id = d.parent_id OFFSET 0
         ) p ON true
         WHERE d.child_name = c.name AND d.child_id = c.id
       ) u
       WHERE u.ended OR c.pending_dependencies > u.unresolved
     )
     SELECT s.name AS queue, s.id AS "jobId", s.retry_count AS "retryCount",
       CASE p.state WHEN 'failed' THEN 'parent_failed' WHEN 'cancelled' THEN 'parent_cancelled' ELSE 'parent_gone' END AS reason,
       p.queue AS "parentQueue", p.id AS "parentId", p.retry_count AS "parentRetryCount", p.dead_letter AS "deadLetter",
       to_char(coalesce(p.completed_on, s.created_on) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
     FROM stuck s LEFT JOIN LATERAL (
       SELECT d.queue, d.id, j.state, j.retry_count, j.completed_on, j.dead_letter
       FROM (
         SELECT e.parent_name AS queue, e.parent_id AS id, true AS recorded FROM job_dependency e WHERE e.child_name = s.name AND e.child_id = s.id
         UNION ALL
         SELECT left(k.parent, -37), right(k.parent, 36)::uuid, false
         FROM (SELECT DISTINCT k.parent FROM stuck_job k WHERE s.lost AND k.queue = s.name AND k.job_id = s.id AND k.parent <> '') k
         WHERE NOT EXISTS (SELECT FROM job_dependency e WHERE e.child_name = s.name AND e.child_id = s.id
           AND e.parent_name = left(k.parent, -37) AND e.parent_id = right(k.parent, 36)::uuid)
       ) d LEFT JOIN LATERAL (
         SELECT j.id, j.state, j.blocking, j.retry_count, j.completed_on, j.dead_letter FROM job j WHERE j.name = d.queue AND j.id = d.id OFFSET 0
       ) j ON true
       WHERE (d.recorded AND j.blocking AND j.state IN ('failed', 'cancelled')) OR (j.id IS NULL AND s.lost) LIMIT $3
     ) p ON true LIMIT $4`,
    [jobs.map(({ queue }) => queue), jobs.map(({ jobId }) => jobId), ofEach, inAll],
  );
}

/** The failed and cancelled parents of the jobs, in the order of queue and id; none of them comes back to life while they are held. */
export async function lockEndedParents(tx: Sql, jobs: readonly JobRef[]): Promise<void> {
  await tx.query(
    `SELECT FROM job p JOIN (
       SELECT DISTINCT d.parent_name AS name, d.parent_id AS id FROM unnest($1::text[], $2::uuid[]) AS a(queue, id)
       JOIN job_dependency d ON d.child_name = a.queue AND d.child_id = a.id
     ) d ON p.name = d.name AND p.id = d.id
     WHERE p.blocking AND p.state IN ('failed', 'cancelled') ORDER BY p.name, p.id FOR UPDATE OF p`,
    [jobs.map(({ queue }) => queue), jobs.map(({ jobId }) => jobId)],
  );
}

export interface CopyRow extends JobRef {
  of: string;
  state: string;
  redriven: boolean;
  ofLastEnd: boolean;
}

/**
 * What pg-boss made of jobs after they failed: copies in a dead letter queue, and what was redriven from there. By job_i12,
 * job for job: LIMIT keeps the planner from reading every copy that there is. A root is an id alone: what was copied from another
 * queue's job of that id is not of this one; of what was redriven nothing tells.
 */
export function listCopies(sql: Sql, jobs: readonly JobRef[], mostOfEach: number): Promise<CopyRow[]> {
  return sql.query<CopyRow>(
    `SELECT a.queue || '/' || a.id AS of, c.*
     FROM unnest($1::text[], $2::uuid[]) AS a(queue, id) CROSS JOIN LATERAL (
       SELECT c.name AS queue, c.id AS "jobId", c.state::text, c.source_id IS NULL AS redriven, c.created_on >= p.completed_on AS "ofLastEnd"
       FROM job p JOIN job c ON c.source_root_id = coalesce(p.source_root_id, p.id) AND c.id <> p.id AND c.created_on > p.created_on
       WHERE p.name = a.queue AND p.id = a.id AND (c.source_id IS NULL OR c.source_id <> p.id OR c.source_name = p.name) ORDER BY c.created_on DESC LIMIT $3
     ) c`,
    [jobs.map(({ queue }) => queue), jobs.map(({ jobId }) => jobId), mostOfEach],
  );
}

export interface DescendantRow extends JobRef {
  root: number;
  state: string;
  retryCount: number;
  waitsForQueue: string | null;
  waitsForId: string | null;
  deletedAt: string;
}

/**
 * Down the dependencies by job_dep_parent_idx; UNION, for a child may be reached on several ways. LIMIT on the recursive
 * query itself ends it there; OFFSET keeps each of its steps from reading a whole table, and so does BETWEEN, where one
 * parent has most of the dependencies and Postgres takes every other to have as many.
 */
export function listDescendants(sql: Sql, children: readonly (JobRef & { root: number })[], limit: number): Promise<DescendantRow[]> {
  return sql.query<DescendantRow>(
    `WITH RECURSIVE below (root, name, id) AS (
       SELECT c.root, c.name, c.id FROM unnest($1::int[], $2::text[], $3::uuid[]) AS c(root, name, id)
       UNION
       SELECT b.root, d.child_name, d.child_id FROM below b CROSS JOIN LATERAL (
         SELECT d.child_name, d.child_id FROM job_dependency d CROSS JOIN LATERAL (
           SELECT FROM job j WHERE j.name = d.child_name AND j.id = d.child_id AND j.blocked AND j.state IN ('created', 'retry') OFFSET 0
         ) waiting
         WHERE d.parent_name = b.name AND d.parent_id BETWEEN b.id AND b.id OFFSET 0
       ) d
     )
     SELECT b.root, j.name AS queue, j.id AS "jobId", j.state::text, j.retry_count AS "retryCount", w.queue AS "waitsForQueue",
       w.id AS "waitsForId", to_char(j.keep_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS "deletedAt"
     FROM (SELECT * FROM below LIMIT $4) b CROSS JOIN LATERAL (
       SELECT j.name, j.id, j.state, j.retry_count, j.keep_until FROM job j
       WHERE j.name = b.name AND j.id = b.id AND j.blocked AND j.state IN ('created', 'retry') OFFSET 0
     ) j LEFT JOIN LATERAL (
       SELECT d.parent_name AS queue, d.parent_id AS id FROM job_dependency d LEFT JOIN LATERAL (
         SELECT p.id, p.blocking FROM job p WHERE p.name = d.parent_name AND p.id = d.parent_id OFFSET 0
       ) p ON true
       WHERE d.child_name = j.name AND d.child_id = j.id AND (p.id IS NULL OR p.blocking) ORDER BY 1, 2 LIMIT 1
     ) w ON true`,
    [children.map(({ root }) => root), children.map(({ queue }) => queue), children.map(({ jobId }) => jobId), limit],
  );
}

/** By job_i9, which holds completed parents only while they are unresolved. */
export function listUnresolved(sql: Sql, queues: readonly string[], afterSeconds: number, limit: number): Promise<JobRef[]> {
  return sql.query<JobRef>(
    `SELECT name AS queue, id AS "jobId" FROM job
     WHERE name = ANY($1) AND blocking AND state = 'completed' AND completed_on < now() - make_interval(secs => $2)
     ORDER BY name, id LIMIT $3`,
    [queues, afterSeconds, limit],
  );
}

export async function countUnresolved(sql: Sql, queues: readonly string[], afterSeconds: number, limit: number): Promise<number> {
  return (await listUnresolved(sql, queues, afterSeconds, limit)).length;
}

export async function listSubscribers(sql: Sql, event: string): Promise<string[]> {
  return (await sql.query<{ name: string }>('SELECT name FROM subscription WHERE event = $1 ORDER BY name', [event])).map(
    ({ name }) => name,
  );
}

/**
 * pg-boss has no call that lets a blocked child go without its parent. The dependencies on parents that will not complete
 * are removed, so that one which is retried later does not count the child down twice; what is left is counted anew.
 */
export async function releaseChild(tx: Sql, { queue, jobId }: JobRef): Promise<boolean> {
  await tx.query(
    `DELETE FROM job_dependency d WHERE d.child_name = $1 AND d.child_id = $2
       AND NOT EXISTS (SELECT FROM job p WHERE p.name = d.parent_name AND p.id = d.parent_id
         AND NOT (p.blocking AND p.state IN ('failed', 'cancelled')))`,
    [queue, jobId],
  );
  const rows = await tx.query<{ blocked: boolean }>(
    `UPDATE job c SET pending_dependencies = left_over.count, blocked = left_over.count > 0,
       start_after = CASE WHEN left_over.count = 0 THEN greatest(c.start_after, now()) ELSE c.start_after END
     FROM (SELECT count(*)::int AS count FROM job_dependency d JOIN job p ON p.name = d.parent_name AND p.id = d.parent_id
       WHERE d.child_name = $1 AND d.child_id = $2 AND p.blocking) left_over
     WHERE c.name = $1 AND c.id = $2 AND c.blocked AND c.state IN ('created', 'retry')
     RETURNING c.blocked`,
    [queue, jobId],
  );
  return rows[0]?.blocked === false;
}
