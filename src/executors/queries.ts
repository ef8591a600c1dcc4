import type { Sql } from '../postgres/database.ts';
import type { Proof, Verdict } from './verdict.ts';

/** One executor with its evidence, ages computed by the database. */
export interface ExecutorRow {
  id: string;
  kind: 'pgboss' | 'own';
  name: string | null;
  host: string | null;
  pid: number | null;
  /** What its sessions carry; null where that is nothing, for what carries no name is nobody's. */
  applicationName: string | null;
  queues: string[];
  stack: string | null;
  env: string | null;
  beatSeconds: number;
  lateAfterSeconds: number | null;
  missingAfterSeconds: number | null;
  /** Text with microseconds: compared as it was read, never through a Date. */
  beatAt: string;
  sessionAt: string | null;
  /** Text like an attempt's startedOn, and comparable with it as text. */
  startedAt: string;
  /** Text like startedAt: when it stopped, or its death was recorded. */
  endedAt: string | null;
  /** Since its last sign of life, a graceful stop being one. */
  silentSeconds: number;
  ageSeconds: number;
  stopped: boolean;
  proof: Proof | null;
  /** Some session carries its name now: its own, while it lives. */
  nameInUse: boolean;
  witnessNode: string | null;
  witnessed: boolean;
  sighted: boolean;
  unseenSeconds: number | null;
  /** The systemd unit that it runs in, where its node knows. */
  unit: string | null;
  /** Its node may touch that unit. */
  unitAllowed: boolean;
  /** That unit is being stopped. */
  draining: boolean;
  lastSignAt: string;
  verdict: Verdict;
  reason: string;
}

/** The life of a daemon that held its process in sight last; whoever was wrong about its death, and names no node any more, is none. */
const WITNESS = 'LEFT JOIN daemon w ON w.id = e.witness_daemon_id AND e.witness_node IS NOT NULL';
/** The life of a daemon that sees a process which was never proven to be its. */
const SIGHTING = 'LEFT JOIN daemon s ON s.id = e.sighting_daemon_id';
/** A goodbye is later than the last beat. */
const LAST_SEEN = 'greatest(coalesce(w.stopped_at, w.beat_at), coalesce(s.stopped_at, s.beat_at))';
const isFresh = (daemon: 'w' | 's', freshSeconds: string) =>
  `coalesce(${daemon}.stopped_at IS NULL AND ${daemon}.beat_at > now() - make_interval(secs => ${freshSeconds}), false)`;

const EXECUTOR_COLUMNS = `
  e.id, e.kind, e.name, e.host, e.pid, nullif(e.application_name, '') AS "applicationName", e.queues, e.stack, e.env,
  e.beat_seconds AS "beatSeconds", e.late_after_seconds AS "lateAfterSeconds", e.missing_after_seconds AS "missingAfterSeconds",
  e.beat_at::text AS "beatAt", e.session_at::text AS "sessionAt", e.started_at::text AS "startedAt",
  extract(epoch FROM now() - greatest(e.beat_at, e.session_at, e.stopped_at))::float8 AS "silentSeconds",
  extract(epoch FROM now() - e.started_at)::float8 AS "ageSeconds",
  coalesce(e.stopped_at, e.dead_at)::text AS "endedAt",
  coalesce(e.application_name IN (SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''), false) AS "nameInUse",
  e.stopped_at IS NOT NULL AS stopped, e.proof, e.witness_node AS "witnessNode",
  ${isFresh('w', '$1')} AS witnessed, ${isFresh('s', '$1')} AS sighted, extract(epoch FROM now() - ${LAST_SEEN})::float8 AS "unseenSeconds",
  e.unit, e.unit_allowed AS "unitAllowed", e.draining,
  coalesce(e.last_alive_at, greatest(e.beat_at, e.session_at))::text AS "lastSignAt",
  e.verdict, e.verdict_reason AS reason`;

/**
 * Executors that can still matter: no job outlives pg-boss's longest expiry, a day, so whoever has been gone for longer
 * owns nothing any more.
 */
