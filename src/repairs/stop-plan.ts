import type { Policy, PolicyAnswers } from '../actions/limits.ts';
import { findExecutorHealth } from '../executors/health.ts';
import type { Sql } from '../postgres/database.ts';
import { eachOnce, type FactsDependencies, type ResolveOrphan, readFacts } from './facts.ts';
import { type JobFacts, type JobPlanned, planJob } from './job-plan.ts';
import { driftOf, type RepairPlan } from './plan.ts';

export interface StopDependencies extends Omit<FactsDependencies, 'resolve'> {
  policies(sql: Sql, answers?: PolicyAnswers): Promise<ResolveOrphan>;
}

/** One plan, as of other repairs: but a stop ends everything that its executor holds, so it is shown whole or not at all. */
const MOST_ATTEMPTS = 1_000;

type Held = Pick<RepairPlan, 'jobs' | 'leftOut'>;

/** What a living executor holds, as it will be given back once its unit is stopped. */
export async function planHeld(
  dependencies: StopDependencies,
  sql: Sql,
  id: string,
  policy: Policy | null,
  answers?: PolicyAnswers,
): Promise<Held | { refusal: string }> {
  const held: Held = { jobs: [], leftOut: [] };
  const [executor] = await findExecutorHealth(sql, { ids: [id] });
  const name = executor?.applicationName ?? null;
  if (name === null) return held;
  // An attempt is there twice at most: one more than twice as many is too many.
  const attempts = eachOnce(await dependencies.jobs.listActive(sql, [name], 2 * MOST_ATTEMPTS + 1));
  if (attempts.length > MOST_ATTEMPTS) {
    const { count } = await dependencies.jobs.tallyActive(sql, [name], []);
    return {
      refusal: `${id} holds ${count} attempts, more than the ${MOST_ATTEMPTS} that one plan can show: unit_restart ends it too, and gives each back by its queue's policy`,
    };
  }
  const resolve = await dependencies.policies(sql, answers);
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
  if (owner && owner.executorId !== id) return { refusal: `it is ${owner.executorId}'s: a repair of that one takes it` };
  const planned = planJob('job_rescue', { ...facts, isLeftToSweep: true, owner: owner && { ...owner, verdict: 'dead' } });
  if (!('plan' in planned) || !owner) return planned;
  const { before } = planned.plan;
  return { plan: { ...planned.plan, before: { ...before, verdict: owner.verdict, proof: owner.proof } } };
}

/** What the executor holds by now that was not shown, or would fare otherwise. What it has finished meanwhile is no drift. */
export async function findUnshown(
  dependencies: StopDependencies,
  sql: Sql,
  plan: RepairPlan,
  id: string,
  answers: PolicyAnswers,
): Promise<string | undefined> {
  const now = await planHeld(dependencies, sql, id, plan.policy, answers);
  if ('refusal' in now) return now.refusal;
  const shown = new Map(plan.jobs.map((job) => [job.target, job]));
  const leftOut = new Map(plan.leftOut.map(({ target, why }) => [target, why]));
  const moved = now.jobs.flatMap((job): string[] => {
    const planned = shown.get(job.target);
    const why = leftOut.get(job.target);
    const unshown =
      why === undefined ? 'its executor has it by now, and it was not shown' : `it was left out (${why}), and is not any more`;
    const drift = planned ? driftOf(planned, job.before).join('; ') : unshown;
    return drift === '' ? [] : [`${job.target}: ${drift}`];
  });
  moved.push(...now.leftOut.filter(({ target, why }) => leftOut.get(target) !== why).map(({ target, why }) => `${target}: ${why}`));
  return moved.length < 2 ? moved[0] : `${moved[0]}, and ${moved.length - 1} more`;
}
