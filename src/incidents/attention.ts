import { appendAudit } from '../audit/append.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { incidentTarget } from './listing.ts';

export interface AttentionRequest {
  incidentId: string;
  /** Who, as the audit names them: `user@host`. */
  actor: string;
  reason: string;
  /** The node on which it is asked. */
  node: string;
}

export type AttentionResult = { done: true; until: string | null } | { done: false; refusal: string };

const LEAST_REASON = 8;
const LONGEST_SNOOZE_SECONDS = 30 * 86_400;

/** Says that a person has taken it on. It stays open until its condition is gone; reopening asks for attention anew. */
export function acknowledge(database: Database, request: AttentionRequest): Promise<AttentionResult> {
  return attend(database, request, 'incident_acknowledge', async (tx) => {
    await tx.query(
      'UPDATE incident SET acknowledged_at = now(), acknowledged_by = $2, acknowledged_reason = $3 WHERE id = $1 AND resolved_at IS NULL',
      [request.incidentId, request.actor, request.reason.trim()],
    );
    return null;
  });
}

/** Moves it out of the way until a time of the database's, also should it be resolved and come back before. */
export async function snooze(database: Database, request: AttentionRequest & { seconds: number }): Promise<AttentionResult> {
  const { seconds } = request;
  if (!(seconds > 0 && seconds <= LONGEST_SNOOZE_SECONDS))
    return { done: false, refusal: 'a snooze is longer than nothing, and 30 days at most' };
  return attend(database, request, 'incident_snooze', async (tx) => {
    const [row] = await tx.query<{ until: string }>(
      `UPDATE incident SET snoozed_until = now() + make_interval(secs => $4), snoozed_by = $2, snoozed_reason = $3
       WHERE id = $1 AND resolved_at IS NULL
       RETURNING to_char(snoozed_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS until`,
      [request.incidentId, request.actor, request.reason.trim(), seconds],
    );
    return row?.until ?? null;
  });
}

async function attend(
  database: Database,
  { incidentId, actor, reason: given, node }: AttentionRequest,
  action: 'incident_acknowledge' | 'incident_snooze',
  write: (tx: Sql) => Promise<string | null>,
): Promise<AttentionResult> {
  const reason = given.trim();
  if (reason.length < LEAST_REASON) return { done: false, refusal: `a reason of ${LEAST_REASON} characters or more is needed` };
  return database.transaction(async (tx) => {
    const [incident] = await tx.query<{ fingerprint: string; resolved: boolean }>(
      'SELECT fingerprint, resolved_at IS NOT NULL AS resolved FROM incident WHERE id = $1 FOR UPDATE',
      [incidentId],
    );
    if (!incident) return { done: false, refusal: `there is no incident ${incidentId}: see \`reclaimd incidents\`` };
    if (incident.resolved) return { done: false, refusal: `incident ${incidentId} is resolved already: nothing is left to attend to` };
    const until = await write(tx);
    const detail = { fingerprint: incident.fingerprint, ...(until === null ? {} : { until }) };
    await appendAudit(tx, { actor, action, target: incidentTarget(incidentId), outcome: 'done', reason, node, detail });
    return { done: true, until };
  });
}
