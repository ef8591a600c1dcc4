import type { Sql } from '../postgres/database.ts';

export type UnitAction = 'unit_heal' | 'unit_restart' | 'unit_stop';
export type UnitActionOutcome = 'done' | 'failed' | 'not_needed' | 'unknown';

export interface UnitActionIntent {
  unit: string;
  action: UnitAction;
  actor: string;
  automatic: boolean;
  reason: string | null;
  /** What it is done for, where another node asked for it. */
  command?: UnitCommand | undefined;
}

/** A command is audited by whoever ends it, not by the door. */
export interface UnitCommand {
  id: string;
  /** Asked in the transaction of the intent; false: the command is over, and nothing may be done for it. */
  hold(tx: Sql): Promise<boolean>;
}

export interface UnitActionRow extends Omit<UnitActionIntent, 'command'> {
  id: string;
  commandId: string | null;
  host: string;
  node: string;
  outcome: UnitActionOutcome | null;
  error: string | null;
}

const COLUMNS = 'id::text, host, node, unit, action, actor, automatic, reason, command_id::text AS "commandId", outcome, error';

/** One decision about a unit at a time, until the transaction ends. */
export async function lockUnit(tx: Sql, host: string, unit: string): Promise<void> {
  await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.unit.' || $1 || '/' || $2, 0))`, [host, unit]);
}

const EXPIRED = 'outcome IS NULL AND lease_until < clock_timestamp()';

export async function isAnyExpired(sql: Sql): Promise<boolean> {
  return (await sql.query(`SELECT FROM unit_action WHERE ${EXPIRED} LIMIT 1`)).length > 0;
}

/**
 * Ends what nobody holds any more, of one unit or of all; locked in one order, for several may do it at once.
 * @returns what was abandoned.
 */
export function abandonExpired(tx: Sql, of: { host: string; unit: string } | null): Promise<UnitActionRow[]> {
  return tx.query<UnitActionRow>(
    `WITH expired AS (
       SELECT a.id AS expired_id FROM unit_action a
       WHERE ${EXPIRED} AND ($1::text IS NULL OR host = $1) AND ($2::text IS NULL OR unit = $2) ORDER BY a.id FOR UPDATE
     )
     UPDATE unit_action SET outcome = 'unknown', ended_at = clock_timestamp(), error = 'its healer did not come back to tell'
     FROM expired WHERE id = expired_id RETURNING ${COLUMNS}`,
    [of?.host ?? null, of?.unit ?? null],
  );
}

export async function findUnderWay(sql: Sql, host: string, unit: string): Promise<UnitActionRow | undefined> {
  const [row] = await sql.query<UnitActionRow>(
    `SELECT ${COLUMNS} FROM unit_action WHERE host = $1 AND unit = $2 AND outcome IS NULL AND lease_until >= clock_timestamp()`,
    [host, unit],
  );
  return row;
}

export async function readUnitAction(sql: Sql, id: string): Promise<(UnitActionRow & { leased: boolean }) | undefined> {
  const [row] = await sql.query<UnitActionRow & { leased: boolean }>(
    `SELECT ${COLUMNS}, lease_until >= clock_timestamp() AS leased FROM unit_action WHERE id = $1`,
    [id],
  );
  return row;
}

export async function saveIntent(tx: Sql, host: string, node: string, intent: UnitActionIntent, leaseSeconds: number): Promise<string> {
  const [row] = await tx.query<{ id: string }>(
    `INSERT INTO unit_action (host, node, unit, action, actor, automatic, reason, command_id, lease_until)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp() + make_interval(secs => $9)) RETURNING id::text`,
    [host, node, intent.unit, intent.action, intent.actor, intent.automatic, intent.reason, intent.command?.id ?? null, leaseSeconds],
  );
  if (!row) throw new Error('an intent returned no row');
  return row.id;
}

export async function renewLease(sql: Sql, id: string, leaseSeconds: number): Promise<void> {
  await sql.query('UPDATE unit_action SET lease_until = clock_timestamp() + make_interval(secs => $2) WHERE id = $1 AND outcome IS NULL', [
    id,
    leaseSeconds,
  ]);
}

/**
 * Null: nothing of what was noted of the unit before stands any more.
 * @returns false when the lease was lost meanwhile.
 */
export async function saveEndedLife(sql: Sql, id: string, life: string | null): Promise<boolean> {
  const rows = await sql.query(
    `UPDATE unit_action a SET ended_life = $2 FROM unit_action own
     WHERE own.id = $1 AND own.outcome IS NULL AND a.host = own.host AND a.unit = own.unit
       AND (a.id = own.id OR ($2::text IS NULL AND a.ended_life IS NOT NULL)) RETURNING 1`,
    [id, life],
  );
  return rows.length > 0;
}

export interface UnitActionResult {
  outcome: UnitActionOutcome;
  error: string | null;
  condition: string | null;
  invocation: string | null;
  result: string | null;
  phases: readonly object[];
}

/** @returns false when the lease was lost meanwhile and the row is another's to tell. */
export async function saveResult(tx: Sql, id: string, result: UnitActionResult): Promise<boolean> {
  const rows = await tx.query(
    `UPDATE unit_action SET outcome = $2, error = $3, condition = $4, invocation = $5, result = $6, phases = $7, ended_at = clock_timestamp()
     WHERE id = $1 AND outcome IS NULL RETURNING 1`,
    [id, result.outcome, result.error, result.condition, result.invocation, result.result, JSON.stringify(result.phases)],
  );
  return rows.length > 0;
}

/** What was done for a command, as its audit record tells it. */
export function listOfCommand(sql: Sql, commandId: string): Promise<object[]> {
  return sql.query(
    `SELECT id::text AS "unitAction", host, action, outcome, error, condition, invocation, result, phases
     FROM unit_action WHERE command_id = $1 ORDER BY unit_action.id`,
    [commandId],
  );
}

export interface PastHealRow {
  unit: string;
  startedSecondsAgo: number;
  endedSecondsAgo: number | null;
  automatic: boolean;
  healed: boolean;
}

/** Heals and restarts of the last `seconds`, of one unit or of all of the host; what touched nothing is none. */
export function listHeals(sql: Sql, host: string, seconds: number, unit: string | null = null): Promise<PastHealRow[]> {
  return sql.query<PastHealRow>(
    `SELECT unit, extract(epoch FROM clock_timestamp() - started_at)::float8 AS "startedSecondsAgo",
       extract(epoch FROM clock_timestamp() - ended_at)::float8 AS "endedSecondsAgo", automatic, coalesce(outcome = 'done', false) AS healed
     FROM unit_action
     WHERE host = $1 AND ($3::text IS NULL OR unit = $3) AND action IN ('unit_heal', 'unit_restart') AND outcome IS DISTINCT FROM 'not_needed'
       AND started_at > clock_timestamp() - make_interval(secs => $2)
     ORDER BY started_at`,
    [host, seconds, unit],
  );
}
