import type { Sql } from '../postgres/database.ts';

export const OUTCOMES = ['done', 'partial', 'failed', 'denied', 'drifted', 'expired', 'unknown'] as const;

export interface AuditEvent {
  /** Who: `user@host`, or `reclaimd@NODE` for what the daemon does by itself. */
  actor: string;
  /** What: `sweep`, `unit_heal`, `job_retry`, ... */
  action: string;
  /** On what: `QUEUE/JOB-ID`, an executor's id, `NODE:UNIT`; for a batch what it has in common. */
  target: string;
  outcome: (typeof OUTCOMES)[number];
  /** Why, in the words of who did it; null for automatic actions. */
  reason: string | null;
  node: string;
  /** What identifies each effect; never job data. */
  detail: object;
}

/** Records one event within the transaction of its effects. */
export async function appendAudit(tx: Sql, event: AuditEvent): Promise<void> {
  // The transaction has its id before the event has its number (what a row must fulfil is asked before the row is made): the chain
  // tells by the id which numbers may still turn up.
  await tx.execute(
    `INSERT INTO audit (actor, action, target, outcome, reason, node, detail)
     SELECT $1, $2, $3, $4, $5, $6, $7::jsonb WHERE pg_current_xact_id() IS NOT NULL`,
    [event.actor, event.action, event.target, event.outcome, event.reason, event.node, JSON.stringify(event.detail)],
    'append_audit',
  );
}
