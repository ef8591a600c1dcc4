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
 * Blocked jobs by job_i14 (name, state, blocked), then their dependencies and parents by primary key: the work grows with
 * the blocked jobs, not with the table. A parent that is not there and was resolved before it went is not counted any
 * more in pending_dependencies; one that went unresolved is, and nothing will ever count it down.
 */
export function listStuckChildren(
  sql: Sql,
  queues: readonly string[],
  limit: number,
  ids: readonly string[] | null = null,
): Promise<StuckChildRow[]> {
  return sql.query<StuckChildRow>(
    `WITH stuck AS (
       SELECT c.name, c.id, c.retry_count, c.created_on, c.pending_dependencies > u.unresolved AS lost
       FROM job c CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE p.blocking) AS unresolved, coalesce(bool_or(p.blocking AND p.state IN ('failed', 'cancelled')), false) AS ended
         FROM job_dependency d LEFT JOIN job p ON p.name = d.parent_name AND p.id = d.parent_id
         WHERE d.child_name = c.name AND d.child_id = c.id
       ) u
       WHERE c.name = ANY($1) AND c.state IN ('created', 'retry') AND c.blocked AND ($3::uuid[] IS NULL OR c.id = ANY($3))
         AND (u.ended OR c.pending_dependencies > u.unresolved)
       LIMIT $2
     )
     SELECT s.name AS queue, s.id AS "jobId", s.retry_count AS "retryCount",
       CASE p.state WHEN 'failed' THEN 'parent_failed' WHEN 'cancelled' THEN 'parent_cancelled' ELSE 'parent_gone' END AS reason,
       p.queue AS "parentQueue", p.id AS "parentId", p.retry_count AS "parentRetryCount", p.dead_letter AS "deadLetter",
       to_char(coalesce(p.completed_on, s.created_on) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
     FROM stuck s LEFT JOIN LATERAL (
       SELECT d.parent_name AS queue, d.parent_id AS id, j.state, j.retry_count, j.completed_on, j.dead_letter
       FROM job_dependency d LEFT JOIN job j ON j.name = d.parent_name AND j.id = d.parent_id
       WHERE d.child_name = s.name AND d.child_id = s.id
         AND ((j.blocking AND j.state IN ('failed', 'cancelled')) OR (j.id IS NULL AND s.lost))
     ) p ON true`,
    [queues, limit, ids],
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

/** Down the dependencies by job_dep_parent_idx; UNION, for a child may be reached on several ways. */
export function listDescendants(sql: Sql, children: readonly (JobRef & { root: number })[], limit: number): Promise<DescendantRow[]> {
  return sql.query<DescendantRow>(
    `WITH RECURSIVE below (root, name, id) AS (
       SELECT c.root, c.name, c.id FROM unnest($1::int[], $2::text[], $3::uuid[]) AS c(root, name, id)
       UNION
       SELECT b.root, d.child_name, d.child_id FROM below b
       JOIN job_dependency d ON d.parent_name = b.name AND d.parent_id = b.id
       JOIN job j ON j.name = d.child_name AND j.id = d.child_id AND j.blocked AND j.state IN ('created', 'retry')
     )
     SELECT b.root, j.name AS queue, j.id AS "jobId", j.state::text, j.retry_count AS "retryCount", w.queue AS "waitsForQueue",
       w.id AS "waitsForId", to_char(j.keep_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS "deletedAt"
     FROM below b JOIN job j ON j.name = b.name AND j.id = b.id
     LEFT JOIN LATERAL (
       SELECT d.parent_name AS queue, d.parent_id AS id FROM job_dependency d LEFT JOIN job p ON p.name = d.parent_name AND p.id = d.parent_id
       WHERE d.child_name = j.name AND d.child_id = j.id AND (p.id IS NULL OR p.blocking) ORDER BY 1, 2 LIMIT 1
     ) w ON true
     WHERE j.blocked AND j.state IN ('created', 'retry')
     LIMIT $4`,
    [children.map(({ root }) => root), children.map(({ queue }) => queue), children.map(({ jobId }) => jobId), limit],
  );
}

/** By job_i9, which holds completed parents only while they are unresolved. */
export async function countUnresolved(sql: Sql, queues: readonly string[], afterSeconds: number, limit: number): Promise<number> {
  const [row] = await sql.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM (
       SELECT FROM job WHERE name = ANY($1) AND blocking AND state = 'completed' AND completed_on < now() - make_interval(secs => $2) LIMIT $3
     ) unresolved`,
    [queues, afterSeconds, limit],
  );
  return row?.count ?? 0;
}

export async function listSubscribers(sql: Sql, event: string): Promise<string[]> {
  return (await sql.query<{ name: string }>('SELECT name FROM subscription WHERE event = $1 ORDER BY name', [event])).map(
    ({ name }) => name,
  );
}

export async function listPresent(sql: Sql, jobs: readonly JobRef[]): Promise<Set<string>> {
  const rows = await sql.query<{ target: string }>(
    `SELECT j.name || '/' || j.id AS target FROM job j JOIN unnest($1::text[], $2::uuid[]) AS a(queue, id) ON j.name = a.queue AND j.id = a.id`,
    [jobs.map(({ queue }) => queue), jobs.map(({ jobId }) => jobId)],
  );
  return new Set(rows.map(({ target }) => target));
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
