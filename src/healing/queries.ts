import type { Sql } from '../postgres/database.ts';

export interface UnitLife {
  unit: string;
  invocation: string;
  restarts: number;
  /** Undefined where nothing can tell. */
  stopRequested: boolean | undefined;
}

/** Notes lives, and whether somebody asked for their end once that is told; forgets those that no window will ask for; of each unit the last one is kept. */
export async function saveLives(sql: Sql, host: string, lives: readonly UnitLife[], windowSeconds: number): Promise<void> {
  await sql.query(
    `WITH seen AS (
       INSERT INTO unit_life (host, unit, invocation, restarts, stop_requested)
       SELECT $1, l.unit, l.invocation, l.restarts, l."stopRequested"
       FROM jsonb_to_recordset($2::jsonb) AS l(unit text, invocation text, restarts int, "stopRequested" boolean)
       ON CONFLICT (host, unit, invocation) DO UPDATE SET stop_requested = excluded.stop_requested WHERE excluded.stop_requested IS NOT NULL
     )
     DELETE FROM unit_life o WHERE o.host = $1 AND o.seen_at < clock_timestamp() - make_interval(secs => 2 * $3::float8)
       AND EXISTS (SELECT FROM unit_life n WHERE n.host = o.host AND n.unit = o.unit AND n.seen_at > o.seen_at
         AND n.seen_at < clock_timestamp() - make_interval(secs => $3))`,
    [host, JSON.stringify(lives), windowSeconds],
  );
}

/**
 * How often systemd restarted each unit by itself within the window. Its counter grows by one each time and begins anew when
 * somebody starts the unit: what was seen in between counts, however seldom we look. The first life ever seen counts nothing.
 */
export async function countRestarts(sql: Sql, host: string, windowSeconds: number): Promise<Map<string, number>> {
  const rows = await sql.query<{ unit: string; restarts: number }>(
    `SELECT unit, sum(CASE WHEN restarts >= before THEN restarts - before ELSE restarts END)::int AS restarts
     FROM (SELECT unit, seen_at, restarts, lag(restarts) OVER (PARTITION BY unit ORDER BY seen_at, restarts) AS before FROM unit_life WHERE host = $1) AS life
     WHERE before IS NOT NULL AND seen_at > clock_timestamp() - make_interval(secs => $2)
     GROUP BY unit`,
    [host, windowSeconds],
  );
  return new Map(rows.map((row) => [row.unit, row.restarts]));
}

/**
 * By unit, the life that was ended here, or had its failure reset, for a start that did not take: as far as is known the unit is down in it.
 * What was done to the unit since with success, and a life that was seen since, end that.
 */
export async function listLeftDown(sql: Sql, host: string): Promise<Map<string, string>> {
  const rows = await sql.query<{ unit: string; life: string }>(
    `SELECT DISTINCT ON (unit) unit, ended_life AS life FROM unit_action a
     WHERE host = $1 AND ended_life IS NOT NULL AND outcome IS DISTINCT FROM 'done'
       AND NOT EXISTS (SELECT FROM unit_action n WHERE n.host = a.host AND n.unit = a.unit AND n.id > a.id AND n.outcome = 'done')
       AND NOT EXISTS (SELECT FROM unit_life l WHERE l.host = a.host AND l.unit = a.unit AND l.seen_at > a.started_at AND l.invocation <> a.ended_life)
     ORDER BY unit, id DESC`,
    [host],
  );
  return new Map(rows.map(({ unit, life }) => [unit, life]));
}

/** Which of these lives were stopped through us, or by what was told of them before. @returns their invocations. */
export async function listStopped(sql: Sql, host: string, lives: readonly { unit: string; invocationId: string }[]): Promise<string[]> {
  const rows = await sql.query<{ invocation: string }>(
    `SELECT invocation FROM unit_action WHERE host = $1 AND unit = ANY($2::text[]) AND action = 'unit_stop' AND invocation = ANY($3::text[])
     UNION SELECT invocation FROM unit_life WHERE host = $1 AND unit = ANY($2::text[]) AND invocation = ANY($3::text[]) AND stop_requested`,
    [host, lives.map(({ unit }) => unit), lives.map(({ invocationId }) => invocationId).filter((id) => id !== '')],
  );
  return rows.map(({ invocation }) => invocation);
}
