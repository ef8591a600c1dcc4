import type { RepairPlan } from './plan.ts';

/** `drifted`: it was not any more what the preview showed, and was left alone. */
export type TargetOutcome =
  | { target: string; outcome: 'done'; state: string }
  | { target: string; outcome: 'drifted'; drift: string }
  | { target: string; outcome: 'failed' | 'unknown'; error: string };

export interface RepairExecuted {
  done: true;
  action: string;
  /** Some targets had moved, or it failed there, or the executor holds attempts beyond them. */
  partial: boolean;
  /** Of an executor's rescue: the attempts that it holds beyond the targets; another preview takes them. */
  left?: number;
  targets: TargetOutcome[];
}

/** What the audit record of an execution says beside its outcome. */
export interface RecordedDetail {
  left?: number;
  failed?: { job: string; error: string }[];
  drifted?: { target: string; drift: string }[];
}

/** How an execution went, as its audit record tells it to a caller whose own answer was lost. */
export function tellRecorded(
  { action, jobs, flow }: RepairPlan,
  outcome: string,
  { left, failed = [], drifted = [] }: RecordedDetail,
): RepairExecuted {
  const others = new Map<string, TargetOutcome>([
    ...failed.map(({ job, error }): [string, TargetOutcome] => [job, { target: job, outcome: 'failed', error }]),
    ...drifted.map((one): [string, TargetOutcome] => [one.target, { ...one, outcome: 'drifted' }]),
  ]);
  const planned = flow ? flow.jobs.map((target) => ({ target, after: flow.after })) : jobs;
  return {
    done: true,
    action,
    partial: outcome !== 'done',
    ...(left === undefined ? {} : { left }),
    targets: planned.map(({ target, after }) => others.get(target) ?? { target, outcome: 'done', state: after }),
  };
}