export function listExecutors(sql: Sql, witnessFreshSeconds: number, keptSeconds: number): Promise<ExecutorRow[]> {
  return sql.query<ExecutorRow>(
    `SELECT ${EXECUTOR_COLUMNS}
     FROM executor e ${WITNESS} ${SIGHTING}
     WHERE greatest(e.beat_at, e.session_at, e.stopped_at, e.dead_at) > now() - make_interval(secs => $2)
     ORDER BY e.started_at, e.id`,
    [witnessFreshSeconds, keptSeconds],
  );
}

/** Executors of those ids, or whose sessions carry those names, however long they are gone. */
export function findExecutors(
  sql: Sql,
  { ids = [], names = [] }: { ids?: readonly string[]; names?: readonly string[] },
  witnessFreshSeconds: number,
): Promise<ExecutorRow[]> {
  return sql.query<ExecutorRow>(
    `SELECT ${EXECUTOR_COLUMNS}
     FROM executor e ${WITNESS} ${SIGHTING}
     WHERE e.id = ANY($2) OR e.application_name = ANY($3)
     ORDER BY e.started_at, e.id`,
    [witnessFreshSeconds, ids, names],
  );
}

/** Of the executors that are known, whether each has ended: stopped gracefully, or died with proof. */
export function listEnded(sql: Sql, ids: readonly string[]): Promise<{ id: string; ended: boolean }[]> {
  return sql.query('SELECT id, stopped_at IS NOT NULL OR proof IS NOT NULL AS ended FROM executor WHERE id = ANY($1)', [ids]);
}

export async function saveVerdicts(sql: Sql, verdicts: readonly { id: string; verdict: Verdict; reason: string }[]): Promise<void> {
  await sql.query(
    `UPDATE executor e SET verdict = v.verdict, verdict_reason = v.reason, verdict_at = now()
     FROM jsonb_to_recordset($1::jsonb) AS v(id text, verdict text, reason text)
     WHERE e.id = v.id AND (e.verdict, e.verdict_reason) IS DISTINCT FROM (v.verdict, v.reason)`,
    [JSON.stringify(verdicts)],
  );
}

export async function countVerdicts(sql: Sql, keptSeconds: number): Promise<{ verdict: Verdict; count: number }[]> {
  return sql.query(
    `SELECT verdict, count(*)::int AS count FROM executor
     WHERE greatest(beat_at, session_at, stopped_at, dead_at) > now() - make_interval(secs => $1) GROUP BY verdict`,
    [keptSeconds],
  );
}

/** An executor of this host whose process might be adopted or, when it was adopted before, looked for. */
export interface LocalExecutorRow {
  id: string;
  pid: number;
  applicationName: string | null;
  ageSeconds: number;
  beatFresh: boolean;
  /** Since its last sign of life, or the last that was heard of the daemon that held it in sight. */
  silentSeconds: number;
  /** Some daemon whose beats are fresh holds it in sight already. */
  witnessed: boolean;
  /** Some daemon whose beats are fresh sees a process already that may be its; this one does, or did. */
  sighted: boolean;
  sightedHere: boolean;
  /** The node that held it in sight last, and from which boot and pid namespace. */
  witnessNode: string | null;
  witnessBootId: string | null;
  witnessPidNamespace: string | null;
  witnessStartTicks: string | null;
}

