import type { PolicyAnswers } from '../actions/limits.ts';
import { findExecutorHealth, lookAfresh } from '../executors/health.ts';
import type { Sql } from '../postgres/database.ts';
import type { JobPlan } from './job-plan.ts';
import { driftOf, isAsGood, type RepairPlan } from './plan.ts';
import { type Examined, examineJobs, type RepairDependencies } from './preview.ts';
import { findUnshownVoid, findVoidSilences } from './silence.ts';

interface Compared {
  asPlanned: JobPlan[];
  drifted: { target: string; drift: string }[];
}

/** Locks the jobs, looks at everything anew, and says what still is as it was shown. */
export async function compare(dependencies: RepairDependencies, tx: Sql, plan: RepairPlan, answers: PolicyAnswers): Promise<Compared> {
  const examined = new Map((await examineJobs(dependencies, tx, plan, plan.jobs, { lock: true, answers })).map((job) => [job.target, job]));
  const moved = await executorDrift(dependencies, tx, plan);
  if (moved !== undefined) return { asPlanned: [], drifted: [{ target: plan.executor?.id ?? '', drift: moved }] };
  const compared: Compared = { asPlanned: [], drifted: [] };
  for (const shown of plan.jobs) {
    const { target } = shown;
    const { now, planned } = examined.get(target) as Examined;
    const drift = driftOf(shown, now);
    if (drift.length > 0) compared.drifted.push({ target, drift: drift.join('; ') });
    else if ('refusal' in planned) compared.drifted.push({ target, drift: planned.refusal });
    else compared.asPlanned.push(planned.plan);
  }
  const unshown = findUnshownVoid(plan.voidSilences, await findVoidSilences(dependencies, tx, compared.asPlanned));
  const voidOf = ({ before }: JobPlan) => unshown.get(before.executor ?? '');
  for (const job of compared.asPlanned) {
    const drift = voidOf(job);
    if (drift !== undefined) compared.drifted.push({ target: job.target, drift });
  }
  return { ...compared, asPlanned: compared.asPlanned.filter((job) => voidOf(job) === undefined) };
}

/** In what way the executor is not any more what the preview showed. */
export async function executorDrift({ registry }: RepairDependencies, tx: Sql, { executor }: RepairPlan): Promise<string | undefined> {
  if (!executor) return undefined;
  const [now] = await lookAfresh(tx, registry, () => findExecutorHealth(tx, { ids: [executor.id] }));
  if (!now) return `executor ${executor.id} is not known any more`;
  if (isAsGood(executor.verdict, now.verdict)) return undefined;
  return `executor ${executor.id} was ${executor.verdict}, is ${now.verdict} (${now.reason})`;
}
