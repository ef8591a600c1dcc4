import type { Sql } from '../postgres/database.ts';

export type CommandAction = 'look' | 'unit_heal' | 'unit_restart' | 'unit_stop';
export type CommandOutcome = 'done' | 'failed' | 'not_needed' | 'refused' | 'drifted' | 'unknown' | 'expired';

/** A unit as its node's daemon saw it. */
export interface SeenUnit {
  unit: string;
  activeState: string;
  subState: string;
  result: string;
  invocation: string;
}

export interface CommandRequest {
  node: string;
  action: CommandAction;
  unit: string;
  actor: string;
  reason: string | null;
  expected: Pick<SeenUnit, 'activeState' | 'invocation'> | null;
}

export interface CommandRow extends CommandRequest {
  id: string;
  outcome: CommandOutcome | null;
  error: string | null;
  answer: SeenUnit | null;
}

const COLUMNS = 'id::text, node, action, unit, actor, reason, expected, outcome, error, answer';

/** The payload that tells a node's daemon of a command, on the channel that it listens to anyway. */
export const COMMAND_NOTICE = 'command ';

export async function saveCommand(tx: Sql, request: CommandRequest, takeWithinSeconds: number): Promise<string> {
  const { node, action, unit, actor, reason, expected } = request;
  const [row] = await tx.query<{ id: string }>(
    `INSERT INTO node_command (node, action, unit, actor, reason, expected, take_by)
     VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7)) RETURNING id::text`,
    [node, action, unit, actor, reason, expected && JSON.stringify(expected), takeWithinSeconds],
  );
  if (!row) throw new Error('a command returned no row');
  await tx.query(`SELECT pg_notify(current_schema() || '_death', $1)`, [`${COMMAND_NOTICE}${node}`]);
  return row.id;
}

/** The oldest command of this node that nobody has taken. */
export async function takeCommand(sql: Sql, node: string, daemonId: string, leaseSeconds: number): Promise<CommandRow | undefined> {
  const [row] = await sql.query<CommandRow>(
    `UPDATE node_command SET daemon_id = $2, lease_until = clock_timestamp() + make_interval(secs => $3)
     WHERE id = (SELECT id FROM node_command WHERE node = $1 AND outcome IS NULL AND daemon_id IS NULL AND take_by > clock_timestamp()
       ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
     RETURNING ${COLUMNS}`,
    [node, daemonId, leaseSeconds],
  );
  return row;
}

export async function renewCommand(sql: Sql, id: string, leaseSeconds: number): Promise<void> {
  await sql.query('UPDATE node_command SET lease_until = clock_timestamp() + make_interval(secs => $2) WHERE id = $1 AND outcome IS NULL', [
    id,
    leaseSeconds,
  ]);
}

/** @returns false when it has ended already: its outcome stands. */
export async function endCommand(
  sql: Sql,
  id: string,
  { outcome, error = null, answer = null }: { outcome: CommandOutcome; error?: string | null; answer?: SeenUnit | null },
): Promise<boolean> {
  const rows = await sql.query(
    `UPDATE node_command SET outcome = $2, error = $3, answer = $4, ended_at = clock_timestamp() WHERE id = $1 AND outcome IS NULL RETURNING 1`,
    [id, outcome, error, answer && JSON.stringify(answer)],
  );
  return rows.length > 0;
}

/** Ends what nobody took in time, or whose daemon did not come back to tell. @returns the outcome, where it ended it. */
export async function endOverdue(sql: Sql, id: string): Promise<'expired' | 'unknown' | undefined> {
  const [row] = await sql.query<{ outcome: 'expired' | 'unknown' }>(
    `UPDATE node_command SET ended_at = clock_timestamp(),
       outcome = CASE WHEN daemon_id IS NULL THEN 'expired' ELSE 'unknown' END
     WHERE id = $1 AND outcome IS NULL
       AND (daemon_id IS NULL AND take_by <= clock_timestamp() OR daemon_id IS NOT NULL AND lease_until <= clock_timestamp())
     RETURNING outcome`,
    [id],
  );
  return row?.outcome;
}

export async function readCommand(sql: Sql, id: string): Promise<CommandRow | undefined> {
  return (await sql.query<CommandRow>(`SELECT ${COLUMNS} FROM node_command WHERE id = $1`, [id]))[0];
}

export async function saveEvent(sql: Sql, id: string, number: number, event: object): Promise<void> {
  await sql.query('INSERT INTO node_command_event (command_id, number, event) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [
    id,
    number,
    JSON.stringify(event),
  ]);
}

export async function listEvents<Event>(sql: Sql, id: string, after: number): Promise<{ number: number; event: Event }[]> {
  return sql.query('SELECT number, event FROM node_command_event WHERE command_id = $1 AND number > $2 ORDER BY number', [id, after]);
}

/** Seconds since that node's daemon was last heard of; undefined where there never was one. */
export async function readNodeSilence(sql: Sql, node: string): Promise<{ seconds: number; stopped: boolean } | undefined> {
  const [row] = await sql.query<{ seconds: number; stopped: boolean }>(
    `SELECT extract(epoch FROM now() - beat_at)::float8 AS seconds, stopped_at IS NOT NULL AS stopped FROM node WHERE node = $1`,
    [node],
  );
  return row;
}
