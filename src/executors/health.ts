import type { Sql } from '../postgres/database.ts';
import { callHeartbeat, type ExecutorRow, findExecutors, type Heartbeat, importSessions, listExecutors, saveVerdicts } from './queries.ts';
import { judge, thresholds, WITNESS_FRESH_SECONDS } from './verdict.ts';

/** How long an executor that ended or fell silent stays in view. */
export const EXECUTOR_KEPT_SECONDS = 24 * 3600;

export type ExecutorHealth = ExecutorRow & { missingAfter: number };

/** Applies the verdict function to a row as it was read. */
export function judgeRow(row: ExecutorRow): ExecutorHealth {
  const limits = thresholds(row.beatSeconds, { late: row.lateAfterSeconds, missing: row.missingAfterSeconds });
  return { ...row, ...judge(row, limits), missingAfter: limits.missingAfterSeconds };
}

/** Every executor in view with its verdict as of now; reads only. */
export async function listExecutorHealth(sql: Sql): Promise<ExecutorHealth[]> {
  return (await listExecutors(sql, WITNESS_FRESH_SECONDS, EXECUTOR_KEPT_SECONDS)).map(judgeRow);
}

/** The same for those of the ids or names, however long they are gone. */
export async function findExecutorHealth(
  sql: Sql,
  wanted: { ids?: readonly string[]; names?: readonly string[] },
): Promise<ExecutorHealth[]> {
  return (await findExecutors(sql, wanted, WITNESS_FRESH_SECONDS)).map(judgeRow);
}

/**
 * One beat of an executor that is not a pg-boss instance; its thresholds travel with it. The id names one life: a
 * process that starts again takes a new id. `applicationName` is what its database sessions carry.
 */
export async function refreshHeartbeats(sql: Sql, beats: readonly Heartbeat[]): Promise<void> {
  for (const beat of beats) await callHeartbeat(sql, beat);
}

/** Where executors are registered; a queue without a registry imports nothing. */
export interface ExecutorRegistry {
  /** Takes over what is new since the last time; with `host`, only of that host. */
  importExecutors(sql: Sql, host?: string): Promise<void>;
}

/** Takes over the newest signs of life. */
export async function importSigns(sql: Sql, registry: ExecutorRegistry): Promise<void> {
  await registry.importExecutors(sql);
  await importSessions(sql);
}

/**
 * Within a transaction, a look at executors past what others have taken over so far. That is undone after the look: the transaction may go on
 * for a while, and a living executor's next beat must not wait for it.
 */
export async function lookAfresh<T>(tx: Sql, registry: ExecutorRegistry, look: () => Promise<T>): Promise<T> {
  await tx.query('SAVEPOINT afresh');
  await importSigns(tx, registry);
  const seen = await look();
  await tx.query('ROLLBACK TO SAVEPOINT afresh');
  await tx.query('RELEASE SAVEPOINT afresh');
  return seen;
}

/** The turn that fuses all sources and keeps the verdicts that others read. */
export async function refreshExecutors(sql: Sql, registry: ExecutorRegistry): Promise<ExecutorHealth[]> {
  await importSigns(sql, registry);
  const before = await listExecutors(sql, WITNESS_FRESH_SECONDS, EXECUTOR_KEPT_SECONDS);
  const after = before.map(judgeRow);
  const changed = after.filter(
    (executor, index) => executor.verdict !== before[index]?.verdict || executor.reason !== before[index]?.reason,
  );
  if (changed.length > 0)
    await saveVerdicts(
      sql,
      changed.map(({ id, verdict, reason }) => ({ id, verdict, reason })),
    );
  return after;
}
