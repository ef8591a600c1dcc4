import { createHash } from 'node:crypto';
import type { Policy } from '../actions/limits.ts';
import type { Verdict } from '../executors/verdict.ts';
import type { FlowPlan } from './flow-plan.ts';
import { type JobBefore, type JobPlan, spell, withoutAge } from './job-plan.ts';
import type { VoidSilence } from './silence.ts';
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
  /** Attempts that the executor holds beyond these: one repair takes so many. */
  left: number;
  /** Of which queues those are. */
  leftQueues: string[];
  /** Targets that the action is not for, and why. */
  leftOut: { target: string; why: string }[];
  /** Why the silence of executors that attempts are taken from is no evidence. */
  voidSilences: VoidSilence[];
}

/** By which an incident finds what was done about it. */
export function commonTarget({ executor, targets, jobs, unit }: RepairPlan): string {
  if (executor) return executor.id;
  if (unit) return `${unit.node}:${unit.unit}`;
  if (targets.length === 1) return targets[0] as string;
  const queues = new Set(jobs.map(({ queue }) => queue));
  return queues.size === 1 ? ([...queues][0] as string) : 'several queues';
}

/** Names the effects, everything that they rest on, and all else that a person is shown but ages: two that read otherwise are two plans. */
export function hashPlan({ jobs, flow, ...shown }: RepairPlan): string {
  const facts = jobs.map(({ target, change, before, after, policy, warnings }) => [
    target,
    change,
    factsOf(change).map((fact) => before[fact]),
    after,
    policy,
    warnings.map(withoutAge),
  ]);
  // Its jobs and what it warns of tell of its children, which come in any order.
  const ofFlow = flow && { ...flow, children: [], warnings: flow.warnings.map(withoutAge) };
  return createHash('sha256')
    .update(JSON.stringify([shown, facts, ofFlow]))
    .digest('hex');
}

type Fact = Exclude<keyof JobBefore, 'proof'>;

/** How a drift calls them. */
const NAMES: Record<Fact, string> = {
  state: 'state',
  retryCount: 'attempt',
  retryLimit: 'retry limit',
  startedOn: 'start',
  blocked: 'whether it is blocked',
  executor: 'executor',
  verdict: 'its executor',
  policy: 'policy',
  policySource: 'source of the policy',
  recoveries: 'times that it was given back',
  poison: 'whether it is poison',
  mostRecoveries: 'times that its queue allows',
  deadLetter: 'dead letter queue',
  children: 'jobs that wait for it',
  siblingInRetry: 'sibling in retry',
  blocksKeyWhenFailed: 'key blocked by a failure',
  placeTakenBy: 'who has its place',
  copies: 'what became of its copy',
};

/** Any change rests on the attempt as it was, and who was at it. */
const OF_THE_ATTEMPT: readonly Fact[] = ['state', 'retryCount', 'retryLimit', 'startedOn', 'executor', 'verdict'];
/** Beyond the attempt: what the effect follows from, and what the plan tells of it. */
const OF_THE_CHANGE: Record<JobPlan['change'], readonly Fact[]> = {
  rescue: [
    'policy',
    'policySource',
    'recoveries',
    'poison',
    'mostRecoveries',
    'deadLetter',
    'children',
    'siblingInRetry',
    'blocksKeyWhenFailed',
  ],
  retry: ['blocked', 'deadLetter', 'placeTakenBy', 'copies'],
  resume: ['blocked', 'placeTakenBy', 'copies'],
  cancel: ['children'],
};

const factsOf = (change: JobPlan['change']) => [...OF_THE_ATTEMPT, ...OF_THE_CHANGE[change]];

/** In what way a job is not any more what the preview showed; empty where it is. `now` is null where it is gone. */
export function driftOf({ change, before }: Pick<JobPlan, 'change' | 'before'>, now: JobBefore | null): string[] {
  if (!now) return [`state was ${before.state}, is gone`];
  return factsOf(change)
    .filter((fact) => before[fact] !== now[fact] && !followsFromAnother(fact, before, now))
    .map((fact) => `${NAMES[fact]} was ${spell(before[fact])}, is ${spell(now[fact])}`);
}

function followsFromAnother(fact: Fact, before: JobBefore, now: JobBefore): boolean {
  if (fact === 'executor') return before.state !== now.state && now.executor === null;
  if (fact === 'startedOn') return before.retryCount !== now.retryCount;
  if (fact === 'mostRecoveries') return before.poison !== now.poison;
  if (fact === 'verdict') return before.executor !== now.executor || isAsGood(before.verdict, now.verdict);
  return false;
}

/** Silence that has become proof takes nothing away from a plan; one who is a beat late is there as before. */
export function isAsGood(was: Verdict | null, is: Verdict | null): boolean {
  if (was === 'missing') return is === 'missing' || is === 'dead' || is === 'stopped';
  return was === is || (isThere(was) && isThere(is));
}

const isThere = (verdict: Verdict | null) => verdict === 'alive' || verdict === 'late';
