import { createHash } from 'node:crypto';
import type { Policy } from '../actions/limits.ts';
import type { Verdict } from '../executors/verdict.ts';
import type { FlowPlan } from './flow-plan.ts';
import type { JobBefore, JobPlan } from './job-plan.ts';
import type { UnitPlan } from './unit-plan.ts';

/** What was asked for, as it is kept beside the plan. */
export interface RepairRequest {
  action: string;
  targets: readonly string[];
  /** Of a rescue; null: each job's own. */
  policy: Policy | null;
}

export interface RepairPlan extends RepairRequest {
  /** Of an executor's repair. */
  executor: { id: string; verdict: Verdict; reason: string } | null;
  jobs: JobPlan[];
  /** Of a unit's repair, and of stopping an executor. */
  unit: UnitPlan | null;
  /** Of a workflow's repair. */
  flow: FlowPlan | null;
  /** Targets that the action is not for, and why. */
  leftOut: { target: string; why: string }[];
}

/** Names the effects and everything that they rest on; not what is only told. */
export function hashPlan({ action, targets, policy, executor, jobs, unit, flow }: RepairPlan): string {
  const facts = jobs.map(({ target, change, before, after, policy: applied }) => [target, change, factsOf(before), after, applied]);
  const named = executor && [executor.id, executor.verdict];
  const life = unit && [unit.node, unit.unit, unit.command, unit.before.activeState, unit.before.invocation];
  return createHash('sha256')
    .update(
      JSON.stringify([
        action,
        targets,
        policy,
        named,
        facts,
        life,
        flow && [flow.target, flow.state, flow.retryCount, flow.jobs, flow.after],
      ]),
    )
    .digest('hex');
}

const factsOf = ({ state, retryCount, retryLimit, startedOn, executor, verdict }: JobBefore) => [
  state,
  retryCount,
  retryLimit,
  startedOn,
  executor,
  verdict,
];

/** In what way a job is not any more what the preview showed; empty where it is. */
export function driftOf(planned: JobPlan, now: JobPlan): string[] {
  const { before } = planned;
  const drift: string[] = [];
  const compare = (name: string, was: unknown, is: unknown) => {
    if (was !== is) drift.push(`${name} was ${was ?? 'none'}, is ${is ?? 'none'}`);
  };
  compare('state', before.state, now.before.state);
  compare('attempt', before.retryCount, now.before.retryCount);
  compare('retry limit', before.retryLimit, now.before.retryLimit);
  if (before.retryCount === now.before.retryCount) compare('start', before.startedOn, now.before.startedOn);
  compare('executor', before.executor, now.before.executor);
  if (before.executor === now.before.executor && !isFirmer(before.verdict, now.before.verdict))
    compare('its executor', before.verdict, now.before.verdict);
  if (drift.length === 0) compare('the state after', planned.after, now.after);
  return drift;
}

/** Silence that has become proof takes nothing away from a plan. */
export function isFirmer(was: Verdict | null, is: Verdict | null): boolean {
  return was === 'missing' && (is === 'dead' || is === 'stopped');
}
