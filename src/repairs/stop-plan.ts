import type { Policy } from '../actions/limits.ts';
import { findExecutorHealth } from '../executors/health.ts';
import type { Sql } from '../postgres/database.ts';
import { type FactsDependencies, type ResolveOrphan, readFacts } from './facts.ts';
import { type JobFacts, type JobPlanned, planJob } from './job-plan.ts';
import { driftOf, type RepairPlan } from './plan.ts';

export interface StopDependencies extends Omit<FactsDependencies, 'resolve'> {
  policies(sql: Sql): Promise<ResolveOrphan>;
}

/** One plan, as of other repairs. */
const MOST_ATTEMPTS = 1_000;

/** What a living executor holds, as it will be given back once its unit is stopped. */
export async function planHeld(
  dependencies: StopDependencies,
  sql: Sql,
  id: string,
  policy: Policy | null,
): Promise<Pick<RepairPlan, 'jobs' | 'leftOut'>> {
  const held: Pick<RepairPlan, 'jobs' | 'leftOut'> = { jobs: [], leftOut: [] };
  const [executor] = await findExecutorHealth(sql, { ids: [id] });
  const name = executor?.applicationName ?? null;
  const attempts = name === null ? [] : await dependencies.jobs.listActive(sql, [name], MOST_ATTEMPTS);
  if (attempts.length === 0) return held;
  const resolve = await dependencies.policies(sql);
  for (const facts of await readFacts({ ...dependencies, resolve }, sql, attempts, { policy, lock: false })) {
    const planned = planOnceStopped(id, facts);
    if ('plan' in planned) held.jobs.push(planned.plan);
    else held.leftOut.push({ target: `${facts.queue}/${facts.jobId}`, why: planned.refusal });
  }
  return held;
}

/** As its rescue will find it: its executor proven gone. What the plan rests on is how the executor is now. */
function planOnceStopped(id: string, facts: JobFacts): JobPlanned {
  const { owner } = facts;
  if (owner && owner.executorId !== id) return { refusal: `it is ${owner.executorId}'s` };
  const planned = planJob('job_rescue', owner ? { ...facts, owner: { ...owner, verdict: 'dead' } } : facts);
  if (!('plan' in planned) || !owner) return planned;
  const { before } = planned.plan;
  return { plan: { ...planned.plan, before: { ...before, verdict: owner.verdict, proof: owner.proof } } };
}

/** What the executor holds by now that was not shown, or would fare otherwise. What it has finished meanwhile is no drift. */
export async function findUnshown(dependencies: StopDependencies, tx: Sql, plan: RepairPlan, id: string): Promise<string | undefined> {
  const now = await planHeld(dependencies, tx, id, plan.policy);
  const shown = new Map(plan.jobs.map((job) => [job.target, job]));
  const leftOut = new Set(plan.leftOut.map(({ target }) => target));
  const moved = now.jobs.flatMap((job): string[] => {
    const planned = shown.get(job.target);
    const drift = planned ? driftOf(planned, job.before).join('; ') : 'its executor has it by now, and it was not shown';
    return drift === '' ? [] : [`${job.target}: ${drift}`];
  });
  moved.push(...now.leftOut.filter(({ target }) => !leftOut.has(target)).map(({ target, why }) => `${target}: ${why}`));
  return moved.length < 2 ? moved[0] : `${moved[0]}, and ${moved.length - 1} more`;
}
