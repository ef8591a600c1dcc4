import { appendAudit } from '../audit/append.ts';
import type { Database, Sql } from '../postgres/database.ts';
import { abandonExpired, isAnyExpired, type UnitActionOutcome, type UnitActionRow } from './unit-action-queries.ts';

type Recorded = Pick<UnitActionRow, 'id' | 'host' | 'node' | 'unit' | 'action' | 'actor' | 'reason'>;

/** The audit record of what was done to a unit, in the transaction that ends it; what was done for a command has that one's. */
export function auditUnitAction(
  tx: Sql,
  node: string,
  row: Recorded,
  outcome: Exclude<UnitActionOutcome, 'not_needed'>,
  detail: object = {},
): Promise<void> {
  const { id, host, unit, actor, action, reason } = row;
  return appendAudit(tx, {
    actor,
    action,
    target: `${row.node}:${unit}`,
    outcome,
    reason,
    node,
    detail: { unitAction: id, host, ...detail },
  });
}

/** Ends what its healer did not come back to tell of, and records it as that one's: once, whoever comes first. */
export async function endAbandoned(tx: Sql, node: string, of: { host: string; unit: string } | null = null): Promise<void> {
  for (const row of await abandonExpired(tx, of)) if (row.commandId === null) await auditUnitAction(tx, node, row, 'unknown');
}

/** As above, for the whole fleet: what nobody does again would stay without its record. */
export async function endAllAbandoned(database: Database, node: string): Promise<void> {
  if (await isAnyExpired(database)) await database.transaction((tx) => endAbandoned(tx, node));
}