export function listLocalExecutors(
  sql: Sql,
  {
    host,
    daemonId,
    witnessFreshSeconds,
    keptSeconds,
  }: { host: string; daemonId: string; witnessFreshSeconds: number; keptSeconds: number },
): Promise<LocalExecutorRow[]> {
  return sql.query<LocalExecutorRow>(
    `SELECT e.id, e.pid, nullif(e.application_name, '') AS "applicationName",
       extract(epoch FROM now() - e.started_at)::float8 AS "ageSeconds",
       e.beat_at > now() - make_interval(secs => 2 * e.beat_seconds) AS "beatFresh",
       ${isFresh('w', '$2')} AS witnessed, ${isFresh('s', '$2')} AS sighted, e.sighting_daemon_id IS NOT DISTINCT FROM $3 AS "sightedHere",
       extract(epoch FROM now() - greatest(e.beat_at, e.session_at, ${LAST_SEEN}))::float8 AS "silentSeconds",
       e.witness_node AS "witnessNode", e.witness_boot_id AS "witnessBootId", e.witness_pid_namespace AS "witnessPidNamespace", e.witness_start_ticks::text AS "witnessStartTicks"
     FROM executor e ${WITNESS} ${SIGHTING}
     WHERE e.host = $1 AND e.pid IS NOT NULL AND e.stopped_at IS NULL AND e.proof IS NULL
       AND (e.witness_node IS NOT NULL OR e.sighting_daemon_id = $3 OR e.beat_at > now() - make_interval(secs => $4))`,
    [host, witnessFreshSeconds, daemonId, keptSeconds],
  );
}

export interface Witness {
  node: string;
  daemonId: string;
  bootId: string;
  pidNamespace: string;
  startTicks: number;
  stack: string | null;
  env: string | null;
}

/** The scope of the daemon that adopts becomes the executor's, unless it brought one of its own. */
export async function saveWitness(sql: Sql, id: string, witness: Witness): Promise<boolean> {
  const rows = await sql.query(
    `UPDATE executor SET witness_node = $2, witness_boot_id = $3, witness_pid_namespace = $4, witness_start_ticks = $5,
       stack = coalesce(stack, $6), env = coalesce(env, $7), witness_daemon_id = $8, sighting_daemon_id = NULL
     WHERE id = $1 AND stopped_at IS NULL AND proof IS NULL RETURNING id`,
    [id, witness.node, witness.bootId, witness.pidNamespace, witness.startTicks, witness.stack, witness.env, witness.daemonId],
  );
  return rows.length > 0;
}

/** Gives up sight of an executor: from then on only its silence speaks. */
export async function dropWitness(sql: Sql, id: string): Promise<void> {
  await sql.query(
    `UPDATE executor SET witness_node = NULL, witness_daemon_id = NULL, witness_boot_id = NULL, witness_pid_namespace = NULL,
       witness_start_ticks = NULL WHERE id = $1`,
    [id],
  );
}

export async function saveSighting(sql: Sql, id: string, daemonId: string): Promise<void> {
  await sql.query('UPDATE executor SET sighting_daemon_id = $2 WHERE id = $1 AND stopped_at IS NULL AND proof IS NULL', [id, daemonId]);
}

export async function dropSighting(sql: Sql, id: string, daemonId: string): Promise<void> {
  await sql.query('UPDATE executor SET sighting_daemon_id = NULL WHERE id = $1 AND sighting_daemon_id = $2', [id, daemonId]);
}

/**
 * Records a death once. A graceful stop that came first stands.
 * @returns false when it was stopped or already known to be dead.
 */
export async function saveDeath(sql: Sql, id: string, proof: Proof, aliveSecondsAgo: number | null): Promise<boolean> {
  const rows = await sql.query(
    `UPDATE executor SET proof = $2, dead_at = now(), verdict = 'dead', verdict_at = now(), verdict_reason = $4,
       last_alive_at = coalesce(now() - make_interval(secs => $3), greatest(beat_at, session_at))
     WHERE id = $1 AND stopped_at IS NULL AND proof IS NULL RETURNING id`,
    [id, proof, aliveSecondsAgo, proof === 'process_gone' ? 'its process is gone' : 'its host has booted since'],
  );
  return rows.length > 0;
}

/**
 * Last activity of each executor's database sessions. Behind a transaction pooler there are none by that name, and
 * this says nothing. A name that several executors carry says nothing of any of them.
 */
