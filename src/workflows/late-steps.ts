import type { Sql } from '../postgres/database.ts';
import { countRunningSteps, type LateStepRow, listLate } from './queries.ts';

export interface StepsLook {
  /** Steps under way in instances that have not ended, of every scope. */
  running: number;
  /** Those of them that were told of their job's end and have not been moved on. */
  late: LateStepRow[];
  /** There are no more than those. */
  complete: boolean;
}

const MOST_LATE = 1_000;

/** How the steps of event-driven engines are. Reads only. */
export async function lookAtSteps(sql: Sql): Promise<StepsLook> {
  const late = await listLate(sql, MOST_LATE);
  return { running: await countRunningSteps(sql), late, complete: late.length < MOST_LATE };
}
