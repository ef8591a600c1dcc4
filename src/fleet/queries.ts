import type { Sql } from '../postgres/database.ts';

export interface NodeIdentity {
  node: string;
  daemonId: string;
  host: string;
  pid: number;
  bootId: string | null;
  version: string;
  stack: string | null;
  env: string | null;
}

export interface BeatRow {
  /** Seconds since this daemon's own previous beat; null for its first. */
  gapSeconds: number | null;
  /** Another daemon's beat that was overwritten, and how old it was. */
  rival: string | null;
  rivalAgeSeconds: number | null;
  rivalStopped: boolean | null;
}

/**
 * One beat. Where the gap since the one before is longer than `cutOffSeconds`, the same statement voids the evidence of
 * silence: nobody ever sees a fresh beat after an outage without the comeback.
 */
export async function saveBeat(sql: Sql, identity: NodeIdentity, cutOffSeconds: number): Promise<BeatRow> {
  const { node, daemonId, host, pid, bootId, version, stack, env } = identity;
  const [row] = await sql.query<BeatRow>(
    // Not FOR UPDATE: a row that the same statement has already changed would be skipped, and no gap ever seen.
    `WITH before AS (SELECT daemon_id, beat_at, stopped_at FROM node WHERE node = $1),
     beat AS (
       INSERT INTO node AS n (node, daemon_id, host, pid, boot_id, version, stack, env)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
       ON CONFLICT (node) DO UPDATE SET beat_at = now(), stopped_at = NULL, daemon_id = $2, host = $3, pid = $4,
         boot_id = $5, version = $6, stack = $7, env = $8,
         started_at = CASE WHEN n.daemon_id = $2 THEN n.started_at ELSE now() END
       RETURNING 1
     ),
     life AS (
       INSERT INTO daemon (id) VALUES ($2) ON CONFLICT (id) DO UPDATE SET beat_at = now(), stopped_at = NULL
     ),
     comeback AS (
       UPDATE fleet SET comeback_at = now(),
         comeback_reason = format('node %s was cut off for %s s', $1, round(extract(epoch FROM now() - b.beat_at)))
       FROM before b WHERE b.daemon_id = $2 AND b.beat_at < now() - make_interval(secs => $9)
     )
     SELECT
       CASE WHEN b.daemon_id = $2 THEN extract(epoch FROM now() - b.beat_at)::float8 END AS "gapSeconds",
       CASE WHEN b.daemon_id <> $2 THEN b.daemon_id::text END AS rival,
       CASE WHEN b.daemon_id <> $2 THEN extract(epoch FROM now() - b.beat_at)::float8 END AS "rivalAgeSeconds",
       CASE WHEN b.daemon_id <> $2 THEN b.stopped_at IS NOT NULL END AS "rivalStopped"
     FROM beat LEFT JOIN before b ON true`,
    [node, daemonId, host, pid, bootId, version, stack, env, cutOffSeconds],
  );
  if (!row) throw new Error('a beat returned no row');
  return row;
}

export async function saveNodeStop(sql: Sql, node: string, daemonId: string): Promise<void> {
  await sql.query(
    `WITH life AS (UPDATE daemon SET stopped_at = now() WHERE id = $2)
     UPDATE node SET stopped_at = now() WHERE node = $1 AND daemon_id = $2`,
    [node, daemonId],
  );
}

/**
 * The fleet's row for this pg-boss schema; made by whoever comes first.
 * @returns the pg-boss schema that this reclaimd schema really serves.
 */
export async function claimFleet(sql: Sql, pgbossSchema: string): Promise<string> {
  const read = () => sql.query<{ schema: string }>('SELECT pgboss_schema AS schema FROM fleet');
  const [known] = await read();
  // Most of the time it is there, and whoever only reads may not write it.
  if (known) return known.schema;
  await sql.query('INSERT INTO fleet (pgboss_schema) VALUES ($1) ON CONFLICT DO NOTHING', [pgbossSchema]);
  const [row] = await read();
  if (!row) throw new Error('the fleet has no row');
  return row.schema;
}

/** What tells this fleet from all others, for good: a UUID. */
export async function readFleetId(sql: Sql): Promise<string> {
  const [row] = await sql.query<{ id: string }>('SELECT id::text FROM fleet');
  if (!row) throw new Error('the fleet has no row');
  return row.id;
}

export interface FleetState {
  /** Seconds since the last comeback of database, daemon or host, whichever was last; null when there was none. */
  comebackSeconds: number | null;
  comebackReason: string | null;
  /** Whether the mass-failure brake held at the last look. */
  braked: boolean;
  /** Seconds since the brake was last let go; null where it never held, or still does. */
  releasedSeconds: number | null;
  /** Whether the asking daemon's own beat is fresh: if not, it was cut off itself and judges nobody. */
  ownBeatFresh: boolean;
  /** Seconds since the asking daemon began; its start-up delay. */
  daemonAgeSeconds: number;
}

/**
 * `node` null asks for a command, which has no beat of its own and goes by the fleet's: the freshest beat of any node, and
 * the longest life among the nodes that beat.
 */
export async function readFleetState(sql: Sql, node: string | null, daemonId: string | null, freshSeconds: number): Promise<FleetState> {
  const [row] = await sql.query<FleetState>(
    `SELECT extract(epoch FROM now() - greatest(f.comeback_at, pg_postmaster_start_time()))::float8 AS "comebackSeconds",
       CASE WHEN f.comeback_at > pg_postmaster_start_time() THEN f.comeback_reason ELSE 'the database server started' END AS "comebackReason",
       f.braked_since IS NOT NULL AS braked,
       CASE WHEN f.braked_since IS NULL THEN extract(epoch FROM now() - f.brake_released_at)::float8 END AS "releasedSeconds",
       coalesce(j.fresh, false) AS "ownBeatFresh", coalesce(j.age, 0) AS "daemonAgeSeconds"
     FROM fleet f CROSS JOIN (
       SELECT bool_or(n.fresh) AS fresh, max(extract(epoch FROM now() - n.started_at)::float8) FILTER (WHERE n.fresh) AS age
       FROM (SELECT started_at, beat_at > now() - make_interval(secs => $3) AS fresh FROM node
             WHERE $1::text IS NULL OR (node = $1 AND daemon_id = $2)) n
     ) j`,
    [node, daemonId, freshSeconds],
  );
  if (!row) throw new Error('the fleet has no row: run `reclaimd migrate`');
  return row;
}

export async function saveBrake(sql: Sql, braked: boolean): Promise<void> {
  await sql.query(
    `UPDATE fleet SET braked_since = CASE WHEN $1 THEN coalesce(braked_since, now()) END,
       brake_released_at = CASE WHEN $1 THEN brake_released_at ELSE now() END
     WHERE (braked_since IS NOT NULL) <> $1`,
    [braked],
  );
}

export interface NodeRow {
  node: string;
  host: string;
  version: string;
  stack: string | null;
  env: string | null;
  beatSeconds: number;
  stopped: boolean;
}

export function listNodes(sql: Sql): Promise<NodeRow[]> {
  return sql.query<NodeRow>(
    `SELECT node, host, version, stack, env, extract(epoch FROM now() - beat_at)::float8 AS "beatSeconds", stopped_at IS NOT NULL AS stopped
     FROM node ORDER BY node`,
  );
}