export async function importSessions(sql: Sql): Promise<void> {
  await sql.query(
    `UPDATE executor e SET session_at = s.active_at
     FROM (
       SELECT application_name, max(greatest(state_change, query_start, backend_start)) AS active_at
       FROM pg_stat_activity WHERE datname = current_database() AND application_name <> '' GROUP BY application_name
     ) s
     WHERE e.application_name = s.application_name AND e.stopped_at IS NULL AND e.proof IS NULL
       AND s.active_at > coalesce(e.session_at, e.beat_at) + interval '1 second'
       AND NOT EXISTS (SELECT FROM executor o WHERE o.application_name = e.application_name AND o.id <> e.id AND o.stopped_at IS NULL AND o.proof IS NULL)`,
  );
}

/** Sessions of that name that sit idle: a dead process has none, its sockets died with it. */
export async function countIdleSessions(sql: Sql, applicationName: string): Promise<number> {
  const [row] = await sql.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = $1 AND state LIKE 'idle%'`,
    [applicationName],
  );
  return row?.count ?? 0;
}

/** Those of the names that some session carries now. */
export async function listNamesInUse(sql: Sql, applicationNames: readonly string[]): Promise<Set<string>> {
  const rows = await sql.query<{ name: string }>(
    `SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE datname = current_database() AND application_name = ANY($1)`,
    [applicationNames],
  );
  return new Set(rows.map(({ name }) => name));
}

/** Whether what other roles' sessions do is to be seen at all: without that right their activity is NULL, and no evidence. */
export async function maySeeSessions(sql: Sql): Promise<boolean> {
  const [row] = await sql.query<{ may: boolean }>(`SELECT pg_has_role('pg_read_all_stats', 'USAGE') AS may`);
  return row?.may === true;
}

/** A name that cannot say whose an attempt is: several executors carry it, or it is empty. */
export interface SharedName {
  /** Empty: their sessions carry no name. */
  name: string;
  executors: string[];
  queues: string[];
}

/** Of executors that have not ended, where one of them works. */
export function listSharedNames(sql: Sql, keptSeconds: number): Promise<SharedName[]> {
  return sql.query<SharedName>(
    `SELECT name, array_agg(DISTINCT id) AS executors, coalesce(array_agg(DISTINCT queue) FILTER (WHERE queue IS NOT NULL), '{}') AS queues
     FROM (
       SELECT coalesce(application_name, '') AS name, id, verdict, kind = 'own' OR queues <> '{}' AS works, queue
       FROM executor LEFT JOIN unnest(queues) AS queue ON true
       WHERE stopped_at IS NULL AND proof IS NULL AND greatest(beat_at, session_at) > now() - make_interval(secs => $1)
     ) e
     GROUP BY name HAVING bool_or(works AND verdict IN ('alive', 'late', 'hung')) AND (name = '' OR count(DISTINCT id) > 1)
     ORDER BY name`,
    [keptSeconds],
  );
}

/** How many living executors carry that application_name. */
export async function countNameSharers(sql: Sql, applicationName: string): Promise<number> {
  const [row] = await sql.query<{ count: number }>(
    'SELECT count(*)::int AS count FROM executor WHERE application_name = $1 AND stopped_at IS NULL AND proof IS NULL',
    [applicationName],
  );
  return row?.count ?? 0;
}

export interface Heartbeat {
  executorId: string;
  applicationName?: string;
  beatSeconds?: number;
  lateAfterSeconds?: number;
  missingAfterSeconds?: number;
  host?: string;
  pid?: number;
  queues?: string[];
  stack?: string;
  env?: string;
  stopped?: boolean;
}

export async function callHeartbeat(sql: Sql, beat: Heartbeat): Promise<void> {
  await sql.query('SELECT heartbeat($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)', [
    beat.executorId,
    beat.applicationName ?? null,
    beat.beatSeconds ?? 15,
    beat.lateAfterSeconds ?? null,
    beat.missingAfterSeconds ?? null,
    beat.host ?? null,
    beat.pid ?? null,
    beat.queues ?? [],
    beat.stack ?? null,
    beat.env ?? null,
    beat.stopped ?? false,
  ]);
}
