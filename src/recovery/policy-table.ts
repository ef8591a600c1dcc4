import type { Sql } from '../postgres/database.ts';
import type { PolicyRule } from './policy.ts';

export interface PolicyRow extends PolicyRule {
  updatedAt: string;
  updatedBy: string;
}

/** The `policy` table: names without `*` first, then the longest pattern, so that the closest rule wins. */
export async function listPolicies(sql: Sql): Promise<PolicyRow[]> {
  const rows = await sql.query<Record<keyof PolicyRow, unknown>>(
    `SELECT queue, policy, max_recoveries AS "maxRecoveries", poison, stale_after_seconds * 1000 AS "staleAfterMs",
       updated_at::text AS "updatedAt", updated_by AS "updatedBy"
     FROM policy ORDER BY queue LIKE '%*%', length(replace(queue, '*', '')) DESC, queue`,
  );
  return rows.map((row) => Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null)) as unknown as PolicyRow);
}

export async function savePolicy(sql: Sql, rule: PolicyRule, by: string): Promise<void> {
  await sql.query(
    `INSERT INTO policy (queue, policy, max_recoveries, poison, stale_after_seconds, updated_by) VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (queue) DO UPDATE SET policy = $2, max_recoveries = $3, poison = $4, stale_after_seconds = $5, updated_at = now(), updated_by = $6`,
    [
      rule.queue,
      rule.policy,
      rule.maxRecoveries ?? null,
      rule.poison ?? null,
      rule.staleAfterMs === undefined ? null : rule.staleAfterMs / 1000,
      by,
    ],
  );
}

/** @returns false when there was no such rule. */
export async function removePolicy(sql: Sql, queue: string): Promise<boolean> {
  return (await sql.query('DELETE FROM policy WHERE queue = $1 RETURNING 1', [queue])).length > 0;
}
