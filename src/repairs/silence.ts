import type { Sql } from '../postgres/database.ts';
import type { JobPlan } from './job-plan.ts';

/** A silent executor whose silence is no evidence now, and why. */
export interface VoidSilence {
  executor: string;
  why: string;
}

export interface SilenceDependencies {
  /** Those among them that are missing and whose silence is no evidence now. */
  explainSilence(sql: Sql, executorIds: readonly string[]): Promise<VoidSilence[]>;
}

/** Of those whom the jobs would be taken from. */
export async function findVoidSilences(
  { explainSilence }: SilenceDependencies,
  sql: Sql,
  jobs: readonly JobPlan[],
): Promise<VoidSilence[]> {
  const taken = jobs.filter(({ change, before }) => change === 'rescue' && before.verdict === 'missing');
  const silent = new Set(taken.flatMap(({ before }) => before.executor ?? []));
  return silent.size === 0 ? [] : explainSilence(sql, [...silent]);
}

const spell = (executors: readonly string[], why: string) => `the silence of ${executors.join(', ')} counts for nothing now: ${why}`;

/** Pure: a sentence for each reason. */
export const explainVoid = (silences: readonly VoidSilence[]): string[] =>
  [...Map.groupBy(silences, ({ why }) => why)].map(([why, some]) =>
    spell(
      some.map(({ executor }) => executor),
      why,
    ),
  );

/** Pure: what speaks by now against a silence and was not shown, by executor. What was shown is the person's to judge. */
export function findUnshownVoid(shown: readonly VoidSilence[], now: readonly VoidSilence[]): Map<string, string> {
  const isShown = (one: VoidSilence) => shown.some(({ executor, why }) => executor === one.executor && why === one.why);
  return new Map(now.filter((one) => !isShown(one)).map(({ executor, why }) => [executor, spell([executor], why)]));
}
