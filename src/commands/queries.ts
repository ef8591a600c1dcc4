import type { Policy } from '../actions/limits.ts';
import type { Sql } from '../postgres/database.ts';

export type CommandAction = 'look' | 'unit_heal' | 'unit_restart' | 'unit_stop';
export type CommandOutcome = 'done' | 'partial' | 'failed' | 'not_needed' | 'refused' | 'drifted' | 'unknown' | 'expired';

/** A unit as its node's daemon saw it. */
export interface SeenUnit {
  unit: string;
  activeState: string;
  subState: string;
  result: string;
  invocation: string;
}

/** A unit, and who runs in it and has not ended. */
export interface PeopledUnit extends SeenUnit {
  executors: readonly { id: string; lives: boolean }[];
}

export interface CommandRequest {
  node: string;
  action: CommandAction;
  unit: string;
  actor: string;
  reason: string | null;
  /** As it was shown: otherwise nothing is done. */
  expected: PeopledUnit | null;
  /** Of a repair: what its audit record says. Null: the command speaks for itself. */
  audited: { action: string; target: string; detail: object } | null;
  /** Of a stop: the executor whose attempts must be back before it is done. */
  executor: string | null;
  /** By which policy these of them come back; null: each by its job's own. */
  named: NamedPolicy | null;
}

/** A policy that a person named, and the attempts that they were shown, as `QUEUE/JOB-ID:RETRY-COUNT`. */
export interface NamedPolicy {
  policy: Policy;
  attempts: readonly string[];
}

export interface CommandRow extends Omit<CommandRequest, 'named'> {
  id: string;
  outcome: CommandOutcome | null;
  /** Why, where it did not go as asked; else what there is to say of it. */
  error: string | null;
  answer: PeopledUnit | null;
  /** Not ended, and its time is over. */
  overdue: boolean;
}

const OVERDUE = `c.outcome IS NULL AND clock_timestamp() >= CASE WHEN c.daemon_id IS NULL THEN c.take_by ELSE c.lease_until END`;
const COLUMNS = `c.id::text, c.node, c.action, c.unit, c.actor, c.reason, c.expected, c.audited, c.executor, c.outcome, c.error,
  c.answer, ${OVERDUE} AS overdue`;

/** The payload that tells a node's daemon of a command, on the channel that it listens to anyway. */
export const COMMAND_NOTICE = 'command ';

export async function saveCommand(tx: Sql, request: CommandRequest, takeWithinSeconds: number): Promise<string> {
  const { node, action, unit, actor, reason, expected, audited, executor, named } = request;
  const [row] = await tx.query<{ id: string }>(
    `INSERT INTO node_command (node, action, unit, actor, reason, expected, audited, executor, policy, attempts, take_by)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now() + make_interval(secs => $11)) RETURNING id::text`,
    [
      node,
      action,
      unit,
      actor,
      reason,
      expected && JSON.stringify(expected),
      audited && JSON.stringify(audited),
      executor,
      named?.policy,
      named?.attempts,
      takeWithinSeconds,
    ],
  );
  if (!row) throw new Error('a command returned no row');
  await tx.query(`SELECT pg_notify(current_schema() || '_death', $1)`, [`${COMMAND_NOTICE}${node}`]);
  return row.id;
}

/**
 * The oldest command of this node that nobody has taken, or that an earlier daemon of the node took and did not begin: who is not the
 * node's daemon any more cannot begin it, for `holdCommand` asks whose it is.
 */
export async function takeCommand(sql: Sql, node: string, daemonId: string, leaseSeconds: number): Promise<CommandRow | undefined> {
  const [row] = await sql.query<CommandRow>(
    `UPDATE node_command c SET daemon_id = $2, lease_until = clock_timestamp() + make_interval(secs => $3)
     WHERE c.id = (SELECT o.id FROM node_command o
       WHERE o.node = $1 AND o.outcome IS NULL AND o.begun_at IS NULL AND o.take_by > clock_timestamp()
         AND (o.daemon_id IS NULL OR o.daemon_id <> $2 AND EXISTS (SELECT FROM node n WHERE n.node = $1 AND n.daemon_id = $2))
       ORDER BY o.id LIMIT 1 FOR UPDATE OF o SKIP LOCKED)
     RETURNING ${COLUMNS}`,
    [node, daemonId, leaseSeconds],
  );
  return row;
}

export async function renewCommand(sql: Sql, id: string, daemonId: string, leaseSeconds: number): Promise<void> {
  await sql.query(
    `UPDATE node_command SET lease_until = clock_timestamp() + make_interval(secs => $3) WHERE id = $1 AND daemon_id = $2 AND outcome IS NULL`,
    [id, daemonId, leaseSeconds],
  );
}

