import { listOfCommand } from '../actions/unit-action-queries.ts';
import { type AuditEvent, appendAudit } from '../audit/append.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { type CommandOutcome, type CommandRow, isAnyOverdue, type PeopledUnit, saveOutcome, saveOverdue } from './queries.ts';

export interface CommandResult {
  outcome: CommandOutcome;
  error?: string | null;
  answer?: PeopledUnit | null;
}

const AUDITED: Record<CommandOutcome, AuditEvent['outcome']> = {
  done: 'done',
  not_needed: 'done',
  partial: 'partial',
  failed: 'failed',
  expired: 'failed',
  refused: 'denied',
  drifted: 'drifted',
  unknown: 'unknown',
};

/** Its daemon tells how it went. @returns false when it has ended without it: that outcome stands. */
export function endCommand(database: Database, node: string, id: string, daemonId: string, result: CommandResult): Promise<boolean> {
  return database.transaction(async (tx) => {
    const row = await saveOutcome(tx, id, daemonId, result);
    if (row) await audit(tx, node, row);
    return row !== undefined;
  });
}

/** Ends what no daemon began in time, or whose daemon did not come back to tell: that one, or all of the fleet's. */
export async function endOverdue(database: Database, node: string, id: string | null = null): Promise<void> {
  if (id === null && !(await isAnyOverdue(database))) return;
  await database.transaction(async (tx) => {
    for (const row of await saveOverdue(tx, id)) await audit(tx, node, row);
  });
}

/** Who ends a command records it, in that transaction: once, whoever comes first. A look changes nothing. */
async function audit(tx: Sql, node: string, row: CommandRow): Promise<void> {
  const { id, action, actor, reason, outcome, error, audited } = row;
  if (action === 'look' || outcome === null) return;
  const unit = `${row.node}:${row.unit}`;
  const target = audited?.target ?? unit;
  const well = outcome === 'done' || outcome === 'not_needed';
  const why = error === null ? {} : outcome === 'drifted' ? { drifted: [{ target, drift: error }] } : { [well ? 'note' : 'error']: error };
  await appendAudit(tx, {
    actor,
    action: audited?.action ?? action,
    target,
    outcome: AUDITED[outcome],
    reason,
    node,
    detail: { ...audited?.detail, command: id, unit, ...why, did: await listOfCommand(tx, id) },
  });
}
