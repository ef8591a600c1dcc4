import type { JobRef, WalkPosition } from '../actions/flow-store.ts';
import type { Sql } from '../postgres/database.ts';

export type WalkName = 'act' | 'dry run';

/** Where the last walk of that name ended; null: at the beginning. */
export async function readPosition(sql: Sql, name: WalkName): Promise<WalkPosition | null> {
  const [row] = await sql.query<WalkPosition>(
    'SELECT queue, state, start_after AS "startAfter", job_id AS "jobId" FROM flow_walk WHERE name = $1',
    [name],
  );
  return row ?? null;
}

export async function savePosition(sql: Sql, name: WalkName, position: WalkPosition | null): Promise<void> {
  if (!position) await sql.query('DELETE FROM flow_walk WHERE name = $1', [name]);
  else
    await sql.query(
      `INSERT INTO flow_walk (name, queue, state, start_after, job_id) VALUES ($1, $2, $3, $4, $5)
       ON CONFLICT (name) DO UPDATE SET queue = $2, state = $3, start_after = $4, job_id = $5`,
      [name, position.queue, position.state, position.startAfter, position.jobId],
    );
}

/** Jobs that are remembered behind these incidents and not known to be lost. */
export function listRemembered(sql: Sql, fingerprints: readonly string[], limit: number): Promise<JobRef[]> {
  return sql.query<JobRef>(
    'SELECT DISTINCT queue, job_id AS "jobId" FROM stuck_job WHERE fingerprint = ANY($1) AND lost_at IS NULL LIMIT $2',
    [fingerprints, limit],
  );
}

export interface StuckJobRecord extends JobRef {
  fingerprint: string;
  parent: string;
}

/** Of one statement. */
const BATCH = 5_000;

export async function rememberJobs(tx: Sql, jobs: readonly StuckJobRecord[]): Promise<void> {
  for (let first = 0; first < jobs.length; first += BATCH) {
    const batch = jobs.slice(first, first + BATCH);
    await tx.query(
      `INSERT INTO stuck_job (fingerprint, queue, job_id, parent)
       SELECT f.* FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[]) AS f(fingerprint, queue, job_id, parent)
       ORDER BY 1, 2, 3, 4 ON CONFLICT DO NOTHING`,
      [
        batch.map(({ fingerprint }) => fingerprint),
        batch.map(({ queue }) => queue),
        batch.map(({ jobId }) => jobId),
        batch.map(({ parent }) => parent),
      ],
    );
  }
}

/**
 * Forgets the jobs behind these incidents that are there and wait no more, and notes those that are not there. One look-up
 * by primary key each: as a join the planner may read the whole job table.
 */
export async function noteLosses(tx: Sql, fingerprints: readonly string[]): Promise<void> {
  await tx.query(
    `DELETE FROM stuck_job s WHERE s.fingerprint = ANY($1) AND s.lost_at IS NULL
       AND (SELECT NOT (j.blocked AND j.state IN ('created', 'retry')) FROM job j WHERE j.name = s.queue AND j.id = s.job_id)`,
    [fingerprints],
  );
  await tx.query(
    `UPDATE stuck_job s SET lost_at = now() WHERE s.fingerprint = ANY($1) AND s.lost_at IS NULL
       AND (SELECT j.id FROM job j WHERE j.name = s.queue AND j.id = s.job_id) IS NULL`,
    [fingerprints],
  );
}

export interface LossRow {
  fingerprint: string;
  count: number;
  /** The first few, as `QUEUE/JOB-ID`. */
  jobs: string[];
  /** By somebody who could know of all of them. */
  acknowledged: boolean;
}

export function listLosses(tx: Sql, named: number): Promise<LossRow[]> {
  return tx.query<LossRow>(
    `SELECT s.fingerprint, count(*)::int AS count, (array_agg(s.queue || '/' || s.job_id ORDER BY s.queue, s.job_id))[1:$1] AS jobs,
       coalesce(bool_and(i.acknowledged_at > s.lost_at), false) AS acknowledged
     FROM (SELECT fingerprint, queue, job_id, max(lost_at) AS lost_at FROM stuck_job WHERE lost_at IS NOT NULL GROUP BY 1, 2, 3) s JOIN incident i ON i.fingerprint = s.fingerprint AND i.resolved_at IS NULL
     GROUP BY s.fingerprint`,
    [named],
  );
}

/** Incidents under the prefix that are open now, without these. */
export async function listOthersOpen(tx: Sql, prefix: string, fingerprints: readonly string[]): Promise<string[]> {
  const others = await tx.query<{ fingerprint: string }>(
    `SELECT i.fingerprint FROM incident i WHERE i.class = 'workflow_stuck' AND i.resolved_at IS NULL AND starts_with(i.fingerprint, $1)
       AND NOT EXISTS (SELECT FROM unnest($2::text[]) AS s(fingerprint) WHERE s.fingerprint = i.fingerprint)`,
    [prefix, fingerprints],
  );
  return others.map(({ fingerprint }) => fingerprint);
}

/** What was remembered for the sake of an incident goes with it. */
export async function forgetResolved(tx: Sql): Promise<void> {
  await tx.query(
    'DELETE FROM stuck_job s WHERE NOT EXISTS (SELECT FROM incident i WHERE i.fingerprint = s.fingerprint AND i.resolved_at IS NULL)',
  );
}