/**
 * Within the transaction that writes the intent: from then on it may have been done.
 * @returns false when it is this daemon's no more, or its caller has been told that it is over: then nothing may be done.
 */
export async function holdCommand(tx: Sql, id: string, daemonId: string, leaseSeconds: number): Promise<boolean> {
  const rows = await tx.query(
    `UPDATE node_command SET begun_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => $3)
     WHERE id = $1 AND daemon_id = $2 AND outcome IS NULL AND lease_until > clock_timestamp() RETURNING 1`,
    [id, daemonId, leaseSeconds],
  );
  return rows.length > 0;
}

/** @returns undefined when it has ended already, or another daemon has it: its outcome stands. */
export async function saveOutcome(
  tx: Sql,
  id: string,
  daemonId: string,
  { outcome, error = null, answer = null }: { outcome: CommandOutcome; error?: string | null; answer?: PeopledUnit | null },
): Promise<CommandRow | undefined> {
  const [row] = await tx.query<CommandRow>(
    `UPDATE node_command c SET outcome = $3, error = $4, answer = $5, ended_at = clock_timestamp()
     WHERE c.id = $1 AND c.daemon_id = $2 AND c.outcome IS NULL RETURNING ${COLUMNS}`,
    [id, daemonId, outcome, error, answer && JSON.stringify(answer)],
  );
  return row;
}

export async function isAnyOverdue(sql: Sql): Promise<boolean> {
  return (await sql.query(`SELECT FROM node_command c WHERE ${OVERDUE} LIMIT 1`)).length > 0;
}

/**
 * Ends what is overdue, all of it or the one. What no daemon began has done nothing. Of what one began its own record may tell the end;
 * but whether an executor's attempts came back, nobody saw.
 */
export function saveOverdue(tx: Sql, id: string | null): Promise<CommandRow[]> {
  return tx.query<CommandRow>(
    `UPDATE node_command c SET ended_at = clock_timestamp(), (outcome, error) = (
       SELECT CASE WHEN c.begun_at IS NULL THEN 'expired' WHEN c.executor IS NULL THEN coalesce(max(a.outcome), 'unknown') ELSE 'unknown' END,
         CASE WHEN c.begun_at IS NULL THEN 'no daemon of that node began it in time, so nothing was done: ask again'
           WHEN c.executor IS NULL AND max(a.outcome) IS NOT NULL THEN max(a.error)
           ELSE 'the daemon of that node did not come back to tell: look at the unit' END
       FROM unit_action a WHERE a.command_id = c.id)
     WHERE c.id IN (SELECT c.id FROM node_command c WHERE ${OVERDUE} AND ($1::bigint IS NULL OR c.id = $1) FOR UPDATE SKIP LOCKED)
     RETURNING ${COLUMNS}`,
    [id],
  );
}

export async function readCommand(sql: Sql, id: string): Promise<CommandRow | undefined> {
  return (await sql.query<CommandRow>(`SELECT ${COLUMNS} FROM node_command c WHERE c.id = $1`, [id]))[0];
}

/** The last command whose audit record will hold these details. */
export async function findCommandWith(sql: Sql, detail: object): Promise<string | undefined> {
  const [row] = await sql.query<{ id: string }>(
    `SELECT c.id::text FROM node_command c WHERE c.audited->'detail' @> $1 ORDER BY c.id DESC LIMIT 1`,
    [JSON.stringify(detail)],
  );
  return row?.id;
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

export interface NodeDaemon {
  host: string;
  silentSeconds: number;
  stopped: boolean;
}

/** The daemon of a node, as it was last heard of; undefined where there never was one. */
export async function readNode(sql: Sql, node: string): Promise<NodeDaemon | undefined> {
  const [row] = await sql.query<NodeDaemon>(
    `SELECT host, extract(epoch FROM now() - beat_at)::float8 AS "silentSeconds", stopped_at IS NOT NULL AS stopped FROM node WHERE node = $1`,
    [node],
  );
  return row;
}

/**
 * The policies that people named when they had executors stopped a while ago, for each attempt that they were shown. A stop that came to
 * nothing leaves none behind: its executor may live on, and what becomes of it later nobody has decided.
 */
export function listNamedPolicies(sql: Sql): Promise<{ attempt: string; executor: string; policy: Policy }[]> {
  return sql.query(
    `SELECT DISTINCT ON (attempt) attempt, executor, policy FROM node_command, unnest(attempts) AS a(attempt)
     WHERE policy IS NOT NULL AND begun_at > now() - interval '1 hour' AND (outcome IS NULL OR outcome NOT IN ('failed', 'refused', 'drifted'))
     ORDER BY attempt, id DESC`,
  );
}
