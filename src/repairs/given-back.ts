import { type Attempt, type JobStore, nameAttempt } from '../actions/job-store.ts';
import { readHistory } from '../actions/queries.ts';
import type { CommandResult } from '../commands/end.ts';
import { listNamedPolicies } from '../commands/queries.ts';
import { type ExecutorHealth, findExecutorHealth } from '../executors/health.ts';
import type { Database, Sql } from '../postgres/database.ts';
import type { Clock } from '../runtime/clock.ts';

export interface GivenBackDependencies {
  database: Database;
  clock: Clock;
  jobs: Pick<JobStore, 'listActive'>;
}

/** Without any progress: a death is proven within a second and swept at once, and a sweep of many goes batch by batch. */
const PATIENCE_MS = 10_000;
const POLL_MS = 100;
const MOST_LOOKED_AT = 1_000;

/** Waits until an executor whose unit was stopped has ended and holds no attempt any more, and says how far it came. */
export async function awaitGivenBack({ database, clock, jobs }: GivenBackDependencies, executorId: string): Promise<CommandResult> {
  let seen = '';
  let deadline = 0;
  for (;;) {
    const [executor] = await findExecutorHealth(database, { ids: [executorId] });
    const name = executor?.applicationName ?? null;
    const left = name === null ? [] : await jobs.listActive(database, [name], MOST_LOOKED_AT);
    const result = judgeGivenBack(executor, left.length, await countHeld(database, left));
    if (result.outcome === 'done' || result.outcome === 'partial') return result;
    const now = `${executor?.verdict} ${left.length}`;
    if (now !== seen) deadline = clock.now() + PATIENCE_MS;
    else if (clock.now() > deadline) return result;
    seen = now;
    await clock.sleep(POLL_MS);
  }
}

/** Pure: its unit is stopped; has it ended, and does it hold attempts still? What a policy holds waits for a person. */
export function judgeGivenBack(
  executor: Pick<ExecutorHealth, 'verdict' | 'reason'> | undefined,
  left: number,
  held: number,
): CommandResult {
  if (!executor) return { outcome: 'unknown', error: 'its unit was stopped, but nobody knows the executor any more' };
  const { verdict, reason } = executor;
  const still = `${left} of its attempts ${left === 1 ? 'is' : 'are'} not back: see \`reclaimd orphans\``;
  if (verdict !== 'dead' && verdict !== 'stopped')
    return { outcome: 'failed', error: `its unit was stopped, but it is ${verdict} (${reason})${left === 0 ? '' : `, and ${still}`}` };
  if (left === 0) return { outcome: 'done', error: `${verdict}, holds no attempt any more` };
  if (left === held) return { outcome: 'partial', error: `${verdict}; its policy holds ${left} of its attempts: job_rescue names another` };
  return { outcome: 'failed', error: `${verdict}, but ${still}` };
}

/** What was held before is so no more, once another policy is named for it: it is about to come back. */
async function countHeld(sql: Sql, attempts: readonly Attempt[]): Promise<number> {
  const named = new Map((await listNamedPolicies(sql)).map(({ attempt, policy }) => [attempt, policy]));
  const own = attempts.filter((attempt) => (named.get(nameAttempt(attempt)) ?? 'hold') === 'hold');
  let held = 0;
  for (const [queue, some] of Map.groupBy(own, (attempt) => attempt.queue)) held += (await readHistory(sql, queue, some)).held.size;
  return held;
}
