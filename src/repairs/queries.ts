import type { Sql } from '../postgres/database.ts';
import type { RepairPlan, RepairRequest } from './plan.ts';

export type PreviewStatus = 'ready' | 'consumed' | 'drifted' | 'expired';

export interface PreviewRow {
  token: string;
  /** By which the audit names it, for the token may still be good. */
  number: number;
  actor: string;
  action: string;
  request: RepairRequest;
  plan: RepairPlan;
  planHash: string;
  status: PreviewStatus;
  /** Ready, but past its time. */
  overdue: boolean;
  expiresInSeconds: number;
  endedSecondsAgo: number | null;
}

const COLUMNS = `token::text, number::float8 AS number, actor, action, request, plan, plan_hash AS "planHash", status,
  status = 'ready' AND expires_at <= now() AS overdue, extract(epoch FROM expires_at - now())::float8 AS "expiresInSeconds",
  extract(epoch FROM now() - ended_at)::float8 AS "endedSecondsAgo"`;

/** A ready preview of the same plan for the same actor is returned as it is; one past its time makes room first. */
export async function savePreview(
  tx: Sql,
  preview: { actor: string; node: string; request: RepairRequest; plan: RepairPlan; planHash: string },
): Promise<PreviewRow> {
  const { actor, node, request, plan, planHash } = preview;
  await tx.query(
    `UPDATE repair_preview SET status = 'expired', ended_at = now() WHERE actor = $1 AND plan_hash = $2 AND status = 'ready' AND expires_at <= now()`,
    [actor, planHash],
  );
  const [row] = await tx.query<PreviewRow>(
    `INSERT INTO repair_preview (actor, action, node, request, plan, plan_hash) VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (actor, plan_hash) WHERE status = 'ready' DO UPDATE SET node = repair_preview.node RETURNING ${COLUMNS}`,
    [actor, request.action, node, JSON.stringify(request), JSON.stringify(plan), planHash],
  );
  if (!row) throw new Error('a preview returned no row');
  return row;
}

export async function readPreview(sql: Sql, token: string): Promise<PreviewRow | undefined> {
  return (await sql.query<PreviewRow>(`SELECT ${COLUMNS} FROM repair_preview WHERE token = $1`, [token]))[0];
}

/** Its status once nobody else is at it, which then stays so until the transaction ends; undefined where it is gone. */
export async function lockPreview(tx: Sql, token: string): Promise<PreviewStatus | undefined> {
  const [row] = await tx.query<{ status: PreviewStatus }>('SELECT status FROM repair_preview WHERE token = $1 FOR UPDATE', [token]);
  return row?.status;
}

/** Uses the token up, once: whoever comes second waits, and finds it used. */
export async function consumePreview(tx: Sql, token: string): Promise<boolean> {
  const rows = await tx.query(
    `UPDATE repair_preview SET status = 'consumed', ended_at = clock_timestamp()
     WHERE token = $1 AND status = 'ready' AND expires_at > clock_timestamp() RETURNING 1`,
    [token],
  );
  return rows.length > 0;
}

export async function endPreview(tx: Sql, token: string, status: 'drifted' | 'expired'): Promise<void> {
  await tx.query('UPDATE repair_preview SET status = $2, ended_at = clock_timestamp() WHERE token = $1', [token, status]);
}
