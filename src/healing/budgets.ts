import { listHeals } from '../actions/unit-action-queries.ts';
import type { Sql } from '../postgres/database.ts';
import { type HealBudget, type HealLimits, judgeBudget } from './budget.ts';

/** No older heal can matter: an open breaker closes a quiet period after its last heal, and that one's window reaches back no further. */
const reachOf = ({ quietSeconds, windowSeconds }: HealLimits) => 2 * (quietSeconds + windowSeconds);

export async function readBudget(sql: Sql, host: string, unit: string, limits: HealLimits): Promise<HealBudget> {
  return judgeBudget(await listHeals(sql, host, reachOf(limits), unit), limits);
}

/** Of every unit of the host that was healed lately; who is not among them has its whole budget. */
export async function readBudgets(sql: Sql, host: string, limits: HealLimits): Promise<Map<string, HealBudget>> {
  const heals = await listHeals(sql, host, reachOf(limits));
  return new Map([...Map.groupBy(heals, ({ unit }) => unit)].map(([unit, history]) => [unit, judgeBudget(history, limits)]));
}
